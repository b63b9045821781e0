"""fieldloop run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.cli import device, samples
from fieldloop.cli.console import Console, Output
from fieldloop.cli.files import file_bytes
from fieldloop.compare.inputs import input_names
from fieldloop.errors import UsageError
from fieldloop.image.reader import read_image

HELP = """Predicts samples: on a device with its active model, or with --model on this
machine, which gives the same bytes. There it may have float32 and several inputs
(input_0, input_1, ... in the .npz); the link to a device carries int8 alone."""
EXAMPLE = "fieldloop run samples/test.npz --model digits.flm"
_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "samples", nargs="?", type=Path, metavar="SAMPLES", help=".npz (x, y), .npy or .csv"
    )
    source.add_argument(
        "--digit", type=int, metavar="N", help="sample N of the digits data set (0 to 1796)"
    )
    parser.add_argument("--model", type=Path, metavar="FILE.flm", help="run it on this machine")
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="with --model: what was learned, from pull"
    )
    device.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    if args.model is not None and device.is_chosen(args):
        raise UsageError("--model runs on this machine; leave --board and --port out")
    if args.state is not None and args.model is None:
        raise UsageError("--state belongs to --model; a device runs with what it has learned")
    labels: tuple[str, ...] = ()
    real: list[npt.NDArray[Any]]
    if args.model is not None:
        from fieldloop.runtime import Learner, Model

        model = Model(file_bytes(args.model))
        if args.state is not None:
            Learner.of_state(model, file_bytes(args.state))  # the model keeps it alive
        given, inputs = _given(args, [info.dtype for info in model.inputs])
        raws, labels = model.run(*inputs), model.labels
        raw = raws[0]
        real = [info.dequantize(out) for info, out in zip(model.outputs, raws, strict=True)]
    else:
        given, _ = _given(args, ["int8"])
        with device.chosen(args, console) as board:
            info = board.model()
            # The protocol tells no class names, nor all inputs; they travel in the image.
            image = read_image(board.pull("image"))
            reason = device.not_over_the_link(image)
            if reason is not None:
                raise UsageError(f"{info.slot}: {reason}")
            labels = image.labels
            x = given.x
            console.stage("predict")
            raw = board.predict(x, progress=device.Throttle(console))
        raw = raw.reshape(len(raw), -1)
        real = [(raw.astype(np.float64) - info.output_zero) * info.output_scale]
    return _output(given, raw, real, labels)


def _given(
    args: argparse.Namespace, dtypes: Sequence[str]
) -> tuple[samples.Samples, list[npt.NDArray[Any]]]:
    """The first input's samples with their labels, and those of each input, by its dtype."""
    if args.samples is None:
        digit = _digit(args.digit)
        return digit, [digit.x]
    held = samples.arrays(args.samples)
    names = input_names(len(dtypes))
    missing = [name for name in names if name not in held]
    if missing:
        raise UsageError(
            f"{args.samples}: expected {' and '.join(names)}, got {', '.join(held)}; "
            f"{samples.FORMATS}"
        )
    chosen = []
    for name, dtype in zip(names, dtypes, strict=True):
        is_index = dtype != "int8" and held[name].dtype.kind in "iu"
        chosen.append(held[name] if is_index else samples.checked(held[name], args.samples))
    y = held.get("y")
    labels = None if y is None else samples.labels(y, len(chosen[0]), args.samples)
    return samples.Samples(chosen[0], labels), chosen


def _digit(number: int) -> samples.Samples:
    from sklearn.datasets import load_digits

    digits = load_digits()
    if not 0 <= number < len(digits.target):
        raise UsageError(f"--digit: expected 0 to {len(digits.target) - 1}, got {number}")
    x = (digits.images[number : number + 1] / 16.0).astype(np.float32)[..., None]
    return samples.Samples(x, digits.target[number : number + 1].astype(np.int64))


def _output(
    given: samples.Samples,
    raw: npt.NDArray[Any],
    real: list[npt.NDArray[Any]],
    labels: tuple[str, ...],
) -> Output:
    classes = raw.argmax(axis=1)
    data: dict[str, Any] = {
        "samples": len(raw),
        "classes": classes.tolist(),
        "labels": [labels[c] for c in classes] if labels else None,
        "outputs": _rows(real[0]),
        "more_outputs": [_rows(output) for output in real[1:]],
        "accuracy": None,
    }

    def name(number: int) -> str:
        return labels[number] if 0 <= number < len(labels) else str(number)

    lines = []
    for i, guess in enumerate(classes[:_SHOWN]):
        truth = "" if given.y is None else f"  (is {name(int(given.y[i]))})"
        lines.append(f"{i}: {name(int(guess))}{truth}")
    if len(classes) > _SHOWN:
        lines.append(f"... {len(classes) - _SHOWN} more, all of them with --json")
    if given.y is not None:
        data["accuracy"] = float((classes == given.y).mean())
        lines.append(f"{data['accuracy']:.4f} of {len(classes)} right")
    return Output(data, "\n".join(lines))


def _rows(real: npt.NDArray[Any]) -> list[list[float | int | None]]:
    """A list for each sample. None: not a number, or infinite, which JSON does not have."""
    if real.dtype.kind != "f":
        return [[int(v) for v in row] for row in real]
    return [[round(float(v), 6) if np.isfinite(v) else None for v in row] for row in real]
