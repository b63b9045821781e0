"""The pipeline: a graph -> quantised, if asked -> ordered -> planned -> verified -> bytes.

Everything the device will need, RAM and flash to the byte, is known when this returns.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fieldloop.compile_report import CompileReport, compile_report
from fieldloop.errors import DoesNotFitError, UsageError
from fieldloop.image.writer import RehearsalSet, Trainable, write_image
from fieldloop.ir.graph import Graph
from fieldloop.ir.op import Op
from fieldloop.ir.reference import run
from fieldloop.ir.tensor import Array, DType, Quant
from fieldloop.plan.order import best_order
from fieldloop.plan.planner import plan_learning
from fieldloop.plan.search import Goal
from fieldloop.plan.tiled import plan_tiled
from fieldloop.plan.types import Plan, PlanKind
from fieldloop.plan.verify import verify
from fieldloop.plan.way import MAX_LAYERS, saved_tensors, trainable_layers
from fieldloop.quantize.ptq import quantize_graph

if TYPE_CHECKING:
    from fieldloop.quantize.options import Progress, QuantizeOptions

DEFAULT_LEARN = 2


class NotTrainableError(UsageError):
    """A network that has no head to learn with; the message says why."""


class Learn(enum.Enum):
    """What `learn` is when nothing was asked: DEFAULT_LEARN layers of a network quantised here."""

    DEFAULT = "default"


# Learning rate of every trained layer below the head, as a part of the head's. A weight of a
# convolution is used at every position and moves all of the features the head has learned to read.
# Measured on digits (three students that lack 8,9, 3,7 and 0,1, two streams each): from 0 to 0.1
# new and old accuracy are the same within two test images. The share of the convolution's int8
# weights that move (first student) is none at 1e-5, 1/160 at 1e-3, 1/6 at 0.03, 1/3 at 0.1.
INNER_RATE = 0.03

# The logits' range is calibrated on classes that are known. Those that are learned in the field
# may go further; what clips is lost to the learner, what is too wide costs resolution. On the same
# students factors from 1 to 3 made no difference, so nothing is given away.
LEARN_HEADROOM = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """The image, what it costs, and the graph (int8, float32, or mixed) it was made from.

    `reference`: the float graph that it stands for, tensor by tensor, where it was quantised here.
    """

    image: bytes
    report: CompileReport
    graph: Graph
    plans: tuple[Plan, ...]
    trainables: tuple[Trainable, ...]
    reference: Graph | None = None

    @property
    def input_quant(self) -> Quant:
        """How real values of the first input become int8."""
        quant = self.graph.tensors[self.graph.inputs[0]].quant
        if quant is None:
            raise UsageError(f"{self.graph.name}: its input is not int8, so nothing quantises it")
        return quant


def compile_graph(
    graph: Graph,
    calibration: Array | Mapping[str, Array] | None = None,
    *,
    labels: Sequence[str] = (),
    learn: int | Sequence[str] | Learn | None = Learn.DEFAULT,
    rehearsal: tuple[Array, Array] | None = None,
    meta: Mapping[str, Any] | None = None,
    percentile: float = 100.0,
    options: QuantizeOptions | None = None,
    learn_headroom: float = LEARN_HEADROOM,
    inner_rate: float = INNER_RATE,
    flash_limit: int | None = None,
    ram_limit: int | None = None,
    tiling: str = "none",
    mac_limit: float | None = None,
    progress: Progress | None = None,
) -> Compiled:
    """Compiles a graph for the device.

    A float graph is quantised with `calibration`: real-valued samples [n, ...input shape] (NHWC),
    or one array per input name; without, it stays float32. A graph that has int8 tensors already
    is compiled as it is; samples then only serve to find learning rates.
    `learn`: how many layers, counted from the output, may be trained in the field (at most 16), or
    their names (of operators); None for inference only. `rehearsal`: real-valued samples and class
    numbers that travel with the model. `options`: how to quantise (then `percentile` is theirs).
    `flash_limit`, `ram_limit`: bytes available; DoesNotFitError tells what is missing (RAM: the
    larger of the two arenas). `tiling`: "none", "fdt" (slices of channels), "ffmt" (tiles of rows)
    or "auto" (slices, rows through windows, operators in place), for the least RAM; `mac_limit`:
    the multiply-accumulates that may be spent on it, as a multiple of the untiled model's.
    `progress` hears of calibration and of the search: stage, done, in all.
    """
    goal = Goal(tiling, mac_limit)
    samples = None if calibration is None else _by_name(graph, calibration)
    is_float = all(t.dtype is not DType.INT8 for t in graph.activations)
    quantises = is_float and samples is not None
    if isinstance(learn, Learn):
        stays_int8 = options is None or not (options.float_io or options.keep_float)
        learn = DEFAULT_LEARN if quantises and stays_int8 else None
    path = trainable_layers(graph)
    head = path[0] if path else None
    layers = _chosen_layers(graph, path, learn)
    _check_labels(graph, head, labels)
    if layers and samples is None:
        raise UsageError(
            f"learn: {graph.name} needs samples to find its learning rates"
            f"{' and to become int8' if is_float else ''}; give calibration samples"
        )

    norm, reference = None, None
    if quantises:
        assert samples is not None
        headroom = {head.output: learn_headroom} if head is not None and layers else {}
        quantized = quantize_graph(
            graph,
            samples,
            percentile=percentile,
            headroom=headroom,
            options=options,
            progress=progress,
        )
        graph, reference = quantized.graph, quantized.reference
        _check_reachable(graph, layers)
        if head is not None and layers:
            norm = quantized.ranges[head.inputs[0]].mean_square_norm
    elif head is not None and layers:
        assert samples is not None
        norm = _mean_square_norm(graph, samples, head.inputs[0])
    ordered = best_order(graph)
    begun = time.monotonic()
    planned = plan_tiled(ordered, PlanKind.INFER, goal, progress)
    plans: tuple[Plan, ...] = (planned.plan,)
    verify(ordered, planned.plan)
    if layers and head is not None:
        names = [op.name for op in layers]

        def to_learn(keep: frozenset[str], scratch: int) -> Plan:
            wanted = replace(goal, keep=keep, scratch=scratch)
            return plan_tiled(ordered, PlanKind.LEARN, wanted, progress).plan

        plans = (*plans, plan_learning(ordered, names, to_learn))
        verify(ordered, plans[1], keep=saved_tensors(ordered, names))
    seconds = time.monotonic() - begun

    trainables = tuple(Trainable(op.name, _lr_scale(op, head, norm, inner_rate)) for op in layers)
    image = write_image(
        ordered,
        plans,
        labels=labels,
        trainables=trainables,
        rehearsal=_rehearsal(ordered, rehearsal),
        meta=meta,
    )
    report = compile_report(ordered, image, plans, trainables, planned, seconds)
    for what, needed, limit in (
        ("flash", report.flash_bytes, flash_limit),
        ("RAM", max(plan.arena_bytes for plan in plans), ram_limit),
    ):
        if limit is not None and needed > limit:
            raise DoesNotFitError(
                f"model {graph.name} in {what}", needed_bytes=needed, available_bytes=limit
            )
    return Compiled(image, report, ordered, plans, trainables, reference)


def _check_reachable(graph: Graph, layers: tuple[Op, ...]) -> None:
    """Raises where a layer chosen in the float graph cannot be trained in the int8 one."""
    left = {op.name for op in trainable_layers(graph)}
    lost = [op.name for op in layers if op.name not in left]
    if lost:
        raise UsageError(
            f"learn: {lost[0]} has something of float32 between itself and the output; quantise "
            "the whole network (float_io, keep_float), or compile it with learn=None"
        )


def _by_name(graph: Graph, samples: Array | Mapping[str, Array]) -> dict[str, Array]:
    if isinstance(samples, Mapping):
        return dict(samples)
    if len(graph.inputs) != 1:
        raise UsageError(
            f"calibration: {graph.name} has {len(graph.inputs)} inputs, "
            "pass one array per input name"
        )
    return {graph.inputs[0]: np.asarray(samples)}


def _mean_square_norm(graph: Graph, samples: Mapping[str, Array], name: str) -> float:
    """Mean over samples of the sum of squares of a tensor's real values, in a quantised graph."""
    given = {}
    for key, value in samples.items():
        quant = graph.tensors[key].quant if key in graph.tensors else None
        real = np.issubdtype(value.dtype, np.floating)
        given[key] = quant.quantize(value) if quant is not None and real else value
    squares: list[float] = []

    def tally(seen: str, value: Array) -> None:
        if seen == name:
            quant = graph.tensors[name].quant
            real = value if quant is None else quant.dequantize(value)
            squares.append(float(np.square(real, dtype=np.float64).sum()))

    count = len(next(iter(given.values()), ()))
    for start in range(0, count, 64):
        run(graph, {key: value[start : start + 64] for key, value in given.items()}, tally)
    return sum(squares) / max(count, 1)


