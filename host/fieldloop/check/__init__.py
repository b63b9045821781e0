"""Does what runs equal what was meant? The source's own runtime, the C core, and a board.

`fieldloop check` compares them layer by layer; bench/sweep.py does so over many models.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fieldloop.errors import FieldloopError

if TYPE_CHECKING:
    from fieldloop.image.reader import Image


def read(image: bytes | str | Path) -> Image:
    """Reads a model image or file; ImageError or VersionError when it cannot be used."""
    from fieldloop.image.reader import read_image

    if isinstance(image, bytes):
        return read_image(image)
    try:
        return read_image(Path(image).read_bytes())
    except OSError as error:
        raise FieldloopError(f"cannot read {image}: {error.strerror}") from error


class _Callable(ModuleType):
    """Importing this package puts it where the function fieldloop.check was: it is both."""

    def __call__(self, image: bytes | str | Path) -> Image:
        return read(image)


sys.modules[__name__].__class__ = _Callable
