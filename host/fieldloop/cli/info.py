"""fieldloop info."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fieldloop.cli import device
from fieldloop.cli.console import Console, Output, plural, short, table
from fieldloop.cli.files import file_bytes
from fieldloop.cli.ram import kernel_row, learn_row, learner_bytes, ram_by_kernels
from fieldloop.cli.source import add_source_arguments, options_of, source_of
from fieldloop.errors import FieldloopError, UsageError
from fieldloop.image.format import Dtype
from fieldloop.image.reader import ImageTensor, read_image
from fieldloop.ir.tensor import Tensor
from fieldloop.link import Board
from fieldloop.link.replies import BoardInfo
from fieldloop.sources import NETWORK_SUFFIXES

HELP = """Tells about a model: an .flm, or a .tflite, .onnx or Python file, which is compiled
for it: layers, shapes, MACs, RAM, flash, and the operators that are not supported.
Without a file it tells about a device and the model that is active there."""
EXAMPLE = "fieldloop info network.tflite"

_DTYPE_NAMES = {Dtype.I8: "int8", Dtype.I32: "int32", Dtype.F32: "float32", Dtype.U8: "uint8"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a model file")
    add_source_arguments(parser)
    device.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> Output:
    if args.file is not None:
        if device.is_chosen(args):
            raise UsageError("info tells about a file or a device; give one of them")
        if args.file.suffix in NETWORK_SUFFIXES:
            return _of_network(args)
        return of_image(file_bytes(args.file))
    with device.chosen(args, console) as board:
        return _of_device(board)


def of_image(content: bytes) -> Output:
    """What an image says about itself, and what it takes."""
    image = read_image(content)
    x, y = image.input_tensor(), image.output_tensor()
    plans = {plan.kind.name.lower(): plan.arena_bytes for plan in image.plans}
    steps = {plan.kind.name.lower(): len(plan.steps) for plan in image.plans if plan.is_tiled}
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
        "input": _image_value(x),
        "output": _image_value(y),
        "arena_bytes": plans,
        "steps": steps,  # of the plans that are tiled
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
        ("input", _image_told(x)),
        ("output", _image_told(y)),
        ("work", f"{image.macs} multiply-accumulates"),
        *ram,
        *((f"tiled to {kind}", f"{count} steps") for kind, count in steps.items()),
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


def _image_value(tensor: ImageTensor) -> dict[str, Any]:
    quantised = tensor.dtype is Dtype.I8
    return {
        "shape": list(tensor.shape),
        "dtype": _DTYPE_NAMES[tensor.dtype],
        "scale": tensor.scale if quantised else None,
        "zero_point": tensor.zero_point if quantised else None,
    }


def _image_told(tensor: ImageTensor) -> str:
    return _told({"name": "", **_image_value(tensor)}).strip()


def _of_network(args: argparse.Namespace) -> Output:
    """What a network would cost, or which of its operators stand in the way."""
    from fieldloop.frontends.builder import UnsupportedModelError
    from fieldloop.frontends.load import unknown_operators
    from fieldloop.sources import compile_source

    args.source = str(args.file)
    try:
        source = source_of(args)
    except UnsupportedModelError as error:
        unknown = {} if args.file.suffix == ".py" else unknown_operators(args.file)
        data: dict[str, Any] = {"ok": False, "error": str(error), "unsupported": unknown}
        rows = [(name, plural(count, "node")) for name, count in unknown.items()]
        listed = f"\noperators that are not supported\n{table(rows)}" if rows else ""
        return Output(data, f"{error}{listed}", 1)
    compiled = compile_source(source, options=options_of(args))
    report, by_kernels = compiled.report, ram_by_kernels(compiled.image)
    inputs = [_value(compiled.graph.tensors[name]) for name in compiled.graph.inputs]
    outputs = [_value(compiled.graph.tensors[name]) for name in compiled.graph.outputs]
    data = {
        "ok": True,
        "unsupported": {},
        "kind": source.imported.kind,
        "inputs": inputs,
        "outputs": outputs,
        "macs": report.macs,
        "flash_bytes": report.flash_bytes,
        "ram_bytes": report.ram_infer_bytes,
        "ram_bytes_by_kernels": by_kernels,
        "layers": [asdict(layer) for layer in report.layers],
        "notes": list(source.imported.notes),
    }
    rows = [
        ("network", f"{source.name}, {source.imported.kind}"),
        *(("input", _told(value)) for value in inputs),
        *(("output", _told(value)) for value in outputs),
        ("work", f"{report.macs} multiply-accumulates"),
        ("flash", f"{report.flash_bytes} bytes"),
        ("RAM to infer", f"{report.ram_infer_bytes} bytes{kernel_row(by_kernels)}"),
        ("unsupported", "none"),
        *(("note", note) for note in source.imported.notes),
    ]
    layers: list[tuple[str, ...]] = [("layer", "kind", "output", "MACs", "weights")]
    layers += [
        (
            short(layer.name),
            layer.kind,
            "x".join(map(str, layer.output_shape)),
            str(layer.macs),
            f"{layer.weight_bytes} B",
        )
        for layer in report.layers
    ]
    return Output(data, f"{table(rows)}\n\n{table(layers)}")


def _value(tensor: Tensor) -> dict[str, Any]:
    quant = tensor.quant
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype.value,
        "scale": None if quant is None else quant.scale,
        "zero_point": None if quant is None else quant.zero_point,
    }


def _told(value: dict[str, Any]) -> str:
    scale = value["scale"]
    quantised = "" if scale is None else f", scale {scale:.6g}, zero point {value['zero_point']}"
    return f"{short(value['name'])} {value['shape']} {value['dtype']}{quantised}"


def _system(info: BoardInfo) -> str:
    if info.micropython is not None:
        return f"MicroPython {info.micropython}"
    return info.os or "an unnamed system"


def _of_device(board: Board) -> Output:
    info = board.info()
    model = info.model
    data: dict[str, Any] = {
        "board": info.board,
        "micropython": info.micropython,
        "os": info.os,
        "fieldloop": info.version,
        "protocol": info.proto,
        "boot": info.boot,
        "message_bytes": info.buf_bytes,
        "free_bytes": info.free_bytes,
        "slots": info.slots,
        "learner": info.learner,
        "fault": info.fault,
        "note": info.note,
        "model": None,
        "stats": board.stats() if info.learner else None,
    }
    rows = [
        ("board", f"{info.board}, {_system(info)}"),
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
    if info.note is not None:
        rows.append(("note", info.note))
    if data["stats"]:
        learned = data["stats"].get("samples", 0)
        rows.append(("learned", plural(int(learned), "sample")))
    return Output(data, table(rows))


def _room(size: int) -> str:
    return f"{size} bytes" if size else "(a file)"
