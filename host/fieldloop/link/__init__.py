"""The link to a device: SMP frames, client, typed board. docs/SPEC-link.md has the bytes."""

from fieldloop.link.board import Board, connect

__all__ = ["Board", "connect"]
