"""The one family of errors, and the exit code each ends the command line with.

A message says what went wrong, what was expected, what was got and what to do next, in one line.
"""

from __future__ import annotations


class FieldloopError(Exception):
    """Base of every error that fieldloop raises on purpose; ends the CLI with exit code 1."""

    exit_code = 1


class UsageError(FieldloopError):
    """The caller asked for something that cannot be: exit code 2."""

    exit_code = 2


class DeviceError(FieldloopError):
    """No device, a port that is gone, or a board that answers nothing: exit code 3."""

    exit_code = 3


class VersionError(FieldloopError):
    """A protocol, image or store version that this side does not speak: exit code 4."""

    exit_code = 4


class DoesNotFitError(FieldloopError):
    """More memory is needed than there is: exit code 5."""

    exit_code = 5

    def __init__(self, what: str, *, needed_bytes: int, available_bytes: int) -> None:
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        missing = needed_bytes - available_bytes
        super().__init__(
            f"{what} does not fit: needs {needed_bytes} bytes, {available_bytes} available, "
            f"{missing} missing"
        )
