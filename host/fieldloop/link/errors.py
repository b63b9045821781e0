"""What can go wrong on the link, as errors that say what, expected, got and the next step."""

from __future__ import annotations

from collections.abc import Mapping

from fieldloop.errors import DoesNotFitError, FieldloopError

# The device's error codes: `rc` of group 70 is minus the value of fl_error.h.
RC_NAMES = {
    2: "not found",
    5: "input/output error",
    11: "not ready yet",
    12: "out of memory",
    16: "busy",
    22: "invalid argument",
    28: "no space left",
    74: "damaged or foreign data",
    95: "not supported by this firmware",
    1001: "image not aligned to 16 bytes",
}
ENOENT, EIO, ENOMEM, EBUSY, EINVAL, ENOSPC, EBADMSG, ENOTSUP = 2, 5, 12, 16, 22, 28, 74, 95

# SMP's own codes, sent as {"rc": code} before a command is looked at.
SMP_RC_NAMES = {
    1: "unknown error",
    2: "not enough memory for the reply",
    3: "invalid request",
    5: "not found",
    7: "reply larger than the buffer",
    8: "no such group or command",
    9: "message damaged on the way",
    10: "busy",
    12: "SMP version too old",
    13: "SMP version too new",
}

GROUP_FILES = 8
FILE_RC_NAMES = {
    1: "unknown error",
    2: "no such file name",
    3: "no such file",
    4: "a folder, not a file",
    5: "the file cannot be opened",
    6: "the file has no such place",
    7: "the file cannot be read",
    8: "the file cannot be shortened",
    9: "the file cannot be removed",
    10: "the file cannot be written",
    11: "the offset is not the one expected",
    12: "the offset is behind the file's end",
    13: "no such hash or checksum",
    14: "no such mount point",
    15: "read only",
    16: "the file is empty",
}
SMP_ENOTSUP, SMP_ECORRUPT = 8, 9
FILE_OFFSET_NOT_VALID = 11


class LinkError(FieldloopError):
    """The device refused a call. `rc` is its code, `group` tells whose (0: SMP itself)."""

    def __init__(self, message: str, *, rc: int = 0, group: int = 0) -> None:
        self.rc = rc
        self.group = group
        super().__init__(message)


class SessionLostError(LinkError):
    """Another client opened a newer session, or the device restarted since ours was opened."""


class CodecError(LinkError):
    """Bytes that are not the SMP message or the CBOR that they should be."""


def remote_error(what: str, reply: Mapping[str, object]) -> FieldloopError | None:
    """The error that a reply carries, None when it carries none."""
    detail = reply.get("msg", reply.get("rsn"))
    said = f": {detail}" if isinstance(detail, str) and detail else ""
    rc = reply.get("rc")
    if isinstance(rc, int) and rc != 0:
        name = SMP_RC_NAMES.get(rc, f"SMP error {rc}")
        return LinkError(f"{what}: the device answers {name!r}{said}", rc=rc)
    err = reply.get("err")
    if not isinstance(err, dict):
        return None
    code, group = err.get("rc"), err.get("group")
    if not isinstance(code, int) or not isinstance(group, int):
        return CodecError(f"{what}: an error reply without group and rc: {err!r}")
    need, have = reply.get("need"), reply.get("have")
    if isinstance(need, int) and isinstance(have, int):
        return DoesNotFitError(what, needed_bytes=need, available_bytes=have)
    if "want" in reply:  # the session did not let the call through
        return _session_error(what, code, reply)
    names = FILE_RC_NAMES if group == GROUP_FILES else RC_NAMES
    name = names.get(code, f"error {code} of group {group}")
    return LinkError(f"{what}: the device answers {name!r}{said}", rc=code, group=group)


def _session_error(what: str, code: int, reply: Mapping[str, object]) -> LinkError:
    if code == ENOENT:
        text = "the device restarted and our session is gone; what was not committed is lost"
        return SessionLostError(f"{what}: {text}; connect again", rc=code, group=70)
    if code == EBUSY:
        text = "another client opened a newer session, which wins; close it and connect again"
        return SessionLostError(f"{what}: {text}", rc=code, group=70)
    if code == EINVAL:
        text = f"call number out of step, the device expects {reply.get('want')}; connect again"
    elif code == EIO:
        text = "the call was interrupted on the device, its effect is unknown; look at `info`"
    else:
        text = "the call ran, but its reply was too large for the device to keep"
    return LinkError(f"{what}: {text}", rc=code, group=70)
