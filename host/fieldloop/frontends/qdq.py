"""From quantised values and float operators between them to int8 operators.

A frontend writes what such a file means: DEQUANTIZE, a float operator, QUANTIZE. Here those three
become one int8 operator with the factors of its scales, in three passes:

1. what only moves elements is done before the DEQUANTIZE, and after the QUANTIZE;
2. an operator between them becomes int8, with a TABLE where its inputs need another scale;
3. what no int8 operator computes to a step (or what the file left in float) stays float, with a
   DEQUANTIZE before it and a QUANTIZE behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fieldloop.frontends.builder import GraphBuilder
from fieldloop.frontends.qdq_operators import Lowering, source_of
from fieldloop.ir.op import MOVES, Op, OpKind, Pad, Requant
from fieldloop.ir.tensor import DType, Quant, Tensor


def lower(build: GraphBuilder, outputs: Sequence[str]) -> tuple[str, ...]:
    """Rewrites the builder's operators; returns notes on what stayed in float."""
    kinds = {op.kind for op in build.ops.values()}
    if not kinds & {OpKind.QUANTIZE, OpKind.DEQUANTIZE}:
        return ()
    _drop_unused(build, outputs)
    _sink(build, outputs)
    _hoist(build, outputs)
    _fuse(build, outputs)
    _drop_unused(build, outputs)
    floats = [
        op.name
        for op in build.ops.values()
        if op.kind not in (OpKind.QUANTIZE, OpKind.DEQUANTIZE)
        and op.kind not in MOVES
        and build.tensors[op.output].dtype is DType.FLOAT32
    ]
    if not floats:
        return ()
    shown = ", ".join(floats[:5]) + (", ..." if len(floats) > 5 else "")
    return (f"{len(floats)} operators are not between quantised values and stay float: {shown}",)


def _drop_unused(build: GraphBuilder, outputs: Sequence[str]) -> None:
    needed = set(outputs)
    for name, op in reversed(list(build.ops.items())):
        if name in needed:
            needed.update(op.inputs)
        else:
            del build.ops[name]


def _readers(build: GraphBuilder) -> dict[str, list[Op]]:
    found: dict[str, list[Op]] = defaultdict(list)
    for op in build.ops.values():
        for name in dict.fromkeys(op.inputs):
            found[name].append(op)
    return found


def _sink(build: GraphBuilder, outputs: Sequence[str]) -> None:
    """MOVE(DEQUANTIZE(q)) = DEQUANTIZE(MOVE(q)), and QUANTIZE(DEQUANTIZE(q)) = q."""
    ops, same = list(build.ops.values()), {}
    build.ops = {}
    for op in ops:
        op = replace(op, inputs=tuple(same.get(n, n) for n in op.inputs))
        sources = [source_of(build, n) for n in op.inputs]
        if op.kind is OpKind.QUANTIZE and sources[0] is not None:
            if sources[0].quant == build.tensors[op.output].quant and op.output not in outputs:
                same[op.output] = sources[0].name
                continue
        elif _moves(build, op) and all(s is not None for s in sources):
            quants = {s.quant for s in sources if s is not None}
            if len(quants) == 1:
                _moved(build, op, [s.name for s in sources if s is not None], quants.pop())
                continue
        elif op.kind is OpKind.EMBEDDING and _int8_rows(build, op):
            _moved(build, op, op.inputs, build.tensors[op.inputs[1]].quant)
            continue
        build.ops[op.output] = op


def _moves(build: GraphBuilder, op: Op) -> bool:
    """Whether an operator takes its elements as they are."""
    if op.kind is OpKind.PAD:
        return isinstance(op.attrs, Pad) and op.attrs.value == 0.0
    return op.kind in MOVES or (op.kind is OpKind.MAX_POOL and op.clamp.is_linear)


def _int8_rows(build: GraphBuilder, op: Op) -> bool:
    """Makes the table of an embedding int8, where the source has it so."""
    name = op.inputs[1]
    table = build.constants[name]
    quant = table.quant
    if quant is None or quant.axis is not None:
        return False
    build.tensors[name] = Tensor(
        name, table.data.shape, DType.INT8, quant, table.integers().astype(np.int8)
    )
    return True


def _moved(build: GraphBuilder, op: Op, inputs: Sequence[str], quant: Quant | None) -> None:
    """The operator on integers, and a DEQUANTIZE behind it that makes what it made."""
    name = build.fresh(f"{op.output}_int8")
    build.tensors[name] = replace(
        build.tensors[op.output], name=name, dtype=DType.INT8, quant=quant
    )
    assert quant is not None
    fixed = Requant(-128, 127) if op.kind is OpKind.MAX_POOL else None
    build.ops[name] = replace(op, name=name, inputs=tuple(inputs), output=name, fixed=fixed)
    build.ops[op.output] = Op(op.output, OpKind.DEQUANTIZE, (name,), op.output)


def _hoist(build: GraphBuilder, outputs: Sequence[str]) -> None:
    """QUANTIZE(MOVE(f)) = MOVE(QUANTIZE(f)), where the move's value has no other reader."""
    changed = True
    while changed:
        changed = False
        readers = _readers(build)
        for op in list(build.ops.values()):
            move = build.ops.get(op.inputs[0])
            if op.kind is not OpKind.QUANTIZE or move is None or not _moves(build, move):
                continue
            if move.kind is OpKind.CONCAT or move.kind is OpKind.MAX_POOL:
                continue
            alone = len(readers[move.output]) == 1 and len(readers[move.inputs[0]]) == 1
            held = move.output in outputs or move.inputs[0] in outputs
            if not alone or held or move.inputs[0] not in build.ops:
                continue
            _swap(build, move, op)
            changed = True
            break


def _swap(build: GraphBuilder, move: Op, quantize: Op) -> None:
    name = build.fresh(f"{move.inputs[0]}_int8")
    out = build.tensors[quantize.output]
    build.tensors[name] = replace(
        build.tensors[move.inputs[0]], name=name, dtype=DType.INT8, quant=out.quant
    )
    before = Op(name, OpKind.QUANTIZE, (move.inputs[0],), name)
    after = replace(move, inputs=(name,), output=quantize.output)
    ops: dict[str, Op] = {}
    for key, op in build.ops.items():
        if key == move.output:
            ops[name] = before
        elif key == quantize.output:
            ops[key] = after
        else:
            ops[key] = op
    build.ops = ops


def _fuse(build: GraphBuilder, outputs: Sequence[str]) -> None:
    """DEQUANTIZE, operator, QUANTIZE as int8 operators, in the operator's place."""
    readers = _readers(build)
    gone: set[str] = set()
    old, build.ops = build.ops, {}
    for op in old.values():
        if op.output in gone:
            continue
        users = [] if op.output in outputs else readers[op.output]
        if op.kind is OpKind.QUANTIZE and Lowering(build, op, op.output).rescale():
            continue
        follower = users[0] if len(users) == 1 else op
        fusible = follower.kind is OpKind.QUANTIZE and follower is not op
        if fusible and Lowering(build, op, follower.output).run():
            gone.add(follower.output)
            continue
        build.ops[op.output] = op
