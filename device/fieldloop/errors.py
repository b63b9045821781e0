"""What a command refuses with, by the numbers of fl_error.h."""

ENOENT = -2
EIO = -5
ENOMEM = -12
EBUSY = -16
EINVAL = -22
ENOSPC = -28
EBADMSG = -74
ENOTSUP = -95
KNOWN = (2, 5, 11, 12, 16, 22, 28, 74, 95, 1001)


class Refuse(Exception):
    """A command that fails: minus an errno, what the host is told, and more pairs of the reply."""

    def __init__(self, code, text, more=None):
        super().__init__(text)
        self.code = code
        self.text = text
        self.more = more