def _chosen_layers(
    graph: Graph, path: tuple[Op, ...], learn: int | Sequence[str] | None
) -> tuple[Op, ...]:
    """The layers to train, from the head backwards."""
    if learn is None or learn == 0:
        return ()
    if not path:
        raise NotTrainableError(
            f"learn: {graph.name} does not end in a layer with weights (one output, then at most "
            "a softmax); compile it with learn=None"
        )
    if not path[0].clamp.is_linear:
        raise NotTrainableError(
            f"learn: the head {path[0].name} is clamped to [{path[0].clamp.lo}, "
            f"{path[0].clamp.hi}]; expected linear logits, take the activation away"
        )
    logits = graph.tensors[path[0].output]
    if logits.size != logits.shape[-1]:
        raise NotTrainableError(
            f"learn: the head {path[0].name} makes {logits.shape}; expected one logit per class"
        )
    if isinstance(learn, int):
        if learn < 0:
            raise UsageError(f"learn: expected a number of layers >= 0, got {learn}")
        return path[: min(learn, MAX_LAYERS)]
    names = set(learn)
    known = {op.name for op in path}
    if not names <= known:
        raise UsageError(
            f"learn: {sorted(names - known)} cannot be trained; expected some of {sorted(known)}"
        )
    if len(names) > MAX_LAYERS:
        raise UsageError(f"learn: a learner trains at most {MAX_LAYERS} layers, got {len(names)}")
    return tuple(op for op in path if op.name in names)


