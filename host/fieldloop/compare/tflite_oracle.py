"""What TensorFlow Lite says: every value of a .tflite model, by tensor index.

TensorFlow Lite Micro's reference kernels (package tflite-micro) are the oracle of int8 and
float32; legacy uint8, which that does not load, has LiteRT's reference kernels (ai-edge-litert).
Both packages are optional: without them fieldloop compiles, and compares with nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.errors import FieldloopError
from fieldloop.frontends.imported import Imported
from fieldloop.frontends.tflite.file import ModelFile, cut_file, read_file

Array = npt.NDArray[Any]

# Bytes of arena to try, one after the other: what a model needs is not known before.
ARENAS = (1 << 20, 8 << 20, 64 << 20, 512 << 20)


class _Micro:
    """TensorFlow Lite Micro with every tensor kept."""

    name = "tflite-micro"

    def __init__(self, model: bytes) -> None:
        runtime = _package("tflite_micro", "tflite-micro").runtime
        keep = runtime.InterpreterConfig.kPreserveAllTensors
        self._file = read_file(model)
        self._interpreter: Any = None
        message = ""
        for arena in ARENAS:
            with _quiet_stderr() as said:
                try:
                    self._interpreter = runtime.Interpreter.from_bytes(
                        model, arena_size=arena, intrepreter_config=keep
                    )
                    return
                except (RuntimeError, ValueError) as error:
                    message = said() or _one_line(error)
            if not any(word in message for word in ("missing", "arena", "llocat")):
                break  # more memory would not help
        raise FieldloopError(f"tflite-micro does not load the model: {message}")

    def run(self, inputs: Sequence[Array]) -> None:
        for place, value in enumerate(inputs):
            info = self._file.tensors[self._file.inputs[place]]
            array = np.ascontiguousarray(value, info.dtype).reshape(info.shape)
            self._interpreter.set_input(array, place)
        with _quiet_stderr() as said:
            try:
                self._interpreter.invoke()
            except RuntimeError as error:
                raise FieldloopError(
                    f"tflite-micro does not run the model: {said() or _one_line(error)}"
                ) from error

    def tensor(self, index: int) -> Array:
        return np.array(self._interpreter.GetTensor(index, 0)["tensor_data"])


class _LiteRt:
    """LiteRT's reference kernels, no delegates, every tensor kept."""

    name = "ai-edge-litert"

    def __init__(self, model: bytes) -> None:
        package = _package("ai_edge_litert.interpreter", "ai-edge-litert")
        self._file = read_file(model)
        try:
            with _quiet_stderr():
                self._interpreter: Any = package.Interpreter(
                    model_content=model,
                    experimental_op_resolver_type=package.OpResolverType.BUILTIN_REF,
                    experimental_preserve_all_tensors=True,
                    num_threads=1,
                )
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise FieldloopError(
                f"ai-edge-litert does not load the model: {_one_line(error)}"
            ) from error

    def run(self, inputs: Sequence[Array]) -> None:
        for index, value in zip(self._file.inputs, inputs, strict=True):
            info = self._file.tensors[index]
            array = np.ascontiguousarray(value, info.dtype).reshape(info.shape)
            self._interpreter.set_tensor(index, array)
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise FieldloopError(
                f"ai-edge-litert does not run the model: {_one_line(error)}"
            ) from error

    def tensor(self, index: int) -> Array:
        return np.array(self._interpreter.get_tensor(index))


def _made(file: ModelFile) -> list[int]:
    made = [i for node in file.nodes for i in node.outputs if i >= 0]
    return [*file.inputs, *dict.fromkeys(made)]


class TfliteOracle:
    """The right one of the two for a model; values go by their labels in the file."""

    def __init__(self, content: bytes, imported: Imported) -> None:
        """Raises FieldloopError where the package is missing or does not load the model."""
        file = read_file(content)
        index = {tensor.label: tensor.index for tensor in file.tensors}
        values, names = imported.values, imported.graph.outputs
        outputs = [index[values[name].source] for name in names if name in values]
        if not set(file.outputs) <= set(outputs):  # what is cut off may not even load
            content = cut_file(content, outputs)
            file = read_file(content)
        self._inputs = [file.tensors[i] for i in file.inputs]
        sources = {value.source for value in values.values()}
        self._wanted = [file.tensors[i] for i in _made(file) if file.tensors[i].label in sources]
        self._oracle: _Micro | _LiteRt
        if _computes_with_uint8(file):
            self._oracle = _LiteRt(content)
        else:
            self._oracle = _Micro(content)
        self.name = self._oracle.name

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """Values by label for inputs by label; an input that is not given is zeros."""
        inputs = [given.get(info.label, np.zeros(info.shape, info.dtype)) for info in self._inputs]
        self._oracle.run(inputs)
        return {info.label: self._oracle.tensor(info.index) for info in self._wanted}


def _computes_with_uint8(file: ModelFile) -> bool:
    """Whether uint8 is more than the type of inputs and outputs around an int8 model."""
    for node in file.nodes:
        types = {file.tensors[i].dtype for i in (*node.inputs, *node.outputs) if i >= 0}
        if "uint8" in types and not (node.operator == "QUANTIZE" and "int8" in types):
            return True
    return False


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _package(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise FieldloopError(f"{name} is needed to compare: pip install {name}") from error


@contextmanager
def _quiet_stderr() -> Iterator[Any]:
    """Catches what C++ prints; the value gives its last line."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        saved = os.dup(2)
        os.dup2(caught.fileno(), 2)

        def said() -> str:
            caught.seek(0)
            lines = caught.read().decode("utf-8", "replace").strip().splitlines()
            return lines[-1] if lines else ""

        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
