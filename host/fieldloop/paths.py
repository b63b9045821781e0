"""Where things lie: the C core, the device package, the boards, Zephyr's module, the build cache.

In a clone they are the folders of the repository; in an installed wheel they travel inside the
package (`fieldloop/_data`). What is built goes to `build/` of the clone, or to the user's cache.
"""

from __future__ import annotations

import os
from pathlib import Path

from fieldloop.errors import FieldloopError

_PACKAGE = Path(__file__).resolve().parent
_CARRIED = _PACKAGE / "_data"


def is_installed() -> bool:
    """True in an installed wheel, False in a clone (editable install)."""
    return _CARRIED.is_dir()


def data_root() -> Path:
    """The folder that holds cmodules/, device/, boards/, zephyr/ and zephyr_app/: for Zephyr a
    module."""
    return _CARRIED if is_installed() else _PACKAGE.parent.parent


def cmodules_dir() -> Path:
    """The folder to hand MicroPython as USER_C_MODULES."""
    return data_root() / "cmodules"


def core_dir() -> Path:
    """The C core: include/, core/, kernels/, learn/, store/, link/ and the binding."""
    return cmodules_dir() / "fieldloop"


def device_dir() -> Path:
    """The MicroPython package's folder (holds package.json and fieldloop/)."""
    return data_root() / "device"


def boards_dir() -> Path:
    """The MPS2 port and roster.toml."""
    return data_root() / "boards"


def build_dir() -> Path:
    """Where builds and caches go; FIELDLOOP_BUILD overrides. Created if absent."""
    override = os.environ.get("FIELDLOOP_BUILD")
    if override:
        path = Path(override).expanduser()
    elif is_installed():
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        path = Path(cache) / "fieldloop"
    else:
        path = data_root() / "build"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FieldloopError(
            f"cannot make the build folder {path}: {error.strerror}; "
            "set FIELDLOOP_BUILD to a folder that can be written"
        ) from error
    return path
