"""The walk over a .tflite file's nodes: tensors, constants, and operators of the graph so far.

uint8 becomes int8 by taking 128 from values and zero points; the arithmetic does not notice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np

from fieldloop.errors import UsageError
from fieldloop.frontends.imported import ValueMap
from fieldloop.frontends.tflite.file import FileTensor, ModelFile, Node
from fieldloop.frontends.tflite.names import ACTIVATIONS, RELU, RELU6, RELU_N1_TO_1
from fieldloop.frontends.tflite.tables import Int8, identity
from fieldloop.ir.dtypes import check_dtypes
from fieldloop.ir.op import NO_CLAMP, Attrs, Clamp, Fixed, Op, OpKind, Window
from fieldloop.ir.shapes import MAX_DIMS, Shape, output_shape
from fieldloop.ir.tensor import Array, DType, Quant, Tensor

UINT8_OFFSET = -128
_DTYPES = {
    "float32": DType.FLOAT32,
    "int8": DType.INT8,
    "uint8": DType.INT8,
    "int32": DType.INT32,
    "int64": DType.INT32,  # indices; nothing computes with them
}
_CLAMPS = {
    0: NO_CLAMP,
    RELU: Clamp(0.0),
    RELU6: Clamp(0.0, 6.0),
    RELU_N1_TO_1: Clamp(-1.0, 1.0),
}


class Refused(Exception):
    """An operator that cannot be taken over: why, and what to do instead (else: cut it off)."""

    def __init__(self, why: str, instead: str | None = None) -> None:
        super().__init__(why)
        self.why, self.instead = why, instead


def refuse(why: str, instead: str | None = None) -> NoReturn:
    raise Refused(why, instead)


class Walk:
    """What is known after some nodes. Handlers read tensors and put operators here."""

    def __init__(self, file: ModelFile, needed: Sequence[Node]) -> None:
        self.file = file
        self.readers = Counter(i for node in needed for i in set(node.inputs))
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []
        self.inputs: list[str] = []
        self.values: dict[str, ValueMap] = {}
        self.notes: list[str] = []
        self.names: dict[int, str] = {}  # of the graph's tensor, by index in the file
        self.folded: dict[int, Array] = {}  # constants that were worked out here
        self._taken = {tensor.label for tensor in file.tensors}

    # ---- what a node reads

    def info(self, node: Node, place: int) -> FileTensor:
        """The file's tensor at an input's place."""
        if place >= len(node.inputs) or node.inputs[place] < 0:
            refuse(f"input {place} is missing", "export or copy the model again")
        return self.file.tensors[node.inputs[place]]

    def has(self, node: Node, place: int) -> bool:
        return place < len(node.inputs) and node.inputs[place] >= 0

    def constant(self, index: int) -> Array | None:
        """The raw elements of a constant; None for anything else."""
        if index in self.folded:
            return self.folded[index]
        return self.file.tensors[index].data

    def numbers(self, node: Node, place: int, what: str) -> tuple[int, ...]:
        """A small constant of integers: axes, shapes, paddings; flat."""
        info = self.info(node, place)
        data = self.constant(info.index)
        if data is None:
            refuse(
                f"{what} {info.label} is worked out at run time, expected a constant",
                "export the model with fixed shapes",
            )
        if data.dtype.kind not in "iu" or data.size > 64:
            refuse(f"{what}: expected a few integers, got {data.dtype} {list(data.shape)}")
        return tuple(int(n) for n in data.reshape(-1))

    def read(self, node: Node, place: int = 0) -> Tensor:
        """An activation that is ready."""
        info = self.info(node, place)
        if info.index not in self.names:
            if self.constant(info.index) is not None:
                refuse(f"input {place} ({info.label}) is a constant, expected a value")
            if info.is_variable:
                refuse(
                    f"{info.label} is a variable that lives between runs",
                    "export the model with its state as inputs and outputs",
                )
            refuse(f"reads {info.label} before it is written", "export or copy the model again")
        return self.tensors[self.names[info.index]]

    def operand(self, node: Node, place: int, like: Tensor | None = None) -> Tensor:
        """An activation, or a constant of at most four dimensions.

        `like`: int8 constants take its quantisation, whatever the file says.
        """
        info = self.info(node, place)
        data = self.constant(info.index)
        if data is None or info.index in self.names:
            return self.read(node, place)
        shape = data.shape or (1,)
        quant = self.quant(info) if like is None else like.quant
        return self.add_constant(info, data.reshape(shape), quant)

    def add_constant(self, info: FileTensor, data: Array, quant: Quant | None) -> Tensor:
        """A constant of the graph; uint8 becomes int8."""
        if data.dtype == np.uint8:
            data = (data.astype(np.int16) + UINT8_OFFSET).astype(np.int8)
        kinds: dict[str, DType] = {d.value: d for d in DType}
        if data.dtype.name not in kinds:
            refuse(
                f"constant {info.label} is {data.dtype.name}, expected float32, int8 or int32",
                "convert the model to int8 or float32",
            )
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            refuse(f"constant {info.label} is not finite", "check the network's weights")
        made = Tensor(
            self.fresh(info.label),
            data.shape,
            kinds[data.dtype.name],
            quant if data.dtype == np.int8 else None,
            np.ascontiguousarray(data.astype(data.dtype.newbyteorder("="))),
        )
        self.tensors[made.name] = made
        return made

    def quant(self, info: FileTensor, axis: int | None = None) -> Quant | None:
        """Its quantisation: None but for int8 and uint8. `axis`: where scales may differ."""
        if info.dtype not in ("int8", "uint8"):
            return None
        if not len(info.scales):
            refuse(f"{info.label} is {info.dtype} and has no scale", "convert the model again")
        zeros = {int(z) for z in info.zero_points}
        offset = UINT8_OFFSET if info.dtype == "uint8" else 0
        scales = tuple(float(s) for s in info.scales)
        if any(not -128 <= z + offset <= 127 for z in zeros):
            refuse(f"{info.label}: zero point {min(zeros)} does not fit {info.dtype}")
        if len(scales) == 1:
            return Quant(scales, zeros.pop() + offset)
        if axis is None or info.axis != axis or zeros != {0} or offset:
            refuse(
                f"{info.label}: {len(scales)} scales along axis {info.axis} with zero points "
                f"{min(zeros)} to {max(zeros)}, expected one scale"
                + ("" if axis is None else f", or one for each entry of axis {axis} and 0"),
                "convert the model again",
            )
        return Quant(scales, 0, axis)

    # ---- what a node makes

    def out_info(self, node: Node, place: int = 0) -> FileTensor:
        if place >= len(node.outputs) or node.outputs[place] < 0:
            refuse("an output is missing", "export or copy the model again")
        return self.file.tensors[node.outputs[place]]

    def out(self, node: Node, place: int = 0) -> Tensor:
        """The graph's tensor for an output, as the file describes it."""
        info = self.out_info(node, place)
        self.check_free(info)
        return self.describe(info)

    def check_free(self, info: FileTensor) -> None:
        """Refuses to write a tensor twice."""
        if info.index in self.names or self.constant(info.index) is not None:
            refuse(f"writes {info.label}, which exists already", "export or copy the model again")

    def describe(self, info: FileTensor) -> Tensor:
        """A value of the file as a tensor of the graph."""
        if info.dtype not in _DTYPES:
            refuse(
                f"{info.label} is {info.dtype}, expected int8, uint8, float32 or int32",
                "convert the model to int8 or float32",
            )
        shape = info.shape or (1,)
        if len(shape) > MAX_DIMS or 0 in shape:
            refuse(f"{info.label} has the shape {list(shape)}, expected 1 to 4 dimensions")
        return Tensor(info.label, shape, _DTYPES[info.dtype], self.quant(info))

    def publish(self, info: FileTensor, tensor: Tensor) -> None:
        """From now on `tensor` is the file's value."""
        self.names[info.index] = tensor.name
        offset = UINT8_OFFSET if info.dtype == "uint8" else 0
        self.values.setdefault(
            tensor.name, ValueMap(info.label, info.shape, info.dtype, offset=offset)
        )

    def alias(self, node: Node, x: Tensor, place: int = 0) -> None:
        """An output that is its input."""
        info = self.out_info(node, place)
        self.check_free(info)
        self.names[info.index] = x.name

    def note(self, text: str) -> None:
        """Something that whoever compiles the model should know; said once."""
        if text not in self.notes:
            self.notes.append(text)

    def fresh(self, wanted: str) -> str:
        name, n = wanted, 1
        while name in self.tensors or (n > 1 and name in self._taken):
            n += 1
            name = f"{wanted}~{n}"
        return name

    def hidden(self, label: str, shape: Shape, like: Tensor, quant: Quant | None) -> Tensor:
        """A tensor that only the graph has."""
        name, n = f"{label}~", 1
        while name in self.tensors or name in self._taken:
            n += 1
            name = f"{label}~{n}"
        return Tensor(name, shape, like.dtype, quant)

    def emit(
        self,
        kind: OpKind,
        inputs: Sequence[Tensor],
        out: Tensor,
        *,
        window: Window | None = None,
        clamp: Clamp = NO_CLAMP,
        fixed: Fixed | None = None,
        attrs: Attrs | None = None,
        groups: int = 1,
    ) -> Tensor:
        """Appends an operator that makes `out`."""
        names = tuple(t.name for t in inputs)
        op = Op(out.name, kind, names, out.name, window, clamp, fixed, attrs, groups)
        self.tensors[out.name] = out
        made = output_shape(op, self.tensors)
        if made != out.shape:
            raise UsageError(f"makes the shape {list(made)}, the file says {list(out.shape)}")
        check_dtypes(op, self.tensors)
        self.ops.append(op)
        return out

    def put(
        self,
        node: Node,
        kind: OpKind,
        inputs: Sequence[Tensor],
        *,
        shape: Shape | None = None,
        quant: Quant | None = None,
        place: int = 0,
        window: Window | None = None,
        clamp: Clamp = NO_CLAMP,
        fixed: Fixed | None = None,
        attrs: Attrs | None = None,
        groups: int = 1,
    ) -> None:
        """An operator that makes a node's output.

        `shape` and `quant` are what the operator makes, where the file may say otherwise: the
        same elements are then reshaped, the same integers read in another quantisation.
        """
        out = self.out(node, place)
        shape = out.shape if shape is None else shape
        quant = out.quant if quant is None else quant
        made = out
        if shape != out.shape or quant != out.quant:
            made = self.hidden(out.name, shape, out, quant)
        made = self.emit(
            kind,
            inputs,
            made,
            window=window,
            clamp=clamp,
            fixed=fixed,
            attrs=attrs,
            groups=groups,
        )
        if made.quant != out.quant:
            same = shape == out.shape
            renamed = out if same else self.hidden(out.name, shape, out, out.quant)
            made = self.table(made, renamed, identity())
        if made is not out:
            self.reshape(made, out)
        self.publish(self.out_info(node, place), out)

    def reshape(self, x: Tensor, out: Tensor) -> Tensor:
        """The same elements as `out`."""
        if x.size != out.size:
            raise UsageError(f"makes the shape {list(x.shape)}, the file says {list(out.shape)}")
        return self.emit(OpKind.RESHAPE, [x], out)

    def reshaped(self, x: Tensor, shape: Shape) -> Tensor:
        """x in another shape; itself where it has that already."""
        if x.shape == shape:
            return x
        return self.reshape(x, self.hidden(x.name, shape, x, x.quant))

    def own_constant(self, label: str, data: Array, quant: Quant | None = None) -> Tensor:
        """A constant that the file does not have."""
        dtype = DType(data.dtype.name)
        like = Tensor(label, data.shape, dtype, quant, data)
        made = replace(like, name=self.hidden(label, data.shape, like, quant).name)
        self.tensors[made.name] = made
        return made

    def table(self, x: Tensor, out: Tensor, entries: Int8) -> Tensor:
        """out = entries[x + 128]."""
        table = self.own_constant(f"{out.name}.table", entries, out.quant)
        return self.emit(OpKind.TABLE, [x, table], out)


def clamp_of(node: Node) -> Clamp:
    """The fused activation as a clamp."""
    activation = node.option("activation")
    if activation not in _CLAMPS:
        known = 0 <= activation < len(ACTIVATIONS)
        name = ACTIVATIONS[activation] if known else str(activation)
        refuse(f"the fused activation {name} is not supported", "use ReLU, ReLU6 or none")
    return _CLAMPS[activation]


def axis_of(axis: int, dims: int) -> int:
    """An axis counted from 0; it may be given from the end."""
    if not -dims <= axis < dims:
        refuse(f"axis {axis} of {dims} dimensions", "export or copy the model again")
    return axis % dims


def elements(shape: Sequence[int]) -> int:
    return math.prod(shape)


def is_legacy(*infos: FileTensor) -> bool:
    """Whether they came as uint8."""
    return any(info.dtype == "uint8" for info in infos)
