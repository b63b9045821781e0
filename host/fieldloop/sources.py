"""A model as its user has it (.tflite, .onnx, a Python file), read and compiled.

A float model stays float32 unless there are calibration samples; an int8 one stays as it came.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fieldloop.errors import FieldloopError, UsageError
from fieldloop.frontends.imported import Imported, ValueMap
from fieldloop.ir.tensor import DType

if TYPE_CHECKING:
    from fieldloop.compiler import Compiled
    from fieldloop.quantize.options import Progress, QuantizeOptions

Array = npt.NDArray[Any]
NETWORK_SUFFIXES = (".tflite", ".onnx", ".py")


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A model before it is compiled.

    `calibration`: samples by input of the graph, in the graph's layout (channels last), or None.
    `module`: of a Python file, the torch module itself.
    """

    name: str
    content: bytes
    imported: Imported
    calibration: Mapping[str, Array] | None = None
    labels: Sequence[str] = ()
    rehearsal: tuple[Array, Array] | None = None
    module: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_float(self) -> bool:
        """Whether nothing in it is quantised."""
        return not any(
            tensor.dtype is DType.INT8 for tensor in self.imported.graph.tensors.values()
        )

    def to_graph(self, name: str, value: Array) -> Array:
        """Samples of an input as the source takes them, in the graph's layout."""
        mapped = self.imported.values.get(name)
        tensor = self.imported.graph.tensors[name]
        shape = tensor.shape
        if tensor.dtype is DType.INT32:  # indices, whatever the source casts them from
            value = _whole(name if mapped is None else mapped.source, value)
        if mapped is not None and mapped.offset:  # uint8, without a scale to quantise reals by
            value = _whole(mapped.source, value)
        if mapped is None:
            return np.ascontiguousarray(value.reshape(-1, *shape[1:]))
        return np.concatenate([_one(mapped, sample, shape) for sample in _samples(mapped, value)])


def _samples(mapped: ValueMap, value: Array) -> list[Array]:
    """One by one, each of the source's own shape.

    They may lie in a batch [n, ...] or beside one another, with the leading 1 or without, or flat;
    another order of the axes is refused, which a reshape would make noise of.
    """
    size = int(np.prod(mapped.shape))
    whole = tuple(mapped.shape)
    each = whole[1:] if whole[:1] == (1,) else whole
    ends = value.shape[value.ndim - len(each) :] == each or value.shape[-1:] == (size,)
    if value.size == 0 or not ends or value.size % size:
        expected = ", ".join(map(str, ("n", *each)))
        raise UsageError(
            f"{mapped.source}: expected samples of [{expected}] as the network takes them, "
            f"got {list(value.shape)}"
        )
    return list(value.reshape(-1, *mapped.shape))


def _whole(name: str, value: Array) -> Array:
    """Whole numbers as int32; UsageError where a fraction or a huge number would be lost."""
    limits = np.iinfo(np.int32)
    with np.errstate(invalid="ignore"):
        whole = value.astype(np.int32) if value.dtype.kind in "fiu" else None
    if whole is None or not (whole == value).all():
        raise UsageError(
            f"{name}: expected whole numbers from {limits.min} to {limits.max}, got {value.dtype} "
            "with others; this input takes integers"
        )
    return whole


def _one(mapped: ValueMap, sample: Array, shape: tuple[int, ...]) -> Array:
    return mapped.to_graph(sample, shape).reshape(shape)


def read_source(path: Path, *, outputs: Sequence[str] = ()) -> Source:
    """Reads a model. `outputs` cuts it there."""
    if path.suffix != ".py":
        return _network(path, outputs)
    if outputs:
        raise UsageError("--outputs cuts a .tflite or .onnx; return other values in the module")
    return _python(path)


def compile_source(
    source: Source,
    *,
    learn: int | Sequence[str] | None = None,
    options: QuantizeOptions | None = None,
    flash_limit: int | None = None,
    ram_limit: int | None = None,
    tiling: str = "none",
    mac_limit: float | None = None,
    progress: Progress | None = None,
) -> Compiled:
    """Compiles it; float32 without calibration samples."""
    from fieldloop.compiler import compile_graph

    if options is not None and source.calibration is None:
        raise UsageError("a way to calibrate needs samples; give them with --calibrate FILE.npz")
    return compile_graph(
        source.imported.graph,
        source.calibration,
        labels=source.labels,
        learn=learn,
        rehearsal=source.rehearsal,
        meta=source.meta or None,
        options=options,
        flash_limit=flash_limit,
        ram_limit=ram_limit,
        tiling=tiling,
        mac_limit=mac_limit,
        progress=progress,
    )


def _network(path: Path, outputs: Sequence[str]) -> Source:
    from fieldloop.frontends.load import model_bytes, parse_model

    content = model_bytes(path)
    return Source(path.name, content, parse_model(path, content, outputs))


def read_module(module: Any, example: Any, name: str = "module") -> Source:
    """A torch module; `example` shows the shapes of its inputs, see import_module."""
    from fieldloop.frontends.torch_module import import_module

    return Source(name, b"", import_module(module, example), module=module)


def _python(path: Path) -> Source:
    names = _run_file(path)
    if "model" not in names:
        raise UsageError(f"{path} sets no `model`; see fieldloop compile --help")
    given = names.get("calibration")
    example = given if given is not None else names.get("example")
    if example is None:
        raise UsageError(
            f"{path} sets neither `calibration` nor `example`: one shows the input's shape"
        )
    source = read_module(names["model"], example, path.name)
    source = replace(source, labels=names.get("labels", ()))
    source = with_rehearsal(source, names.get("rehearsal"))
    return source if given is None else with_samples(source, given, str(path))


def _run_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        return runpy.run_path(str(path))
    except FieldloopError:
        raise
    except Exception as error:
        raise FieldloopError(
            f"{path} failed: {type(error).__name__}: {error}; python {path} shows where"
        ) from error


def with_samples(source: Source, given: Any, where: str) -> Source:
    """The source with samples to calibrate with, as the network takes them.

    `given`: an array or tensor, or a mapping of them by the source's name of each input; `x` will
    do for the only one.
    """
    return replace(source, calibration=named_samples(source, given, where))


def with_rehearsal(source: Source, given: tuple[Any, Any] | None) -> Source:
    """The source with samples, as the network takes them, and class numbers to travel with it."""
    if given is None:
        return source
    x = source.to_graph(source.imported.graph.inputs[0], np.asarray(given[0]))
    return replace(source, rehearsal=(x, np.asarray(given[1])))


def named_samples(source: Source, given: Any, where: str) -> dict[str, Array]:
    """Samples by input of the graph, in its layout; `given` and `where` as for with_samples."""
    graph = source.imported.graph
    arrays = given if isinstance(given, Mapping) else {"x": given}
    samples = {}
    for name in graph.inputs:
        mapped = source.imported.values.get(name)
        known = [name, mapped.source] if mapped is not None else [name]
        known += ["x"] if len(graph.inputs) == 1 else []
        key = next((k for k in known if k in arrays), None)
        if key is None:
            raise UsageError(
                f"{where}: expected an array {' or '.join(dict.fromkeys(known))}, "
                f"got {', '.join(arrays) or 'none'}"
            )
        value = arrays[key]
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        if array.dtype.kind not in "fiu":
            raise UsageError(f"{where}: {key}: expected numbers, got {array.dtype}")
        samples[name] = source.to_graph(name, array)
    return samples
