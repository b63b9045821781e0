# Mount the file system at /, and make one on a flash that holds none; packages are in /lib.
import sys

import simboard
import vfs

_fs = simboard.Partition("fs")
try:
    _vfs = vfs.VfsLfs2(_fs)
except OSError:
    vfs.VfsLfs2.mkfs(_fs)
    _vfs = vfs.VfsLfs2(_fs)
vfs.mount(_vfs, "/")
sys.path.append("/lib")
