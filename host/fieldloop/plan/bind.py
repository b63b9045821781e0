"""From moves between pieces of stores to steps of the image: every store has its offset now."""

from __future__ import annotations

from collections.abc import Sequence

from fieldloop.plan.program import Move, Piece, Program
from fieldloop.plan.types import Step, StepKind


def bind(program: Program, offsets: Sequence[int]) -> tuple[Step, ...]:
    """The steps of a program whose store i lies at offsets[i]."""
    return tuple(_step(move, offsets) for move in program.moves)


def places(program: Program, offsets: Sequence[int]) -> dict[str, int]:
    """Arena offsets of the tensors that are held whole."""
    return {name: offsets[piece.store] + piece.offset for name, piece in program.places.items()}


def _at(piece: Piece | None, offsets: Sequence[int]) -> int:
    return 0 if piece is None else offsets[piece.store] + piece.offset


def _stride(piece: Piece | None) -> int:
    return 0 if piece is None else piece.step


def _step(move: Move, offsets: Sequence[int]) -> Step:
    if move.kind is StepKind.OP:
        return Step(StepKind.OP, move.op)
    x, y = _at(move.x, offsets), _at(move.y, offsets)
    if move.kind is StepKind.COPY:
        assert move.x is not None
        return Step(StepKind.COPY, move.op, x=x, y=y, z=move.x.end - move.x.offset)
    return Step(
        StepKind.TILE,
        move.op,
        row=move.out.row,
        rows=move.out.rows,
        channel=move.out.channel,
        channels=move.out.channels,
        x_row=move.inp.row,
        x_rows=move.inp.rows,
        x_channel=move.inp.channel,
        x_channels=move.inp.channels,
        x=x,
        y=y,
        z=_at(move.z, offsets),
        x_step=_stride(move.x),
        y_step=_stride(move.y),
        z_step=_stride(move.z),
        map_hw=move.map_hw,
        partial=move.partial,
        first=move.first,
        last=move.last,
        turned=move.turned,
    )