def _check_labels(graph: Graph, head: Op | None, labels: Sequence[str]) -> None:
    if not labels or head is None:
        return
    classes = graph.tensors[head.output].shape[-1]
    if len(labels) != classes:
        raise UsageError(f"labels: expected {classes}, one per class, got {len(labels)}")


def _lr_scale(op: Op, head: Op | None, norm: float | None, inner_rate: float) -> float:
    """The head's rate is normalised: a step of lr = 1 moves a sample's logits by its error."""
    assert head is not None and norm is not None
    if not norm > 0.0:
        raise UsageError(
            f"learn: the input of the head {head.name} is zero for every calibration sample"
        )
    return 1.0 / norm if op.name == head.name else inner_rate / norm


def _rehearsal(graph: Graph, rehearsal: tuple[Array, Array] | None) -> RehearsalSet | None:
    if rehearsal is None:
        return None
    x, y = np.asarray(rehearsal[0]), np.asarray(rehearsal[1])
    tensor = graph.tensors[graph.inputs[0]]
    if len(graph.inputs) != 1 or x.shape[1:] != tensor.shape[1:]:
        raise UsageError(
            f"rehearsal: expected samples [n, {', '.join(map(str, tensor.shape[1:]))}], "
            f"got {list(x.shape)}"
        )
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise UsageError(f"rehearsal: expected {len(x)} class numbers, got {y.dtype} {y.shape}")
    classes = graph.tensors[graph.outputs[0]].size
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise UsageError(
            f"rehearsal: expected classes 0 to {classes - 1}, got {int(y.min())} to {int(y.max())}"
        )
    if tensor.quant is None:
        raise UsageError(f"rehearsal: the input of {graph.name} is not int8; it cannot learn")
    numbers: npt.NDArray[np.int64] = y.astype(np.int64)
    return RehearsalSet(tensor.quant.quantize(x), numbers)
