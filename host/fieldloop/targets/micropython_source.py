"""Obtain the MicroPython source, and mpy-cross built from it.

The source is Debian's package, fetched by apt through a private apt state: no system file is
touched, no root is needed, and apt verifies the archive's signature. The upstream tarball inside
is pinned by its SHA-256. Only what our ports need is unpacked; Debian's patches are not applied.
`MICROPY_DIR` names another checkout instead.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fieldloop import paths
from fieldloop.errors import FieldloopError, UsageError

VERSION = "1.25.0"
PACKAGE_VERSION = "1.25.0+ds-1"
SUITE = "trixie"
TARBALL = "micropython_1.25.0+ds.orig.tar.xz"
TARBALL_SHA256 = "7b25be99a502f070b2de81dafc08da7051d992325d6e67daa9045a918fffdbea"

# Builds mpy-cross, the unix port and boards/mps2; about a tenth of the whole tree.
_WANTED = (
    "LICENSE",
    "py/",
    "shared/",
    "extmod/",
    "lib/littlefs/",
    "lib/libm/",
    "lib/libm_dbl/",
    "lib/cmsis/",
    "lib/oofatfs/",
    "lib/uzlib/",
    "lib/re1.5/",
    "lib/crypto-algorithms/",
    "ports/unix/",
    "mpy-cross/",
    "tools/",
)

_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
# A stanza with one of these suites is the Debian archive itself, not -security and not a stranger.
_DEBIAN_SUITES = frozenset(
    ("bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing")
)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AptSource:
    """A place the Debian archive can be fetched from, as the machine's own apt knows it."""

    uri: str
    signed_by: str


def micropython_dir(progress: Progress | None = None) -> Path:
    """The MicroPython source tree, fetched on first use.

    Raises UsageError for a MICROPY_DIR that is not MicroPython, FieldloopError when apt fails.
    """
    override = os.environ.get("MICROPY_DIR")
    if override:
        path = Path(override).expanduser().resolve()
        if not (path / "py" / "mkenv.mk").is_file():
            raise UsageError(
                f"MICROPY_DIR is not a MicroPython checkout: expected {path}/py/mkenv.mk; "
                "point it at one, or unset it to fetch the source through apt"
            )
        return path
    build = paths.build_dir()
    target = build / f"micropython-{VERSION}"
    if target.is_dir():
        return target
    with locked(build / f".micropython-{VERSION}.lock"):
        if not target.is_dir():
            _obtain(target, progress)
    return target


def mpy_cross(progress: Progress | None = None, *, source: Path | None = None) -> Path:
    """The host tool mpy-cross, built once in the build folder; of another source than ours."""
    source = source or micropython_dir(progress)
    build = paths.build_dir() / ("mpy-cross" + _tag(source))
    tool = build / "mpy-cross"
    if tool.is_file():
        return tool
    with locked(paths.build_dir() / f".{build.name}.lock"):
        if not tool.is_file():
            if progress:
                progress("building mpy-cross")
            run_make([f"-C{source / 'mpy-cross'}", f"BUILD={build}"], "mpy-cross")
    return tool


def library_stub() -> Path:
    """The folder to pass as MPY_LIB_DIR: the source package carries no micropython-lib, and
    MicroPython's makefiles only test that a README.md is there."""
    stub = paths.build_dir() / "micropython-lib-stub"
    readme = stub / "README.md"
    if not readme.is_file():
        stub.mkdir(parents=True, exist_ok=True)
        readme.write_text(
            "Stands where micropython-lib would be; our manifests need none of it.\n"
        )
    return stub


