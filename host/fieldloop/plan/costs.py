"""What tiling costs beside multiply-accumulates: about the executed instructions of a Cortex-M4.

Measured on qemu-an386 (keyword spotting row by row, visual wake words in slices): a call of a
kernel looks at its step, loads factors and weights of its channels again, and a slice of outputs
gathers its inputs again. Only comparisons are made with these numbers, between plans of equal RAM.
"""

from __future__ import annotations

from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Op, OpKind
from fieldloop.ir.tensor import DType
from fieldloop.plan.program import Move
from fieldloop.plan.types import StepKind

STEP = 900  # any step
COPIED_BYTE = 1  # moved to the front of a window
CHANNEL = 5  # of a pool, or of a sum
ODD_PIXEL = 41  # a channel of a convolution, where pixels do not come in pairs
DEPTHWISE_CHANNEL = 12  # of a depthwise convolution, and
DEPTHWISE_TAP = 4  # each of its weights
NARROW = 13  # a multiply-accumulate, of int8 slices that are too narrow for the kernels' words
WORD = 4  # channels


def tile_cost(graph: Graph, op: Op, pixels: int, channels: int) -> int:
    """Of one more call of an operator, for so many output pixels and channels."""
    if op.kind is OpKind.CONV2D:
        w = graph.tensors[op.inputs[1]].shape
        again = pixels * w[1] * w[2] * w[3] * (w[0] - channels) // w[0]  # inputs gathered
        return STEP + (ODD_PIXEL * channels if pixels % 2 else 0) + again
    if op.kind is OpKind.DEPTHWISE_CONV2D:
        w = graph.tensors[op.inputs[1]].shape
        taps = w[1] * w[2]
        narrow = NARROW if channels < WORD <= w[3] and _is_int8(graph, op) else 0
        return STEP + channels * (DEPTHWISE_CHANNEL + taps * (DEPTHWISE_TAP + narrow * pixels))
    if op.kind in (OpKind.MAX_POOL, OpKind.AVG_POOL, OpKind.MEAN):
        return STEP + CHANNEL * channels
    return STEP


def _is_int8(graph: Graph, op: Op) -> bool:
    return graph.tensors[op.output].dtype is DType.INT8


def move_cost(graph: Graph, move: Move) -> int:
    """Of one step of a program; 0 for operators that are not tiled."""
    if move.kind is StepKind.COPY and move.x is not None:
        return STEP + COPIED_BYTE * (move.x.end - move.x.offset)
    if move.kind is not StepKind.TILE or move.y is None:
        return 0
    return tile_cost(graph, graph.ops[move.op], move.y.pixels, move.out.channels)
