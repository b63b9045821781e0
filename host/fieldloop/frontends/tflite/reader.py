""".tflite to graph: which nodes are needed, what each becomes, and one line where one cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from fieldloop.errors import UsageError
from fieldloop.frontends.builder import UnsupportedModelError, unsupported
from fieldloop.frontends.imported import Imported
from fieldloop.frontends.tflite import elementwise, layers, moves
from fieldloop.frontends.tflite.file import ModelFile, Node, read_file
from fieldloop.frontends.tflite.fold import FOLDED_ONLY, fold
from fieldloop.frontends.tflite.fuse import fuse
from fieldloop.frontends.tflite.walk import Refused, Walk
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Clamp, Op, OpKind

_HANDLERS: dict[str, Callable[[Walk, Node], None]] = {
    "CONV_2D": layers.conv,
    "DEPTHWISE_CONV_2D": layers.depthwise,
    "FULLY_CONNECTED": layers.fully_connected,
    "AVERAGE_POOL_2D": partial(layers.pool, kind=OpKind.AVG_POOL),
    "MAX_POOL_2D": partial(layers.pool, kind=OpKind.MAX_POOL),
    "GATHER": layers.gather,
    "EMBEDDING_LOOKUP": layers.embedding_lookup,
    "ADD": partial(elementwise.arithmetic, kind=OpKind.ADD),
    "SUB": partial(elementwise.arithmetic, kind=OpKind.SUB),
    "MUL": partial(elementwise.arithmetic, kind=OpKind.MUL),
    "DIV": elementwise.divide,
    "MINIMUM": partial(elementwise.extremum, kind=OpKind.MINIMUM),
    "MAXIMUM": partial(elementwise.extremum, kind=OpKind.MAXIMUM),
    "RELU": partial(elementwise.relu, clamp=Clamp(0.0)),
    "RELU6": partial(elementwise.relu, clamp=Clamp(0.0, 6.0)),
    "RELU_N1_TO_1": partial(elementwise.relu, clamp=Clamp(-1.0, 1.0)),
    "RELU_0_TO_1": partial(elementwise.relu, clamp=Clamp(0.0, 1.0)),
    "LEAKY_RELU": elementwise.leaky_relu,
    "PRELU": elementwise.prelu,
    "LOGISTIC": elementwise.logistic,
    "TANH": elementwise.tanh,
    "HARD_SWISH": elementwise.hard_swish,
    "ELU": elementwise.elu,
    "ABS": elementwise.absolute,
    "EXP": elementwise.exp,
    "SOFTMAX": elementwise.softmax,
    "MEAN": elementwise.mean,
    "REDUCE_MAX": elementwise.reduce_max,
    "QUANTIZE": elementwise.quantize,
    "DEQUANTIZE": elementwise.dequantize,
    "RESHAPE": moves.reshape,
    "SQUEEZE": moves.reshape,
    "EXPAND_DIMS": moves.reshape,
    "CONCATENATION": moves.concatenation,
    "PACK": moves.pack,
    "UNPACK": moves.unpack,
    "SPLIT": moves.split,
    "SPLIT_V": moves.split_v,
    "SLICE": moves.slice_,
    "STRIDED_SLICE": moves.strided_slice,
    "PAD": moves.pad,
    "PADV2": moves.pad,
    "TRANSPOSE": moves.transpose,
    "RESIZE_NEAREST_NEIGHBOR": moves.resize_nearest,
    "CAST": moves.cast,
}


def read_tflite(data: bytes, outputs: Sequence[str] = ()) -> Imported:
    """The graph of a .tflite model: int8, uint8, float32, or a mixture of them.

    `outputs`: names or indices of tensors to end at, instead of the model's outputs. Raises
    UnsupportedModelError with one line: which node, why not, and what to do instead.
    """
    file = read_file(data)
    ends = [_named(file, name) for name in outputs] or list(file.outputs)
    nodes = _needed(file, ends)
    walk = Walk(file, nodes)
    _inputs(walk, nodes, ends)
    for node in nodes:
        try:
            _visit(walk, node)
        except Refused as refusal:
            raise _unsupported(walk, node, ends, refusal.why, refusal.instead) from None
        except UnsupportedModelError:
            raise
        except UsageError as error:
            raise _unsupported(walk, node, ends, str(error), None) from error
    return _finish(walk, ends)


def unknown_operators(data: bytes) -> dict[str, int]:
    """Operators of a .tflite file that no reader exists for, and how many nodes have them."""
    known = _HANDLERS.keys() | FOLDED_ONLY
    return dict(Counter(n.operator for n in read_file(data).nodes if n.operator not in known))


def _visit(walk: Walk, node: Node) -> None:
    if fold(walk, node):
        return
    handler = _HANDLERS.get(node.operator)
    if handler is None:
        raise Refused("fieldloop has no such operator")
    handler(walk, node)


def _named(file: ModelFile, name: str) -> int:
    """The index of a tensor by its name or index."""
    for tensor in file.tensors:
        if tensor.label == name:
            return tensor.index
    if name.isdecimal() and len(name) < 7 and int(name) < len(file.tensors):
        return int(name)
    made = [file.tensors[i].label for node in file.nodes for i in node.outputs if i >= 0]
    few = ", ".join(made[-8:])
    raise UnsupportedModelError(
        f"--outputs: the model has no tensor {name!r}; the last ones are {few} "
        f"(or their indices, 0 to {len(file.tensors) - 1})"
    )


def _needed(file: ModelFile, ends: Iterable[int]) -> list[Node]:
    """The nodes that the outputs depend on, in the file's order."""
    wanted, kept = set(ends), []
    for node in reversed(file.nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(i for i in node.inputs if i >= 0)
    return kept[::-1]


def _inputs(walk: Walk, nodes: list[Node], ends: list[int]) -> None:
    read = {i for node in nodes if node.operator not in ("SHAPE", "RANK") for i in node.inputs}
    for index in dict.fromkeys(walk.file.inputs):
        info = walk.file.tensors[index]
        if index not in read or info.data is not None:
            if index not in read and index not in ends:
                walk.note(f"input {info.label} is not needed for these outputs")
            continue
        if any(n < 0 for n in info.signature[1:]):
            raise UnsupportedModelError(
                f"input {info.label}: its shape {list(info.signature)} is open; export the model "
                "with fixed shapes"
            )
        try:
            tensor = walk.describe(info)
        except (Refused, UsageError) as error:
            raise UnsupportedModelError(
                f"the input {error}; convert the model to int8 or float32"
            ) from error
        walk.tensors[tensor.name] = tensor
        walk.inputs.append(tensor.name)
        walk.publish(info, tensor)


def _finish(walk: Walk, ends: list[int]) -> Imported:
    outputs = []
    for index in ends:
        name = walk.names.get(index)
        if name is None or name in walk.inputs:
            label = walk.file.tensors[index].label
            what = "is not worked out by any node" if name is None else "is an input"
            raise UnsupportedModelError(
                f"output {label} {what}; name other tensors with --outputs NAME,..."
            )
        outputs.append(name)
    # Two names of one value are one output.
    outputs = list(dict.fromkeys(outputs))
    tensors = dict(walk.tensors)
    ops = fuse(_alive(walk.ops, outputs), tensors, outputs)
    read = {name for op in ops for name in (*op.inputs, op.output)}
    kept = {name: tensor for name, tensor in tensors.items() if name in read}
    inputs = tuple(name for name in walk.inputs if name in kept)
    try:
        graph = Graph("tflite", kept, tuple(ops), inputs, tuple(outputs))
    except UsageError as error:
        raise UnsupportedModelError(f"{error}; export or copy the model again") from error
    values = {name: value for name, value in walk.values.items() if name in kept}
    return Imported(graph, "tflite", values, tuple(walk.notes))


def _alive(ops: Sequence[Op], outputs: Sequence[str]) -> list[Op]:
    """Without what nobody reads: a part of a split, say."""
    wanted, kept = set(outputs), []
    for op in reversed(ops):
        if op.output in wanted:
            kept.append(op)
            wanted.update(op.inputs)
    return kept[::-1]


def _unsupported(
    walk: Walk, node: Node, ends: Sequence[int], why: str, instead: str | None
) -> UnsupportedModelError:
    cut = _cut_before(walk, node, ends)
    if instead is None or (cut and node.operator not in _HANDLERS):
        instead = f"leave it out with --outputs {cut}" if cut else "replace it in the source model"
    elif cut:
        instead = f"{instead}, or cut it off with --outputs {cut}"
    names = [walk.file.tensors[i].label for i in node.outputs if i >= 0]
    return unsupported(
        f"node {node.index} {names[0] if names else ''}".strip(), node.operator, why, instead
    )


def _cut_before(walk: Walk, node: Node, ends: Sequence[int]) -> str:
    """The outputs that leave out a node and all that follows from it."""
    lost = set(node.outputs)
    for later in walk.file.nodes[node.index + 1 :]:
        if lost.intersection(later.inputs):
            lost.update(later.outputs)
    made = {i for earlier in walk.file.nodes[: node.index] for i in earlier.outputs}
    keep = [i for i in ends if i not in lost]
    keep += [i for i in node.inputs if i in made and i in walk.names]
    found = [walk.file.tensors[i] for i in dict.fromkeys(keep)]
    # A name with a comma cannot be said; its index can.
    plain = all(t.label.replace("/", "").replace("_", "").isalnum() for t in found)
    return ",".join(t.label if plain else str(t.index) for t in found)
