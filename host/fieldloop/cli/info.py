"""fieldloop info."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fieldloop.cli import device
from fieldloop.cli.console import Console, Output, plural, table
from fieldloop.cli.files import file_bytes
from fieldloop.cli.ram import learn_row, learner_bytes
from fieldloop.errors import FieldloopError, UsageError
from fieldloop.image.reader import read_image
from fieldloop.link import Board

HELP = "Tells about a model file; without one, about a device and the model that is active there."
EXAMPLE = "fieldloop info digits.flm"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.flm", help="a model file")
    device.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    if args.file is not None:
        if device.is_chosen(args):
            raise UsageError("info tells about a file or a device; give one of them")
        return of_image(file_bytes(args.file))
    with device.chosen(args, console) as board:
        return _of_device(board)


def of_image(content: bytes) -> Output:
    """What an image says about itself, and what it takes."""
    image = read_image(content)
    x, y = image.input_tensor(), image.output_tensor()
    plans = {plan.kind.name.lower(): plan.arena_bytes for plan in image.plans}
    trained = {layer.op: layer.lr_scale for layer in image.trainables}
    ram = [("RAM to infer", f"{plans['infer']} bytes")] if "infer" in plans else []
    learner: int | None = 0
    if trained and "learn" in plans:
        try:
            learner = learner_bytes(content)
            ram.append(learn_row(plans["learn"], learner))
        except FieldloopError as error:  # no compiler for the core, say: the rest can be told
            learner = None
            ram.append(("RAM to learn", f"{plans['learn']} bytes and the learner's own: {error}"))
    data: dict[str, Any] = {
        "uid": image.uid.hex(),
        "version": f"{image.version[0]}.{image.version[1]}",
        "bytes": image.total_bytes,
        "macs": image.macs,
        "input": {"shape": list(x.shape), "scale": x.scale, "zero_point": x.zero_point},
        "output": {"shape": list(y.shape), "scale": y.scale, "zero_point": y.zero_point},
        "arena_bytes": plans,
        "learner_bytes": learner,  # on top of the arena; None: cannot be told here
        "labels": list(image.labels),
        "operators": [
            {
                "name": op.opcode.name.lower(),
                "output": list(image.tensors[op.outputs[0]].shape),
                "macs": op.macs,
                "trainable": op.index in trained,
            }
            for op in image.ops
        ],
        "rehearsal_samples": 0 if image.rehearsal is None else len(image.rehearsal.labels),
        "sections": {section.name: section.bytes for section in image.sections},
        "meta": image.meta,
    }
    rows = [
        ("uid", data["uid"]),
        ("image", f"{image.total_bytes} bytes, format {data['version']}"),
        ("input", f"{list(x.shape)} int8, scale {x.scale:.6g}, zero point {x.zero_point}"),
        ("output", f"{list(y.shape)} int8, scale {y.scale:.6g}, zero point {y.zero_point}"),
        ("work", f"{image.macs} multiply-accumulates"),
        *ram,
        ("labels", " ".join(image.labels) or "none"),
        ("old samples", plural(data["rehearsal_samples"], "sample")),
        *((key, str(value)) for key, value in image.meta.items()),
    ]
    operators = [
        (
            f"  {op['name']}",
            "x".join(map(str, op["output"])),
            f"{op['macs']} MACs",
            "trainable" if op["trainable"] else "",
        )
        for op in data["operators"]
    ]
    return Output(data, f"{table(rows)}\noperators\n{table(operators)}")


def _of_device(board: Board) -> Output:
    info = board.info()
    model = info.model
    data: dict[str, Any] = {
        "board": info.board,
        "micropython": info.micropython,
        "fieldloop": info.version,
        "protocol": info.proto,
        "boot": info.boot,
        "message_bytes": info.buf_bytes,
        "free_bytes": info.free_bytes,
        "slots": info.slots,
        "learner": info.learner,
        "fault": info.fault,
        "model": None,
        "stats": board.stats() if info.learner else None,
    }
    rows = [
        ("board", f"{info.board}, MicroPython {info.micropython}"),
        ("fieldloop", f"{info.version}, link protocol {info.proto}"),
        ("free memory", f"{info.free_bytes} bytes"),
        ("slots", ", ".join(f"{name} {_room(size)}" for name, size in info.slots.items())),
    ]
    if model is None:
        rows.append(("model", "none is active; fieldloop push FILE.flm"))
    else:
        data["model"] = {
            "slot": model.slot,
            "sha256": model.sha256.hex(),
            "bytes": model.bytes,
            "input": list(model.input_shape),
            "output": list(model.output_shape),
            "learnable": model.learnable,
        }
        rows += [
            ("model", f"{model.bytes} bytes in {model.slot}, sha256 {model.sha256.hex()[:16]}..."),
            ("input", f"{list(model.input_shape)} int8"),
            ("output", f"{list(model.output_shape)} int8"),
        ]
    if info.fault is not None:
        rows.append(("fault", info.fault))
    if data["stats"]:
        learned = data["stats"].get("samples", 0)
        rows.append(("learned", plural(int(learned), "sample")))
    return Output(data, table(rows))


def _room(size: int) -> str:
    return f"{size} bytes" if size else "(a file)"
