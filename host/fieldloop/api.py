"""What `import fieldloop` offers: compile a network, check an image, connect to a device.

    image = fieldloop.compile(network, samples).image       # a torch module, made int8
    image = fieldloop.compile("network.tflite").image       # or a file, .tflite or .onnx
    with fieldloop.connect("qemu-an386") as board:
        board.push(image, to="model0")
        board.activate(image, slot="model0")
        board.predict(x)

Names are looked up lazily: importing fieldloop loads neither torch nor the C core.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldloop.errors import FieldloopError, UsageError

if TYPE_CHECKING:
    from fieldloop.compiler import Compiled
    from fieldloop.image.reader import Image
    from fieldloop.link import Board
    from fieldloop.link.transport import TextSink
    from fieldloop.quantize.options import Progress, QuantizeOptions


def compile(
    model: Any,
    calibration: Any = None,
    *,
    example: Any = None,
    outputs: Sequence[str] | str = (),
    labels: Sequence[str] = (),
    learn: int | Sequence[str] | None = None,
    rehearsal: tuple[Any, Any] | None = None,
    options: QuantizeOptions | None = None,
    meta: Mapping[str, Any] | None = None,
    flash_limit: int | None = None,
    ram_limit: int | None = None,
    tiling: str = "none",
    mac_limit: float | None = None,
    progress: Progress | None = None,
) -> Compiled:
    """Turns a network into a model image and tells what it costs.

    model: a torch module, or the path of a .tflite or .onnx. calibration: samples [n, ...] as the
    network takes them (tensor, array, or a mapping by input name): with them a float network
    becomes int8, without it stays float32. example: one sample (or a tuple, one of each input),
    which shows a module's shapes where there is no calibration. outputs: values of a file to end
    at. learn: layers that may be trained in the field, counted from the output, or names; 2 for a
    module with calibration, else none.
    rehearsal: samples and class numbers that travel with the model. options: how to quantise.
    DoesNotFitError when it is larger than a limit (bytes). tiling: "none", "fdt", "ffmt" or
    "auto", for less RAM; mac_limit: work that may be spent on it, 1.05 for 5 % more.
    """
    from fieldloop.compiler import DEFAULT_LEARN
    from fieldloop.sources import (
        compile_source,
        read_module,
        read_source,
        with_rehearsal,
        with_samples,
    )

    if isinstance(model, str | Path):
        ends = (outputs,) if isinstance(outputs, str) else outputs
        source = read_source(Path(model), outputs=ends)
    else:
        shown = calibration if calibration is not None else example
        if shown is None:
            raise UsageError(
                "model: a module does not tell its input's shape; give calibration samples (it "
                "becomes int8) or an example (it stays float32)"
            )
        source = read_module(model, shown)
        learn = DEFAULT_LEARN if learn is None and calibration is not None else learn
    if calibration is not None:
        source = with_samples(source, calibration, "calibration")
    source = with_rehearsal(source, rehearsal)
    return compile_source(
        replace(source, labels=labels, meta=meta or {}),
        learn=learn,
        options=options,
        flash_limit=flash_limit,
        ram_limit=ram_limit,
        tiling=tiling,
        mac_limit=mac_limit,
        progress=progress,
    )


@contextmanager
def connect(
    target: str,
    *,
    dedicated: bool = False,
    flash_file: str | Path | None = None,
    memory: str | None = None,
    text: TextSink | None = None,
) -> Iterator[Board]:
    """A device for a `with` block: a name of the roster, or a serial port.

    A simulated board is started, and ended afterwards; it remembers in `flash_file`, if given.
    dedicated: the serial port carries nothing but the link. text: gets what the device prints.
    """
    from fieldloop.link import connect as connect_port
    from fieldloop.targets import roster

    spec = roster.lookup(target) if _is_name(target) else None
    if spec is not None and spec.kind != "serial":
        from fieldloop.targets.serving import serving

        file = None if flash_file is None else Path(flash_file)
        with serving(spec.name, memory=memory, flash_file=file) as device:
            yield device.board
        return
    if flash_file is not None or memory is not None:
        raise UsageError(f"{target}: only simulated boards have a flash file and memory maps")
    port = target if spec is None else spec.port
    board = connect_port(port, dedicated=dedicated, text=text)
    try:
        yield board
    finally:
        board.close()


def _is_name(target: str) -> bool:
    """A port is a path, a URL or COM3; everything else is looked up in the roster."""
    return not ("/" in target or "://" in target or target.upper().startswith("COM")) or (
        target.startswith("serial:")
    )


def check(image: bytes | str | Path) -> Image:
    """Reads a model image or file; ImageError or VersionError when it cannot be used."""
    from fieldloop.image.reader import read_image

    if isinstance(image, bytes):
        return read_image(image)
    try:
        return read_image(Path(image).read_bytes())
    except OSError as error:
        raise FieldloopError(f"cannot read {image}: {error.strerror}") from error
