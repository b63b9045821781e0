"""Inputs to check a model with: random ones, which a board can make by itself, and given ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fieldloop.errors import UsageError
from fieldloop.image.format import Dtype, Opcode
from fieldloop.image.reader import Image, ImageTensor

Array = npt.NDArray[np.generic]
Sample = tuple[Array, ...]  # one array for each input of the image, of its shape and dtype

_NUMPY = {Dtype.I8: np.int8, Dtype.I32: np.int32, Dtype.F32: np.float32}
# Inputs of one sample differ by this much in their seeds, so that they are not the same bytes.
_INPUT_STEP = 0x10000
_MOST_BYTES = 1 << 29  # of all samples, which are held at once


def input_seed(seed: int, index: int) -> int:
    """The seed of input `index` of the sample with this seed."""
    return (seed + index * _INPUT_STEP) & 0xFFFFFFFF


def random_bytes(seed: int, count: int) -> npt.NDArray[np.int8]:
    """What fl_random_fill writes: byte i is the top one of lowbias32(lowbias32(seed) + i)."""
    from fieldloop.runtime.core import core

    ffi, lib = core()
    out = np.empty(count, np.int8)
    lib.fl_random_fill(ffi.cast("void *", out.ctypes.data), count, seed)
    return out


def random_sample(image: Image, seed: int) -> Sample:
    """Random values for all inputs: any int8; reals in [-1, 1); indices that exist."""
    return tuple(
        _random(image, image.tensors[t], input_seed(seed, i)) for i, t in enumerate(image.inputs)
    )


def random_samples(image: Image, seed: int, count: int) -> list[Sample]:
    """Samples of `seed`, `seed` + 1, ...; UsageError where they would not fit the memory."""
    each = sum(image.tensors[t].bytes for t in image.inputs)
    if count * each > _MOST_BYTES:
        raise UsageError(
            f"{count} samples of {each} bytes: expected at most {max(_MOST_BYTES // each, 1)} at "
            "once; check fewer, and the others with another seed"
        )
    return [random_sample(image, seed + k) for k in range(count)]


def is_random_on_board(image: Image) -> bool:
    """Whether a board can make the same random inputs by itself: when all of them are int8."""
    return all(image.tensors[t].dtype is Dtype.I8 for t in image.inputs)


def _random(image: Image, tensor: ImageTensor, seed: int) -> Array:
    count = int(np.prod(tensor.shape))
    if tensor.dtype is Dtype.I8:
        return random_bytes(seed, count).reshape(tensor.shape)
    generator = np.random.default_rng(seed)
    if tensor.dtype is Dtype.F32:
        real = generator.uniform(-1.0, 1.0, count).astype(np.float32)
        return real.reshape(tensor.shape)
    entries = [
        image.tensors[op.inputs[1]].shape[0]
        for op in image.ops
        if op.opcode is Opcode.EMBEDDING and op.inputs[0] == tensor.index
    ]
    limit = min(entries, default=128)
    return generator.integers(0, limit, count, dtype=np.int32).reshape(tensor.shape)


def input_names(count: int) -> list[str]:
    """What the inputs of an .flm, which has no names, are called in a file of samples."""
    return ["x"] if count == 1 else [f"input_{i}" for i in range(count)]


def given_samples(image: Image, arrays: Mapping[str, Array], names: Sequence[str]) -> list[Sample]:
    """Samples [n, ...] by input name (or `x`, where there is one input) in the image's layout.

    Reals are quantised for an int8 input.
    """
    columns: list[list[Array]] = []
    for name, index in zip(names, image.inputs, strict=True):
        key = name if name in arrays else "x" if len(names) == 1 else name
        if key not in arrays:
            raise UsageError(
                f"inputs: expected an array for each of {', '.join(names)}, "
                f"got {', '.join(arrays) or 'none'}"
            )
        columns.append(_column(arrays[key], image.tensors[index], key))
    counts = {len(column) for column in columns}
    if len(counts) != 1:
        raise UsageError(f"inputs: expected as many samples of each, got {sorted(counts)}")
    return list(zip(*columns, strict=True))


def _column(array: Array, tensor: ImageTensor, name: str) -> list[Array]:
    size, each = int(np.prod(tensor.shape)), tuple(tensor.shape[1:])
    ends = array.shape[array.ndim - len(each) :] == each or array.shape[-1:] == (size,)
    if array.size == 0 or not ends or array.size % size:
        raise UsageError(
            f"inputs: {name}: expected samples of {list(tensor.shape)}, got {list(array.shape)}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UsageError(f"inputs: {name}: expected finite numbers")
    rows = array.reshape(-1, *tensor.shape)
    wanted = _NUMPY[tensor.dtype]
    if rows.dtype == wanted:
        return [np.ascontiguousarray(row) for row in rows]
    if wanted is np.int8 and rows.dtype.kind == "f":
        return [tensor.quantize(row) for row in rows]
    if wanted is np.float32 and rows.dtype.kind in "fiu":
        return [row.astype(np.float32) for row in rows]
    # Some networks take indices as reals, and cast them first.
    if wanted is np.int32 and (rows.dtype.kind in "iu" or (rows == np.rint(rows)).all()):
        return [row.astype(np.int32) for row in rows]
    raise UsageError(f"inputs: {name}: expected {wanted.__name__}, got {array.dtype}")
