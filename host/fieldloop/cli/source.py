"""The options that name a model to compile, and the model they name, read or compiled."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fieldloop.cli import samples
from fieldloop.cli.console import Console
from fieldloop.cli.files import file_bytes
from fieldloop.errors import UsageError

if TYPE_CHECKING:
    from fieldloop.quantize.options import QuantizeOptions
    from fieldloop.sources import Source

SOURCES = """SOURCE is a .tflite (int8, uint8, float), an .onnx (float or quantised), or a
Python file (it is run) that sets
  model        a torch.nn.Module in float32
  calibration  samples [n, ...] as the module takes them, without labels; or
  example      one such sample: the model then stays float32
  labels       optional: a name for each class
  rehearsal    optional: (samples, class numbers) that travel with the model
A float model stays float32 unless there are samples to calibrate with."""


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """--outputs, --calibrate and how."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--outputs",
        metavar="NAME,...",
        help="end the network at these values (leaves out what comes after them)",
    )
    group.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE.npz",
        help="samples by input name (or x), as the network takes them: makes a float model int8",
    )
    group.add_argument(
        "--method",
        choices=("minmax", "percentile", "mse"),
        help="how ranges are found from the samples (default: minmax)",
    )
    group.add_argument(
        "--bias-correction", action="store_true", help="take out the mean error of each channel"
    )
    group.add_argument(
        "--equalise",
        action="store_true",
        help="even out the weights' ranges across layers first, where that helps",
    )


def outputs_of(args: argparse.Namespace) -> tuple[str, ...]:
    """The names of --outputs."""
    return tuple(name for name in (args.outputs or "").split(",") if name)


def options_of(args: argparse.Namespace) -> QuantizeOptions | None:
    """How to quantise, where the options say so."""
    if args.method is None and not args.bias_correction and not args.equalise:
        return None
    from fieldloop.quantize.options import QuantizeOptions

    return QuantizeOptions(
        method=args.method or "minmax",
        bias_correction=args.bias_correction,
        equalise=args.equalise,
    )


def source_of(args: argparse.Namespace) -> Source:
    """The network that the options name."""
    from fieldloop.sources import NETWORK_SUFFIXES, read_source, with_samples

    path = Path(args.source)
    if path.suffix not in NETWORK_SUFFIXES:
        raise UsageError(
            f"{path}: expected a file {', '.join(NETWORK_SUFFIXES)}; see fieldloop --help"
        )
    source = read_source(path, outputs=outputs_of(args))
    if args.calibrate is None:
        return source
    if not source.is_float:
        raise UsageError(f"{path} is quantised already; leave --calibrate out")
    return with_samples(source, samples.arrays(args.calibrate), str(args.calibrate))


def compiled_source(
    args: argparse.Namespace, console: Console
) -> tuple[str, bytes, Sequence[str] | None]:
    """Name, image and operator names of a model to measure: an .flm as it is, others compiled."""
    from fieldloop.sources import compile_source

    path = Path(args.source)
    if path.suffix == ".flm":
        if args.outputs or args.calibrate:
            raise UsageError(f"{path} is compiled already; --outputs and --calibrate come before")
        return path.name, file_bytes(path), None
    console.stage(f"compile {args.source}")
    compiled = compile_source(source_of(args), options=options_of(args))
    return path.name, compiled.image, [op.name for op in compiled.graph.ops]
