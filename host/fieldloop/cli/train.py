"""fieldloop train."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fieldloop.cli.console import Console, Output
from fieldloop.cli.digit_options import add_digit_arguments
from fieldloop.cli.files import prepare_file, write_file

if TYPE_CHECKING:
    from fieldloop.train.digits import TrainedDigits

HELP = """Trains a reference network: a teacher, and a student distilled from it, on all
classes but the missing ones. Writes the student as a model that can learn them
in the field."""
EXAMPLE = "fieldloop train digits --missing 8,9 -o digits.flm --samples samples"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", choices=("digits",), help="handwritten digits, 8x8 pixels")
    add_digit_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.flm", help="the model to write"
    )
    parser.add_argument(
        "--samples",
        type=Path,
        metavar="DIR",
        help="also write stream.npz (the missing classes, to learn) and test.npz (all classes)",
    )


def run(args: argparse.Namespace, console: Console) -> Output:
    prepare_file(args.output)
    prepare_file(args.samples and args.samples / "test.npz")
    from fieldloop.train.digits import train_digits

    shown = ""

    def progress(name: str, done: int, total: int) -> None:
        nonlocal shown
        if name != shown:
            console.stage(f"train the {name}")
            shown = name
        console.progress(done, total)

    trained = train_digits(seed=args.seed, missing=args.missing, progress=progress)
    write_file(args.output, trained.compiled.image)
    report = trained.compiled.report
    data = {
        "model": str(args.output),
        "seed": args.seed,
        "missing": list(trained.data.missing),
        "teacher_accuracy": trained.teacher_accuracy,
        "student_float_accuracy": trained.student_float_accuracy,
        "student_int8_accuracy": trained.student_int8_accuracy,
        "flash_bytes": report.flash_bytes,
        "ram_infer_bytes": report.ram_infer_bytes,
        "ram_learn_bytes": report.ram_learn_bytes,
        "macs": report.macs,
        "seconds": round(trained.seconds, 2),
    }
    text = (
        f"{args.output}: {report.flash_bytes} bytes; on {len(trained.data.known)} classes the "
        f"teacher is right in {trained.teacher_accuracy:.4f}, the student in "
        f"{trained.student_float_accuracy:.4f}, as int8 in {trained.student_int8_accuracy:.4f}"
    )
    if args.samples is not None:
        data["stream"], data["test"] = map(str, _write_samples(trained, args.samples, args.seed))
        text += f"\nsamples: {data['stream']}, {data['test']}"
    return Output(data, text)


def _write_samples(trained: TrainedDigits, folder: Path, seed: int) -> tuple[Path, Path]:
    from fieldloop.cli.files import write_npz
    from fieldloop.train.field import PASSES

    digits = trained.data
    stream, test = folder / "stream.npz", folder / "test.npz"
    x, y = digits.stream(PASSES, seed)
    write_npz(stream, x=x, y=y)
    write_npz(test, x=digits.x_test, y=digits.y_test)
    return stream, test
