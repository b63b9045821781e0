"""A tiled plan before it has places: stores of bytes, and moves between pieces of them.

`Builder` is what the tilings write with. A store is a stretch of arena whose offset is not known
yet; a piece is where some pixels of a map lie in a store. From the moves alone follows which bytes
of which store are live when (occupancy.py), from that where the stores may lie (stacking.py), and
then the moves are steps of the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from fieldloop.errors import FieldloopError
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import BINARY, Op, OpKind
from fieldloop.ir.tensor import Tensor
from fieldloop.plan.types import StepKind

# What may be written where its first input lies.
IN_PLACE = BINARY | {OpKind.TABLE, OpKind.UNARY}


class CannotTileError(FieldloopError):
    """A path that this kind of tiling does not take; the message says why."""


@dataclass(slots=True)
class Store:
    """A piece of arena. `bytes` grows while the program is written."""

    name: str
    bytes: int
    alignment: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Pixels in a store: from byte `offset` on, `step` elements of `size` bytes from one pixel to
    the next, `channels` of them used.
    """

    store: int
    offset: int
    pixels: int
    step: int
    channels: int
    size: int

    @property
    def end(self) -> int:
        """Behind the last byte used."""
        return self.offset + ((self.pixels - 1) * self.step + self.channels) * self.size

    @property
    def dense(self) -> bool:
        """Every byte from offset to end is used."""
        return self.step == self.channels or self.pixels == 1


@dataclass(frozen=True, slots=True)
class Box:
    """Rows [row, row + rows) and channels [channel, channel + channels) of a map, all columns."""

    row: int
    rows: int
    channel: int
    channels: int


@dataclass(frozen=True, slots=True)
class Move:
    """A step whose places are pieces of stores. `op`: index in the graph's order.

    x and z are read, y is written; with `partial`, y holds accumulators (read too unless `first`),
    and the finished elements go to z (`last`). OP: `reads` and `y` are whole tensors.
    """

    kind: StepKind
    op: int
    out: Box = Box(0, 0, 0, 0)
    inp: Box = Box(0, 0, 0, 0)
    x: Piece | None = None
    y: Piece | None = None
    z: Piece | None = None
    reads: tuple[Piece, ...] = ()  # of OP: all of its activations
    map_hw: tuple[int, int] = (0, 0)
    partial: bool = False
    first: bool = False
    last: bool = False
    turned: bool = False

    @property
    def read(self) -> tuple[Piece, ...]:
        """Pieces that are read."""
        pieces = [*self.reads]
        if self.x is not None:
            pieces.append(self.x)
        if self.z is not None and not self.partial and self.kind is StepKind.TILE:
            pieces.append(self.z)
        if self.partial and not self.first and self.y is not None:
            pieces.append(self.y)
        return tuple(pieces)

    @property
    def written(self) -> tuple[Piece, ...]:
        """Pieces that are written."""
        pieces = [] if self.y is None else [self.y]
        if self.last and self.z is not None:
            pieces.append(self.z)
        return tuple(pieces)


@dataclass(frozen=True, slots=True)
class Program:
    """Stores and moves. `places`: the piece of every tensor that some store holds whole."""

    stores: tuple[Store, ...]
    moves: tuple[Move, ...]
    places: dict[str, Piece]
    inputs: tuple[str, ...]
    stays: tuple[str, ...]  # outputs, and what must be there at the end


@dataclass(slots=True)
class Builder:
    """Writes a program for a graph in its order."""

    graph: Graph
    stores: list[Store] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    places: dict[str, Piece] = field(default_factory=dict)

    def tensor(self, name: str) -> Tensor:
        return self.graph.tensors[name]

    def new(self, name: str, size: int, alignment: int) -> int:
        """A new store; its number."""
        self.stores.append(Store(name, size, alignment))
        return len(self.stores) - 1

    def whole(self, name: str) -> Piece:
        """The place of a tensor that is held whole, made where there is none yet."""
        if name not in self.places:
            tensor = self.tensor(name)
            store = self.new(name, tensor.bytes, tensor.dtype.bytes)
            self.places[name] = piece_of(store, 0, tensor)
        return self.places[name]

    def alias(self, name: str, piece: Piece) -> Piece:
        """Holds a tensor whole from the start of another piece on: a reshape, an operator in
        place, elements on the accumulators they come from.
        """
        tensor = self.tensor(name)
        self.places[name] = piece_of(piece.store, piece.offset, tensor)
        store = self.stores[piece.store]
        store.bytes = max(store.bytes, self.places[name].end)
        store.alignment = max(store.alignment, tensor.dtype.bytes)
        return self.places[name]

    def add(self, move: Move) -> None:
        self.moves.append(move)

    def whole_op(self, index: int, *, in_place: bool = False) -> None:
        """An operator that is not tiled. `in_place`: its output takes its first input's place."""
        op = self.graph.ops[index]
        given = tuple(self.whole(name) for name in activations(self.graph, op))
        if op.kind is OpKind.RESHAPE or in_place:
            y = self.alias(op.output, given[0])
        else:
            y = self.whole(op.output)
        self.add(Move(StepKind.OP, index, reads=given, y=y))

    def done(self, keep: Iterable[str] = ()) -> Program:
        """The program; `keep`: tensors that must be there at the end, beside the outputs."""
        stays = tuple(dict.fromkeys((*self.graph.outputs, *keep)))
        for name in (*self.graph.inputs, *stays):
            if name not in self.places:
                raise CannotTileError(f"{name} is never held whole")
        return Program(
            tuple(self.stores), tuple(self.moves), dict(self.places), self.graph.inputs, stays
        )


def piece_of(store: int, offset: int, tensor: Tensor) -> Piece:
    """A whole tensor as one pixel."""
    return Piece(store, offset, 1, tensor.size, tensor.size, tensor.dtype.bytes)


def activations(graph: Graph, op: Op) -> tuple[str, ...]:
    """The inputs of an operator that live in the arena."""
    return tuple(name for name in op.inputs if not graph.tensors[name].is_constant)


@lru_cache(maxsize=16)
def _roots(graph: Graph) -> dict[str, str]:
    found = {name: name for name in graph.inputs}
    for op in graph.ops:
        is_reshape = op.kind is OpKind.RESHAPE
        found[op.output] = found[op.inputs[0]] if is_reshape else op.output
    return found


def root_of(graph: Graph, name: str) -> str:
    """The tensor whose bytes an activation is, through reshapes."""
    return _roots(graph)[name]


@dataclass(frozen=True, slots=True)
class Life:
    """When the bytes of a root are there in the graph's order: made by operator `first` (-1: given
    by the caller), read last by operator `last` (the number of operators: by the caller).
    """

    first: int
    last: int
    bytes: int


@lru_cache(maxsize=16)
def lives(graph: Graph, keep: frozenset[str] = frozenset()) -> dict[str, Life]:
    """The lives of all roots. `keep`: what must be there at the end, beside the outputs."""
    roots = _roots(graph)
    first = dict.fromkeys((roots[name] for name in graph.inputs), -1)
    last = dict.fromkeys(first, -1)
    for index, op in enumerate(graph.ops):
        first.setdefault(roots[op.output], index)
        for name in (op.output, *activations(graph, op)):
            last[roots[name]] = index
    for name in (*graph.outputs, *keep):
        last[roots[name]] = len(graph.ops)
    return {n: Life(first[n], last[n], graph.tensors[n].bytes) for n in first}
