"""A model file becomes a graph, by what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fieldloop.errors import FieldloopError, UsageError
from fieldloop.frontends.imported import Imported


def load_model(path: Path | str, outputs: Sequence[str] = ()) -> Imported:
    """Reads a .tflite or .onnx file. `outputs`: names of tensors to end at instead of its own."""
    path = Path(path)
    return parse_model(path, model_bytes(path), outputs)


def parse_model(path: Path, data: bytes, outputs: Sequence[str] = ()) -> Imported:
    """`load_model` of the bytes of a file; `path` is only its name."""
    if _is_tflite(path, data):
        from fieldloop.frontends.tflite import read_tflite

        return read_tflite(data, outputs)
    if path.suffix == ".onnx":
        from fieldloop.frontends.onnx_frontend import read_onnx

        return read_onnx(data, outputs)
    raise UsageError(f"{path}: expected a .tflite or .onnx file, got {path.suffix or 'no suffix'}")


def unknown_operators(path: Path | str) -> dict[str, int]:
    """Operators of a file that fieldloop has no reader for, and how many nodes have them.

    A known operator may still be refused for its attributes or shapes: load_model says so.
    """
    path = Path(path)
    data = model_bytes(path)
    if _is_tflite(path, data):
        from fieldloop.frontends.tflite.reader import unknown_operators as of_tflite

        return of_tflite(data)
    from fieldloop.frontends.onnx_frontend import unknown_operators as of_onnx

    return of_onnx(data)


def model_bytes(path: Path) -> bytes:
    """The bytes of a file, or one clear error."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FieldloopError(f"cannot read {path}: {error.strerror}") from error


def _is_tflite(path: Path, data: bytes) -> bool:
    return data[4:8] == b"TFL3" or path.suffix == ".tflite"
