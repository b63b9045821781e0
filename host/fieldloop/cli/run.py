"""fieldloop run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.cli import device, samples
from fieldloop.cli.console import Console, Output
from fieldloop.cli.files import file_bytes
from fieldloop.errors import UsageError
from fieldloop.image.reader import read_image

HELP = """Predicts samples: on a device with its active model, or with --model on this
machine, which gives the same bytes."""
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
    given = samples.load(args.samples) if args.samples is not None else _digit(args.digit)
    labels: tuple[str, ...] = ()
    real: npt.NDArray[Any]
    if args.model is not None:
        from fieldloop.runtime import Learner, Model

        model = Model(file_bytes(args.model))
        if args.state is not None:
            Learner.of_state(model, file_bytes(args.state))  # the model keeps it alive
        raw, labels = model.predict_int8(given.x), model.labels
        real = model.outputs[0].dequantize(raw)
    else:
        with device.chosen(args, console) as board:
            info = board.model()
            x = samples.quantized(given.x, scale=info.input_scale, zero_point=info.input_zero)
            console.stage("predict")
            raw = board.predict(x, progress=device.Throttle(console))
            # The protocol tells no class names; they travel in the image.
            labels = read_image(board.pull("image")).labels
        raw = raw.reshape(len(raw), -1)
        real = (raw.astype(np.float64) - info.output_zero) * info.output_scale
    return _output(given, raw, real, labels)


def _digit(number: int) -> samples.Samples:
    from sklearn.datasets import load_digits

    digits = load_digits()
    if not 0 <= number < len(digits.target):
        raise UsageError(f"--digit: expected 0 to {len(digits.target) - 1}, got {number}")
    x = (digits.images[number : number + 1] / 16.0).astype(np.float32)[..., None]
    return samples.Samples(x, digits.target[number : number + 1].astype(np.int64))


def _output(
    given: samples.Samples,
    raw: npt.NDArray[np.int8],
    real: npt.NDArray[Any],
    labels: tuple[str, ...],
) -> Output:
    classes = raw.argmax(axis=1)
    data: dict[str, Any] = {
        "samples": len(raw),
        "classes": classes.tolist(),
        "labels": [labels[c] for c in classes] if labels else None,
        "outputs": [[round(float(v), 6) for v in row] for row in real],
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
