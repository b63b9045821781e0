"""fieldloop: train on the host, learn in the field.

`import fieldloop` imports neither torch nor the C core; both load when they are first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldloop.api import check, compile, connect

__version__ = "0.1.0"
__all__ = ["check", "compile", "connect"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fieldloop import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
