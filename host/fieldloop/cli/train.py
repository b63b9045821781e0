"""fieldloop train."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fieldloop.cli.console import Console, Output
from fieldloop.cli.digit_options import add_digit_arguments
from fieldloop.cli.files import prepare_file, write_file
from fieldloop.errors import UsageError
from fieldloop.paths import build_dir

if TYPE_CHECKING:
    from fieldloop.train.digits import TrainedDigits

HELP = """Trains a network of the zoo: a teacher, and a student distilled from it. Writes the
student's weights (.npz) and an int8 model (.flm).

`digits` needs no data, lacks the missing digits and can learn them in the field. The others
are trained on the data sets of --data-dir, for inference; their teachers are kept for the
next seed. --list names all networks and the file that each is trained on."""
EXAMPLE = (
    "fieldloop train digits --missing 8,9 -o digits.flm --samples samples\n"
    "  fieldloop train kws --data-dir data --seed 1 -o kws.flm"
)
DIGITS = "digits"
DIGITS_TITLE = "handwritten digits of 8x8 pixels, teacher and student, learns in the field"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "network", nargs="?", help="digits, kws, resnet8, har, ...; --list has all of them"
    )
    parser.add_argument("--list", action="store_true", help="print the networks of the zoo")
    add_digit_arguments(parser)
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="holds the data set (not for digits)"
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="instead of the recipe's (not for digits)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE.flm",
        help="the model to write (default: NETWORK.flm); weights lie beside it as .npz",
    )
    parser.add_argument(
        "--samples",
        type=Path,
        metavar="DIR",
        help="digits: also write stream.npz (the missing classes, to learn) and test.npz (all)",
    )


def run(args: argparse.Namespace, console: Console) -> Output:
    if args.list:
        return _list()
    if args.network is None:
        raise UsageError("network: expected a name; `fieldloop train --list` prints them")
    if args.output is None:
        args.output = Path(f"{args.network}.flm")
    return _train_digits(args, console) if args.network == DIGITS else _train_zoo(args, console)


def _list() -> Output:
    from fieldloop.train.recipes import RECIPES
    from fieldloop.zoo.registry import ENTRIES

    rows = [(DIGITS, DIGITS_TITLE, "none: it is in scikit-learn")]
    rows += [(e.name, e.title, e.data or "none here: initial weights") for e in ENTRIES.values()]
    width, wide = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    networks = [
        {
            "name": e.name,
            "title": e.title,
            "input_shape": [1, *e.shape],
            "labels": list(e.labels),
            "data": e.data,
            "recipe": RECIPES[e.name].in_words() if e.name in RECIPES else None,
        }
        for e in ENTRIES.values()
    ]
    text = "\n".join(f"{name:{width}}  {title:{wide}}  {data}" for name, title, data in rows)
    return Output({"networks": [{"name": DIGITS, "title": DIGITS_TITLE}, *networks]}, text)


def _stages(console: Console) -> Callable[[str, int, int], None]:
    shown = ""

    def progress(name: str, done: int, total: int) -> None:
        nonlocal shown
        if name != shown:
            console.stage(f"train the {name}" if " " not in name else f"ask for the {name}")
            shown = name
        console.progress(done, total)

    return progress


def _train_zoo(args: argparse.Namespace, console: Console) -> Output:
    from fieldloop.train import measure
    from fieldloop.train import zoo as training
    from fieldloop.zoo import data as data_sets
    from fieldloop.zoo import registry

    if args.network not in registry.ENTRIES:
        raise UsageError(
            f"network: expected one of {DIGITS}, {', '.join(registry.ENTRIES)}, "
            f"got {args.network!r}"
        )
    recipe = training.recipe_of(args.network, epochs=args.epochs)
    if args.samples is not None:
        raise UsageError(f"--samples: only {DIGITS} has samples to learn in the field")
    if args.data_dir is None:
        raise UsageError(
            f"{args.network}: expected --data-dir, the folder that holds "
            f"{registry.entry(args.network).data}"
        )
    weights = args.output.with_suffix(".npz")
    prepare_file(args.output)
    prepare_file(weights)
    console.stage(f"read {args.data_dir / (registry.entry(args.network).data or '')}")
    data = data_sets.load(args.network, args.data_dir)
    cache = build_dir() / "zoo"
    stages = _stages(console)
    network = training.train_student(data, recipe, seed=args.seed, cache=cache, progress=stages)
    taught = training.teach(data, recipe, cache=cache)  # from the cache, by now
    registry.save(weights, network)
    console.stage("compile to int8 and measure")
    compiled = measure.compile_trained(network, data, meta={"seed": args.seed})
    write_file(args.output, compiled.image)
    measured = measure.measure(network, compiled.image, data)
    report = compiled.report
    result = {
        "model": str(args.output),
        "weights": str(weights),
        "network": args.network,
        "seed": args.seed,
        "recipe": recipe.in_words(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "test_samples": measured.samples,
        "teacher_accuracy": taught and training.accuracy(taught.network, data.x_test, data.y_test),
        "float_accuracy": measured.float_accuracy,
        "int8_accuracy": measured.int8_accuracy,
        "flash_bytes": report.flash_bytes,
        "ram_infer_bytes": report.ram_infer_bytes,
        "macs": report.macs,
    }
    by_teacher = f", its teacher in {result['teacher_accuracy']:.4f}" if taught else ""
    text = (
        f"{args.output}: {report.flash_bytes} bytes, {report.ram_infer_bytes} bytes of RAM, "
        f"{report.macs} multiply-accumulates; of {measured.samples} test samples it is right in "
        f"{measured.int8_accuracy:.4f}, as float in {measured.float_accuracy:.4f}{by_teacher}\n"
        f"weights: {weights}"
    )
    return Output(result, text)


def _train_digits(args: argparse.Namespace, console: Console) -> Output:
    for option, given in (("--data-dir", args.data_dir), ("--epochs", args.epochs)):
        if given is not None:
            raise UsageError(f"{option}: not for {DIGITS}; leave it away")
    prepare_file(args.output)
    prepare_file(args.samples and args.samples / "test.npz")
    from fieldloop.train.digits import train_digits

    trained = train_digits(seed=args.seed, missing=args.missing, progress=_stages(console))
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
