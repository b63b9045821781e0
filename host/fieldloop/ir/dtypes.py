"""Which element types and quantisations the tensors of one operator have together."""

from __future__ import annotations

from collections.abc import Mapping

from fieldloop.errors import UsageError
from fieldloop.ir.op import MOVES, POOLS, WEIGHTED, Op, OpKind
from fieldloop.ir.tensor import DType, Tensor

I8, I32, F32 = DType.INT8, DType.INT32, DType.FLOAT32

# Input and output dtypes where an operator has no choice: x, a second input, output.
_ONLY: dict[OpKind, tuple[tuple[DType, ...], DType]] = {
    OpKind.TABLE: ((I8, I8), I8),
    OpKind.QUANTIZE: ((F32,), I8),
    OpKind.DEQUANTIZE: ((I8,), F32),
    OpKind.UNARY: ((F32,), F32),
}
# int8: the output has its inputs' quantisation.
_ONE_QUANTISATION = MOVES | POOLS | {OpKind.MINIMUM, OpKind.MAXIMUM}


def check_dtypes(op: Op, tensors: Mapping[str, Tensor]) -> None:
    """Raises UsageError where the dtypes of an operator's tensors do not go together."""
    ins = [tensors[name] for name in op.inputs]
    out = tensors[op.output]

    def refuse(expected: str) -> UsageError:
        got = ", ".join(t.dtype.value for t in ins)
        return UsageError(
            f"operator {op.name} ({op.kind.value}): expected {expected}, "
            f"got {got} -> {out.dtype.value}"
        )

    def require(expected: tuple[DType, ...], made: DType) -> None:
        if tuple(t.dtype for t in ins) != expected or out.dtype is not made:
            raise refuse(f"{', '.join(d.value for d in expected)} -> {made.value}")

    if op.kind in _ONLY:
        require(*_ONLY[op.kind])
    elif op.kind in MOVES:
        require((out.dtype,) * len(ins), out.dtype)
    elif op.kind is OpKind.EMBEDDING:
        if ins[0].dtype is F32 or ins[1].dtype is not out.dtype:
            raise refuse("an int32 or int8 index, and a table of the output's type")
    elif op.kind in WEIGHTED:
        if ins[0].dtype is I8:
            require((I8, I8, I32)[: len(ins)], I8)
        else:
            require((F32,) * len(ins), F32)
    else:
        if ins[0].dtype is I32:
            raise refuse("int8 or float32")
        require((ins[0].dtype,) * len(ins), ins[0].dtype)
    _check_quantisation(op, ins, out)


def _check_quantisation(op: Op, ins: list[Tensor], out: Tensor) -> None:
    shared = {
        OpKind.EMBEDDING: ins[1:],
        **dict.fromkeys(_ONE_QUANTISATION, ins),
    }.get(op.kind, [])
    if out.dtype is not I8:
        return
    for tensor in shared:
        if tensor.quant != out.quant:
            raise UsageError(
                f"operator {op.name} ({op.kind.value}): expected one quantisation, got "
                f"{tensor.name} {tensor.quant} and {out.name} {out.quant}"
            )
