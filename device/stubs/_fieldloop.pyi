"""The C module under the package `fieldloop`. Buffers: anything with the buffer protocol."""

from collections.abc import Callable, Iterable
from typing import Any

Buffer = bytes | bytearray | memoryview

version: tuple[int, int, int]
protocol: int

def check(image: Buffer) -> int:
    """0, or -74 damaged or foreign, -95 too new, -1001 not at a 16-byte boundary."""

def crc32(data: Buffer, crc: int = 0) -> int: ...
def sha256(data: Buffer | Iterable[Buffer]) -> bytes: ...
def random_fill(buffer: bytearray | memoryview, seed: int) -> None:
    """Bytes that a host makes of the same seed: inputs to compare with."""

def kernels() -> str:
    """What the operators are run by: plain, dsp (Armv7E-M) or mve (Helium)."""

class Model:
    """An image executed in place; keeps the image's buffer and an arena on the heap."""

    closed: bool
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    input_bytes: int
    output_bytes: int
    input_scale: float
    output_scale: float
    input_zero_point: int
    output_zero_point: int
    image_bytes: int
    arena_bytes: int
    uid: bytes
    op_count: int
    tensor_count: int
    inputs: tuple[int, ...]  # their tensors
    outputs: tuple[int, ...]
    labels: tuple[str, ...]
    macs: int
    samples: int
    trainable: int

    def __init__(self, image: Buffer) -> None: ...
    def predict(self, x: Any, out: Any = None) -> int:
        """Class of the (first output's) highest score.

        x: an array of the input's type ('b', 'i', 'f'), its raw bytes, or for int8 the real
        numbers as array('f'). out gets scores, of its own kind. A tuple or list for several.
        """

    def run_ops(self, first: int, end: int) -> None:
        """Runs operators first to end - 1 on what lies in the arena."""

    def input(self, i: int) -> memoryview:
        """The bytes of an input, to be written before each run: a run may use their place."""

    def set_input(self, i: int, x: Any) -> None:
        """Copies x, as predict takes it, into input i."""

    def output(self, i: int) -> memoryview:
        """The bytes of an output."""

    def tensor(self, t: int) -> memoryview:
        """The bytes of any tensor; what an operator made is there until its place is used."""

    def tensor_info(self, t: int) -> tuple[str, tuple[int, ...], float, int]:
        """(typecode, shape, scale, zero point); scale 0.0: none, or one a channel."""

    def op(self, i: int) -> tuple[int, tuple[int, ...], int, int]:
        """(opcode, input tensors, output tensor, multiply-accumulates)."""

    def quantize(self, x: Any, out: bytearray) -> bytearray:
        """The int8 sample of array('f') x."""

    def sample(self, index: int) -> tuple[int, memoryview] | None:
        """(label, int8 sample) of those that travel with the image."""

    def paint(self, pattern: int) -> None: ...
    def touched(self, pattern: int) -> int: ...
    def deinit(self) -> None: ...
    def __enter__(self) -> Model: ...
    def __exit__(self, *exc: Any) -> None: ...

class Learner:
    """Teaches a model; the newest learner of a model owns it."""

    closed: bool
    model: Model | None
    config: dict[str, Any]
    packed: bytes
    layers: int
    total_bytes: int
    state_bytes: int
    weight_bytes: int
    optimizer_bytes: int
    memory_bytes: int
    scratch_bytes: int
    lent_bytes: int  # of the scratch: in the model's arena, not part of total_bytes
    batch_bytes: int
    plan: dict[
        str, int
    ]  # bytes of RAM: total = arena and the learner's own block, and what is in them
    error: float  # of the last step; NaN: it was refused
    trained: bool
    kept: int

    def __init__(self, model: Model, **settings: Any) -> None: ...
    def step(self, x: Any, label: int) -> int | None:
        """Keeps the sample, trains on it, replays others; the class predicted before.

        x: int8 (array('b'), bytes), or real numbers as array('f'). None: one of them is a NaN or
        an infinity; the sample is counted as refused and changes nothing else.
        """

    def train(self, x: Any, label: int) -> int | None:
        """One sample without memory and replay."""

    def flush(self) -> None:
        """Writes what a batch has gathered so far."""

    def evaluate(self) -> tuple[int, int]:
        """(right, total) of the image's samples that `holdout` keeps from training; 0: of all."""

    def layer_stats(self) -> list[dict[str, Any]]:
        """op, entries, kept, ratio, clipped, weights, saturated of each trained layer."""

    def reset(self) -> None: ...
    def state(self) -> memoryview: ...
    def load(self, state: Buffer) -> None: ...
    def stats(self) -> dict[str, int]: ...
    def paint(self, pattern: int) -> None: ...
    def touched(self, pattern: int) -> int: ...
    def deinit(self) -> None: ...
    def __enter__(self) -> Learner: ...
    def __exit__(self, *exc: Any) -> None: ...

Record = tuple[int, bytes, int, int, int]  # type, uid, sequence number, bytes, CRC-32

class Store:
    """Power-safe records on a block device."""

    def __init__(
        self,
        device: Any,
        *,
        prog_bytes: int = 0,
        uids: Iterable[Buffer] | None = None,
        format: bool = False,
    ) -> None: ...
    def mount(self, uids: Iterable[Buffer] | None = None) -> None: ...
    def format(self) -> None: ...
    def append(self, type: int, uid: Buffer, *pieces: Buffer) -> None: ...
    def find(self, type: int, uid: Buffer, nth: int = 0) -> Record | None: ...
    def read(
        self, type: int, uid: Buffer, nth: int, buffer: bytearray, offset: int = 0
    ) -> None: ...
    def sha256(self, type: int, uid: Buffer, nth: int = 0) -> bytes: ...
    def copy(self, type: int, uid: Buffer, nth: int) -> None: ...
    def records(self) -> list[Record]: ...

class Slot:
    """Writes an image into a raw partition, chunk by chunk."""

    size: int
    next: int
    open: bool

    def __init__(self, device: Any, prog_bytes: int = 0) -> None: ...
    def begin(self, total: int) -> None: ...
    def write(self, offset: int, data: Buffer) -> None: ...
    def end(self) -> None: ...
    def readinto(self, offset: int, buffer: bytearray) -> None: ...
    def sha256(self, n: int) -> bytes: ...

class Link:
    """SMP requests from a stream, and the replies to them."""

    group: int
    command: int
    write: bool
    dedicated: bool
    buf: int
    boot: int
    session: int
    calls: int
    frames: int
    bad: int
    noise: int
    unsent: int

    def __init__(
        self,
        rx: Any,
        tx: Any = None,
        *,
        dedicated: bool = True,
        buf: int = 4096,
        group: int = 70,
        boot: int | None = None,
        text: Callable[[bytes], None] | None = None,
    ) -> None: ...
    def poll(self, wait_ms: int = 0) -> bool: ...
    def body(self) -> dict[str, Any]: ...
    def reply(self, body: dict[str, Any]) -> None: ...
    def fail(self, error: int, text: str, more: dict[str, Any] | None = None) -> None: ...
    def refuse(self, rc: int) -> None: ...
