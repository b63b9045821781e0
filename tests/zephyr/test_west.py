"""west.yml and `west fieldloop`, with west itself and without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from images import digits_image
from west.manifest import ImportFlag, Manifest

import fieldloop

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).parent / "fieldloop"
WEST = Path(sys.executable).parent / "west"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Manifest.from_data((ROOT / "west.yml").read_text(), import_flags=ImportFlag.IGNORE)


def test_the_manifest_names_tags_at_public_addresses(manifest: Manifest) -> None:
    projects = {project.name: project for project in manifest.projects}
    assert set(projects) == {"manifest", "zephyr", "micropython"}
    assert projects["zephyr"].revision == "v4.2.0"
    assert projects["micropython"].revision == "v1.28.0"
    for name in ("zephyr", "micropython"):
        project = projects[name]
        assert re.fullmatch(r"https://[a-z]+\.com/[a-z-]+/" + name, project.url)
        assert re.fullmatch(r"v\d+\.\d+\.\d+", project.revision), "a release, by its tag"
        assert project.path == name  # where targets/zephyr_workspace.py looks
    assert not projects["micropython"].submodules


def test_the_manifest_repository_brings_module_and_command(manifest: Manifest) -> None:
    own = manifest.projects[0]
    assert own.path == "fieldloop"
    assert own.west_commands == ["scripts/west-commands.yml"]
    assert (ROOT / own.west_commands[0]).is_file()
    assert (ROOT / "zephyr" / "module.yml").is_file()  # west looks there, and nowhere else


def test_zephyr_brings_few_modules() -> None:
    asked: list[dict] = []
    Manifest.from_data(
        (ROOT / "west.yml").read_text(),
        importer=lambda project, file: asked.append({"project": project.name, "file": file}),
    )
    assert asked == [{"project": "zephyr", "file": "west.yml"}]
    text = (ROOT / "west.yml").read_text()
    # What Zephyr would bring: the two that are allowed, and others that must stay away.
    zephyr = """
manifest:
  defaults: {remote: there}
  remotes: [{name: there, url-base: https://example.com/there}]
  projects:
    - {name: cmsis_6, revision: aa}
    - {name: zcbor, revision: bb}
    - {name: hal_nordic, revision: cc}
    - {name: picolibc, revision: dd}
"""
    resolved = Manifest.from_data(text, importer=lambda project, file: zephyr)
    names = [project.name for project in resolved.projects]
    assert sorted(names) == ["cmsis_6", "manifest", "micropython", "zcbor", "zephyr"]


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.com")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


class Workspace:
    """A west workspace with our manifest, and a Zephyr that holds nothing but a manifest: what
    `west update` would have left, without a network."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.own = top / "fieldloop"
        for name in ("west.yml", "scripts/west-commands.yml", "scripts/west_commands.py"):
            (self.own / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.own / name)
        zephyr = top / "zephyr"
        zephyr.mkdir()
        (zephyr / "west.yml").write_text("manifest:\n  projects: []\n")
        git(zephyr, "init", "-q")
        git(zephyr, "add", "west.yml")
        git(zephyr, "commit", "-q", "-m", "A manifest.")
        git(zephyr, "update-ref", "refs/heads/manifest-rev", "HEAD")
        self.west("init", "-l", str(self.own))

    def west(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """West's answer; what it finds of fieldloop is what `env` says, and no more."""
        kept = {"PATH": "/usr/bin:/bin", "HOME": str(self.top), "LANG": "C.UTF-8"}
        if "FIELDLOOP_BUILD" in os.environ:
            kept["FIELDLOOP_BUILD"] = os.environ["FIELDLOOP_BUILD"]
        return subprocess.run(
            [str(WEST), *arguments],
            cwd=self.top,
            capture_output=True,
            text=True,
            env={**kept, **env},
        )


@pytest.fixture(scope="module")
def topdir(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    if not WEST.is_file():
        pytest.skip("west is not installed beside this Python")
    return Workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program fieldloop, whether or not the package is installed as one."""
    if PROGRAM.is_file():
        return PROGRAM
    path = tmp_path / "fieldloop"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT / 'host')!r})\n"
        "from fieldloop.cli.main import entry\nsys.exit(entry())\n"
    )
    path.chmod(0o755)
    return path


def test_west_knows_the_command(topdir: Workspace) -> None:
    done = topdir.west("help")
    assert re.search(r"^\s+fieldloop:\s+train on the host", done.stdout, re.M), done.stderr


def test_west_fieldloop_is_the_command_line(topdir: Workspace, program: Path) -> None:
    done = topdir.west("fieldloop", "--version", FIELDLOOP=str(program))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[-1] == fieldloop.__version__


def test_every_argument_and_the_exit_code_pass_through(topdir: Workspace, tmp_path: Path) -> None:
    """Options that west has itself, an empty word, `--` and blanks; and a code of its own."""
    given = ["--help", "-v", "--", "", "-z", "a b", "--x=1", "-h", "--", "*"]
    path = tmp_path / "fieldloop"
    path.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([sys.argv[1:], os.environ['ZEPHYR_BASE']]))\nsys.exit(130)\n"
    )
    path.chmod(0o755)
    done = topdir.west("fieldloop", *given, PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 130, done.stderr
    assert json.loads(done.stdout) == [given, str(topdir.top / "zephyr")]


def test_the_clone_has_a_program_before_the_path_has(topdir: Workspace, tmp_path: Path) -> None:
    for folder, word in ((topdir.own / ".venv" / "bin", "clone"), (tmp_path, "path")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fieldloop").write_text(f"#!/bin/sh\necho {word}\n")
        (folder / "fieldloop").chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    try:
        assert topdir.west("fieldloop", PATH=path).stdout == "clone\n"
        given = topdir.west("fieldloop", PATH=path, FIELDLOOP=str(tmp_path / "fieldloop"))
        assert given.stdout == "path\n"
    finally:
        shutil.rmtree(topdir.own / ".venv")
    assert topdir.west("fieldloop", PATH=path).stdout == "path\n"


def test_no_program_says_how_to_get_one(topdir: Workspace) -> None:
    done = topdir.west("fieldloop", "info")
    assert done.returncode == 2
    for word in ("neither in", "nor on the PATH", "make -C", "setup", "FIELDLOOP="):
        assert word in done.stderr
    done = topdir.west("fieldloop", "info", FIELDLOOP="/nowhere/fieldloop")
    assert done.returncode == 2
    assert "/nowhere/fieldloop is not a file" in done.stderr


def test_west_fieldloop_info_of_a_model(topdir: Workspace, program: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.flm"
    model.write_bytes(digits_image())
    own = subprocess.run([str(program), "info", str(model)], capture_output=True, text=True)
    assert own.returncode == 0, own.stderr
    through = topdir.west("fieldloop", "info", str(model), FIELDLOOP=str(program))
    assert (through.returncode, through.stdout) == (0, own.stdout), through.stderr
    assert "RAM" in through.stdout
    missing = topdir.west("fieldloop", "info", str(tmp_path / "no.flm"), FIELDLOOP=str(program))
    assert missing.returncode != 0


def test_the_command_imports_west_and_the_library_only() -> None:
    """West's Python has neither torch nor fieldloop."""
    text = (ROOT / "scripts" / "west_commands.py").read_text()
    roots = set(re.findall(r"^(?:from|import) (\w+)", text, re.M))
    assert roots - set(sys.stdlib_module_names) == {"west"}
