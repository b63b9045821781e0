"""Checks a compiled model: kernels against each other, a board, and the source's own runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fieldloop.compare.difference import largest_difference, largest_value
from fieldloop.compare.host import HostRun
from fieldloop.compare.inputs import Sample
from fieldloop.compare.oracle import Oracle
from fieldloop.compare.probe import checksum, probing, sample_files
from fieldloop.compare.report import CheckReport, LayerCheck, OracleCheck
from fieldloop.image.format import Dtype
from fieldloop.image.reader import read_image
from fieldloop.runtime.core import VARIANTS
from fieldloop.targets import roster

Array = npt.NDArray[np.generic]
Progress = Callable[[int, int], None]
Say = Callable[[str], None]

IMAGE_FILE = "model.flm"


@dataclass(slots=True)
class _Found:
    """Of one operator, gathered over the samples."""

    variants: set[str] = field(default_factory=set)
    board: bool | None = None
    absolute: float = 0.0
    largest: float = 0.0
    compared: bool = False
    unequal: bool = False


def check_image(
    image: bytes,
    samples: Sequence[Sample],
    *,
    model: str,
    names: Sequence[str] | None = None,
    oracle: Oracle | None = None,
    oracle_note: str = "",
    board: str | None = None,
    memory: str | None = None,
    sqnr_db: Mapping[str, float] | None = None,
    variants: Sequence[str] = tuple(VARIANTS),
    progress: Progress | None = None,
    say: Say | None = None,
) -> CheckReport:
    """Runs `samples` everywhere and compares.

    `names`: of the image's operators. `oracle`: the source's own runtime; `oracle_note` says why
    there is none. `board`: a name of the roster, started for it; `memory`: its memory map. Of a
    tiled image the outputs are compared: nothing else is sure to be whole.
    """
    parsed = read_image(image)
    host = HostRun(image, parsed, variants)
    found = [_Found() for _ in host.ops]
    hashes: list[list[int]] = []
    for done, sample in enumerate(samples):
        plain = host.layers(sample)
        hashes.append([checksum(value) for value in plain])
        for variant in variants[1:]:
            for item, a, b in zip(found, plain, host.layers(sample, variant), strict=True):
                if a.tobytes() != b.tobytes():
                    item.variants.add(variant)
        if oracle is not None:
            _against_oracle(host, oracle, sample, plain, found)
        if progress is not None:
            progress(done + 1, len(samples))

    board_note = ""
    if board is not None:
        board_note = _against_board(board, memory, image, host, samples, hashes, found, say)
    return _report(
        image, host, found, model, names, samples, oracle, oracle_note, board, board_note, sqnr_db
    )


def _against_oracle(
    host: HostRun, oracle: Oracle, sample: Sample, plain: list[Array], found: list[_Found]
) -> None:
    known = oracle.run(sample)

    def compare(op: int, value: Array) -> None:
        wanted = known.get(host.made[op])
        if wanted is None:
            return
        item = found[op]
        item.compared = True
        item.unequal = item.unequal or value.tobytes() != wanted.tobytes()
        item.absolute = max(item.absolute, largest_difference(value, wanted))
        item.largest = max(item.largest, largest_value(wanted))

    if oracle.forced:
        host.forced_layers(sample, known, compare)
    else:
        for op, value in enumerate(plain):
            compare(op, value)


def _against_board(
    board: str,
    memory: str | None,
    image: bytes,
    host: HostRun,
    samples: Sequence[Sample],
    hashes: list[list[int]],
    found: list[_Found],
    say: Say | None,
) -> str:
    files = {IMAGE_FILE: image, **sample_files(samples)}
    with probing(board, files, memory=memory, progress=say) as probe:
        probe.open(IMAGE_FILE)
        for k, wanted in enumerate(hashes):
            hashed = probe.output_hashes if host.tiled else probe.layer_hashes
            told = hashed(f"s{k}", len(host.parsed.inputs), host.made)
            for item, a, b in zip(found, wanted, told, strict=True):
                item.board = item.board is not False and a == b
        arena = probe.arena_bytes
    return f"{roster.lookup(board).title}, arena {arena} bytes"


def _report(
    image: bytes,
    host: HostRun,
    found: list[_Found],
    model: str,
    names: Sequence[str] | None,
    samples: Sequence[Sample],
    oracle: Oracle | None,
    oracle_note: str,
    board: str | None,
    board_note: str,
    sqnr_db: Mapping[str, float] | None,
) -> CheckReport:
    parsed = host.parsed
    names = names or [f"{op.opcode.name.lower()}_{op.index}" for op in parsed.ops]
    layers = []
    for op, item in zip(host.ops, found, strict=True):
        name = names[op.index]
        tensor = parsed.tensors[op.outputs[0]]
        difference = None
        if item.compared:
            real = tensor.dtype is Dtype.F32
            difference = item.absolute / item.largest if real and item.largest else item.absolute
        layers.append(
            LayerCheck(
                name=name,
                kind=op.opcode.name.lower(),
                shape=tensor.shape,
                macs=op.macs,
                variants=tuple(sorted(item.variants)),
                board_equal=item.board,
                difference=difference,
                sqnr_db=None if sqnr_db is None else sqnr_db.get(name),
            )
        )
    dtypes = {parsed.tensors[op.outputs[0]].dtype for op in parsed.ops}
    is_float, has_int8 = Dtype.F32 in dtypes, Dtype.I8 in dtypes
    verdict = None
    if oracle is not None and not parsed.ops:
        oracle_note = "the model has no operators: there is nothing to compare"
    elif oracle is not None:
        compared = [item for item in found if item.compared]
        whole = [
            item
            for item, t in zip(found, host.made, strict=True)
            if item.compared and (not has_int8 or parsed.tensors[t].dtype is not Dtype.F32)
        ]
        # What counts of a float model is what it puts out; a layer's own share is in its row.
        relative = [
            layer.difference
            for op, layer in zip(host.ops, layers, strict=True)
            if op.outputs[0] in parsed.outputs and parsed.tensors[op.outputs[0]].dtype is Dtype.F32
        ]
        verdict = OracleCheck(
            name=oracle.name,
            exact=oracle.exact and (has_int8 or not is_float),
            bit_exact=bool(compared) and not _differs(host, found, mixed=is_float and has_int8),
            max_abs_diff=max((item.absolute for item in whole), default=0.0),
            max_rel_diff=max((r for r in relative if r is not None), default=None),
            layers=len(compared),
            unknown_outputs=sum(
                t in parsed.outputs and not item.compared
                for item, t in zip(found, host.made, strict=True)
            ),
        )
    told = [item.board for item in found]
    return CheckReport(
        model=model,
        outputs_only=host.tiled,
        dtype="mixed" if is_float and has_int8 else "float32" if is_float else "int8",
        samples=len(samples),
        variants=tuple(host.models),
        variants_equal=not any(item.variants for item in found),
        board=board,
        board_equal=None if board is None else all(told),
        board_note=board_note,
        oracle=verdict,
        oracle_note=oracle_note,
        flash_bytes=len(image),
        ram_bytes=host.plain.arena_bytes,
        ram_by_kernels={name: m.arena_bytes for name, m in host.models.items()},
        macs=host.plain.macs,
        layers=tuple(layers),
    )


def _differs(host: HostRun, found: list[_Found], *, mixed: bool) -> bool:
    """Whether the bytes of a layer are not the oracle's.

    Reals of a mixed model have a tolerance; int8 that is made from such reals may round otherwise.
    """
    if not mixed:
        return any(item.unequal for item in found)
    rounded: set[int] = set()  # tensors that reals which differ went into
    for op, item in zip(host.ops, found, strict=True):
        is_real = host.parsed.tensors[op.outputs[0]].dtype is Dtype.F32
        if not rounded.isdisjoint(op.inputs) or (is_real and item.unequal):
            rounded.update(op.outputs)
        elif item.unequal:
            return True
    return False
