"""Does what runs equal what was meant? The source's own runtime, the C core, and a board.

`fieldloop check` compares them layer by layer; bench/sweep.py does so over many models.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fieldloop.image.reader import Image


class _Callable(ModuleType):
    """Importing this package puts it where the function fieldloop.check was: it is both."""

    def __call__(self, image: bytes | str | Path) -> Image:
        from fieldloop.api import check

        return check(image)


sys.modules[__name__].__class__ = _Callable