def run_make(arguments: list[str], what: str) -> None:
    """Run make with the given arguments; on failure raise with the end of what it said."""
    environment = dict(os.environ)
    # Otherwise the firmware holds the date of the build.
    environment.setdefault("SOURCE_DATE_EPOCH", "1745000000")
    # Otherwise makeversionhdr.py asks git, and finds the repository that holds the build folder.
    environment.setdefault("MICROPY_GIT_TAG", f"v{VERSION}")
    environment.setdefault("MICROPY_GIT_HASH", "unknown")
    # Flags of an enclosing `make demo` must not reach MicroPython's makefiles.
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CFLAGS", "LDFLAGS", "BUILD", "BOARD"):
        environment.pop(name, None)
    environment.pop("USER_C_MODULES", None)  # ours come on the command line, mpy-cross has none
    jobs = f"-j{min(os.cpu_count() or 1, 8)}"
    if shutil.which("make") is None:
        raise FieldloopError(f"cannot build {what}: make is missing; install the package make")
    result = subprocess.run(
        ["make", jobs, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        tail = "\n".join(result.stdout.strip().splitlines()[-25:])
        raise FieldloopError(f"building {what} failed (make exit {result.returncode}):\n{tail}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, so that processes side by side build once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _tag(source: Path) -> str:
    """Distinguishes build folders of a MICROPY_DIR checkout from those of the pinned source."""
    if source == paths.build_dir() / f"micropython-{VERSION}":
        return ""
    return "-" + hashlib.sha256(str(source).encode()).hexdigest()[:8]


def build_tag(progress: Progress | None = None) -> str:
    """The suffix of build folders for the source in use: empty for the pinned one."""
    return _tag(micropython_dir(progress))


def _obtain(target: Path, progress: Progress | None) -> None:
    downloads = paths.build_dir() / "downloads"
    tarball = downloads / TARBALL
    if not (tarball.is_file() and _sha256(tarball) == TARBALL_SHA256):
        if progress:
            progress(f"fetching the MicroPython {VERSION} source package through apt")
        _download(downloads)
    got = _sha256(tarball)
    if got != TARBALL_SHA256:
        tarball.unlink()
        raise FieldloopError(
            f"{TARBALL} is not the pinned one: expected sha256 {TARBALL_SHA256}, got {got}; "
            "try again, or set MICROPY_DIR to a MicroPython checkout"
        )
    if progress:
        progress("unpacking MicroPython")
    temporary = Path(tempfile.mkdtemp(prefix=f".micropython-{VERSION}.", dir=target.parent))
    try:
        _unpack(tarball, temporary)
        temporary.chmod(0o755)
        temporary.rename(target)
    except (OSError, tarfile.TarError) as error:
        raise FieldloopError(
            f"cannot unpack {TARBALL}: {error}; free some space or remove {downloads}, try again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack(tarball: Path, folder: Path) -> None:
    """Unpack the wanted files of the tarball, without its first path component."""
    with tarfile.open(tarball, "r:xz") as archive:
        for member in archive:
            _, _, name = member.name.partition("/")
            if not name.startswith(_WANTED) or ".." in Path(name).parts:
                continue
            destination = folder / name
            if member.isfile():
                destination.parent.mkdir(parents=True, exist_ok=True)
                handle = archive.extractfile(member)
                assert handle is not None
                with handle, destination.open("wb") as output:
                    shutil.copyfileobj(handle, output)
                destination.chmod(0o755 if member.mode & 0o100 else 0o644)
                os.utime(destination, (member.mtime, member.mtime))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "(no file)"


def _download(downloads: Path) -> None:
    if shutil.which("apt-get") is None:
        raise FieldloopError(
            "the MicroPython source comes as a Debian source package, and apt-get is missing; "
            f"set MICROPY_DIR to a checkout of MicroPython {VERSION}"
        )
    sources = apt_sources(Path("/etc/apt"))
    if not sources:
        raise FieldloopError(
            "no Debian archive found in /etc/apt (debian.sources or sources.list); "
            f"set MICROPY_DIR to a checkout of MicroPython {VERSION}"
        )
    downloads.mkdir(parents=True, exist_ok=True)
    tail = ""
    for source in sources:
        with tempfile.TemporaryDirectory(prefix="fieldloop-apt-") as state:
            tail = _apt_source(source, Path(state), downloads)
        if not tail:
            return
    raise FieldloopError(
        f"apt could not fetch micropython {PACKAGE_VERSION} of {SUITE}: {tail}; "
        f"check the network, or set MICROPY_DIR to a checkout of MicroPython {VERSION}"
    )


def _apt_source(source: AptSource, state: Path, downloads: Path) -> str:
    """Fetch from one archive; "" when done, else the last line of what apt said."""
    for folder in ("lists/partial", "cache/archives/partial", "parts"):
        (state / folder).mkdir(parents=True)
    listing = state / "fieldloop.sources"
    listing.write_text(
        f"Types: deb-src\nURIs: {source.uri}\nSuites: {SUITE}\nComponents: main\n"
        f"Signed-By: {source.signed_by}\n"
    )
    options = [
        f"Dir::Etc::sourcelist={listing}",
        f"Dir::Etc::sourceparts={state / 'parts'}",
        f"Dir::State::lists={state / 'lists'}",
        f"Dir::Cache={state / 'cache'}",
        "Acquire::Languages=none",
        "Acquire::Retries=3",
        "APT::Sandbox::User=root",
    ]
    apt = ["apt-get", "-q", *[word for option in options for word in ("-o", option)]]
    package = ["source", "--download-only", f"micropython={PACKAGE_VERSION}"]
    for command in (["update"], package):
        result = subprocess.run(
            [*apt, *command],
            cwd=downloads,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if result.returncode != 0:
            lines = [line for line in result.stdout.splitlines() if line.startswith(("E:", "W:"))]
            return lines[-1] if lines else f"apt-get exit {result.returncode}"
    return ""


def apt_sources(etc_apt: Path) -> list[AptSource]:
    """The Debian archives that this machine's apt is set up with, in both file formats."""
    found: list[AptSource] = []
    parts = etc_apt / "sources.list.d"
    for path in sorted(parts.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(errors="replace")):
            found.extend(_from_stanza(stanza))
    for path in [etc_apt / "sources.list", *sorted(parts.glob("*.list"))]:
        if path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                found.extend(_from_line(line))
    return list(dict.fromkeys(found))


def _from_stanza(stanza: str) -> list[AptSource]:
    lines = [line for line in stanza.splitlines() if not line.startswith("#")]
    fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", "\n".join(lines), re.MULTILINE))
    if fields.get("Enabled", "yes").strip().lower() == "no":
        return []
    suites = set(fields.get("Suites", "").split())
    if not suites & _DEBIAN_SUITES or "main" not in fields.get("Components", "").split():
        return []
    return [AptSource(uri, _keyring(fields.get("Signed-By"))) for uri in fields["URIs"].split()]


def _from_line(line: str) -> list[AptSource]:
    match = re.match(r"deb(?:-src)?\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+(.*)", line.strip())
    if not match:
        return []
    options, uri, suite, components = match.groups()
    if suite not in _DEBIAN_SUITES or "main" not in components.split():
        return []
    signed = re.search(r"signed-by=(\S+)", options or "")
    return [AptSource(uri, _keyring(signed.group(1) if signed else None))]


def _keyring(configured: str | None) -> str:
    if configured and Path(configured.strip()).is_file():
        return configured.strip()
    for path in _KEYRINGS:
        if Path(path).is_file():
            return path
    return _KEYRINGS[0]
