"""Random programs of moves between pieces: strided, dense, shifted, summed, used again."""

from __future__ import annotations

import random
from collections.abc import Iterator

from fieldloop.plan.program import Move, Piece, Program, Store
from fieldloop.plan.types import StepKind


def bytes_of(piece: Piece) -> set[int]:
    """Offsets in the store of the bytes that a piece uses."""
    return {
        piece.offset + (pixel * piece.step + channel) * piece.size + byte
        for pixel in range(piece.pixels)
        for channel in range(piece.channels)
        for byte in range(piece.size)
    }


def line(store: int, offset: int, count: int) -> Piece:
    """`count` bytes."""
    return Piece(store, offset, 1, count, count, 1)


def accesses(program: Program) -> Iterator[tuple[list[Piece], list[Piece]]]:
    """Of each time: what is read, then what is written; the caller first and last."""
    yield [], [program.places[name] for name in program.inputs]
    for move in program.moves:
        yield list(move.read), list(move.written)
    yield [program.places[name] for name in program.stays], []


def random_program(seed: int) -> Program:
    """Reads only what was written before; every store is up to 12 bytes."""
    rng = random.Random(seed)
    stores = [
        Store(f"s{i}", rng.randrange(2, 13), rng.choice([1, 1, 1, 2]))
        for i in range(rng.randrange(2, 6))
    ]
    count = len(stores)
    written: list[set[int]] = [set() for _ in stores]

    def any_piece(store: int) -> Piece:
        size = stores[store].bytes
        while True:
            offset, channels = rng.randrange(size), rng.randrange(1, 4)
            step = channels + rng.choice([0, 0, 0, 1, 2])
            piece = Piece(store, offset, rng.randrange(1, 7), step, channels, 1)
            if piece.end <= size:
                return piece

    def readable(among: list[int]) -> Piece | None:
        for _ in range(20):
            piece = any_piece(rng.choice(among))
            if bytes_of(piece) <= written[piece.store]:
                return piece
        return None

    def mark(piece: Piece) -> Piece:
        written[piece.store] |= bytes_of(piece)
        return piece

    places = {"x": mark(line(0, 0, stores[0].bytes))}
    moves: list[Move] = []
    for index in range(rng.randrange(1, 13)):
        kind = rng.random()
        if kind < 0.2:  # a shift within one store
            size = max((s for s in range(count) if written[s]), key=lambda s: len(written[s]))
            full = stores[size].bytes
            if full > 1 and written[size] == set(range(full)):
                by = rng.randrange(1, full)
                moves.append(
                    Move(
                        StepKind.COPY,
                        index,
                        x=line(size, by, full - by),
                        y=line(size, 0, full - by),
                    )
                )
                continue
        x = readable(list(range(count)))
        if x is None:
            continue
        others = [s for s in range(count) if s != x.store]
        y = any_piece(rng.choice(others))
        if kind < 0.5:  # sums that become elements on themselves
            sums = line(y.store, 0, stores[y.store].bytes)
            first = rng.random() < 0.6 or written[y.store] != bytes_of(sums)
            last = rng.random() < 0.5
            z = line(y.store, 0, rng.randrange(1, sums.channels + 1)) if last else None
            moves.append(
                Move(StepKind.TILE, index, x=x, y=sums, z=z, partial=True, first=first, last=last)
            )
            mark(sums)
            continue
        z = readable(others) if rng.random() < 0.3 else None
        if z is not None and z.store == y.store:
            z = None
        moves.append(Move(StepKind.TILE, index, x=x, y=mark(y), z=z))
    final = next(s for s in reversed(range(count)) if written[s])
    low = min(written[final])
    places["out"] = line(final, low, 1)
    return Program(tuple(stores), tuple(moves), places, ("x",), ("out",))
