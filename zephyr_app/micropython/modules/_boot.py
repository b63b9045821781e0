# Run by MicroPython before boot.py and main.py. Mounts the file system at /, made at the first
# start; a ROMFS is at /rom beside it, or at / where there is nothing else. Packages are in /lib.
import sys

import vfs

import zephyr

_areas = getattr(zephyr, "FlashArea", None)
_root = _areas is not None and "fs" in _areas.areas
if _root:
    _device = _areas(*_areas.areas["fs"])
    try:
        vfs.mount(_device, "/")
    except OSError:
        vfs.VfsLfs2.mkfs(_device)
        vfs.mount(_device, "/")
    sys.path.append("/lib")
    del _device
if hasattr(vfs, "VfsRom"):
    try:
        vfs.mount(vfs.VfsRom(vfs.rom_ioctl(2, 0)), "/rom" if _root else "/")
    except (OSError, ValueError):
        pass  # nothing was written there
del _areas, _root, sys, vfs, zephyr
