"""What a device answers, as data: replies of group 70, checked key by key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fieldloop.link import cbor
from fieldloop.link.errors import CodecError

Reply = Mapping[str, cbor.Value]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The active model. Shapes begin with 1; scale and zero point as in TFLite."""

    slot: str
    sha256: bytes
    bytes: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    input_scale: float
    input_zero: int
    output_scale: float
    output_zero: int
    learnable: bool

    @property
    def input_bytes(self) -> int:
        return math.prod(self.input_shape)

    @property
    def output_bytes(self) -> int:
        return math.prod(self.output_shape)


@dataclass(frozen=True, slots=True)
class BoardInfo:
    proto: int
    version: str
    board: str
    micropython: str | None  # its version; None: another system, see `os`
    os: str | None
    boot: int
    buf_bytes: int
    kernels: str  # plain, dsp or mve
    slots: dict[str, int]  # name -> capacity, bytes
    model: ModelInfo | None
    learner: bool
    fault: str | None  # why the model or the learner of before the restart is not there
    note: str | None  # what else its user should know
    free_bytes: int
    frames: int
    bad_frames: int
    noise_bytes: int
    lost_bytes: int


@dataclass(frozen=True, slots=True)
class StepStats:
    """One batch of samples learned."""

    samples: int
    hits: int  # right before they were learned
    loss_sum: float
    trained: int  # samples that had a backward pass
    backward_macs: int


@dataclass(frozen=True, slots=True)
class Memory:
    arena_bytes: int
    used_bytes: int  # highest byte touched since the last paint; 0: never painted
    free_bytes: int


@dataclass(frozen=True, slots=True)
class LayerStats:
    """What became of one trained layer since the learner's start or reset."""

    op: int  # operator of the model
    entries: int  # of its deltas, over all trained samples
    kept: int  # of them
    ratio: float  # kept / entries
    clipped: int  # steps of weights that were cut short
    weights: int
    saturated: int  # of them, at the end of int8 now


@dataclass(frozen=True, slots=True)
class JobStatus:
    job: int
    state: str  # running, paused, done, cancelled, failed
    done: int
    of: int
    message: str = ""
    hits: int = 0  # training: right before they were learned
    right: int = 0  # of the latest evaluation
    total: int = 0  # samples of it; 0: none yet
    evaluations: int = 0
    best: int = 0  # right of the best evaluation
    early: bool = False  # ended before its last step, since it no longer got better
    brought_back: bool = False  # it ended with the state of its best evaluation
    record: int | None = None  # what it committed

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def active(self) -> bool:
        return self.state in ("running", "paused")


class ReplyFields:
    """Typed access to a reply; CodecError names the key, what was expected and what came."""

    def __init__(self, what: str, reply: Reply) -> None:
        self._what = what
        self._reply = reply

    def _wrong(self, key: str, expected: str) -> CodecError:
        got = self._reply.get(key, "nothing")
        return CodecError(f"{self._what}: reply key {key!r}: {expected} expected, got {got!r}")

    def integer(self, key: str) -> int:
        value = self._reply.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, "an integer")
        return value

    def number(self, key: str) -> float:
        value = self._reply.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self._wrong(key, "a number")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self._reply.get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def text(self, key: str) -> str:
        value = self._reply.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "text")
        return value

    def data(self, key: str) -> bytes:
        value = self._reply.get(key)
        if not isinstance(value, bytes):
            raise self._wrong(key, "bytes")
        return value

    def integers(self, key: str, count: int | None = None) -> tuple[int, ...]:
        value = self._reply.get(key)
        if not isinstance(value, list) or (count is not None and len(value) != count):
            raise self._wrong(key, "a list" if count is None else f"a list of {count}")
        out = tuple(x for x in value if isinstance(x, int) and not isinstance(x, bool))
        if len(out) != len(value):
            raise self._wrong(key, "a list of integers")
        return out

    def quant(self, key: str) -> tuple[float, int]:
        value = self._reply.get(key)
        if isinstance(value, list) and len(value) == 2:
            scale, zero = value
            if isinstance(scale, (int, float)) and isinstance(zero, int):
                return float(scale), zero
        raise self._wrong(key, "[scale, zero point]")

    def has(self, key: str) -> bool:
        return self._reply.get(key) is not None


def model_info(what: str, reply: Reply) -> ModelInfo:
    f = ReplyFields(what, reply)
    in_scale, in_zero = f.quant("in_q")
    out_scale, out_zero = f.quant("out_q")
    return ModelInfo(
        slot=f.text("slot"),
        sha256=f.data("sha"),
        bytes=f.integer("len"),
        input_shape=f.integers("in"),
        output_shape=f.integers("out"),
        input_scale=in_scale,
        input_zero=in_zero,
        output_scale=out_scale,
        output_zero=out_zero,
        learnable=f.flag("learn"),
    )


def step_stats(what: str, reply: Reply) -> StepStats:
    f = ReplyFields(what, reply)
    return StepStats(
        f.integer("k"), f.integer("hit"), f.number("loss"), f.integer("trained"), f.integer("macs")
    )


def text_keys(value: cbor.Value) -> dict[str, cbor.Value] | None:
    return (
        {k: v for k, v in value.items() if isinstance(k, str)} if isinstance(value, dict) else None
    )


def board_info(reply: Reply) -> BoardInfo:
    """The reply to `info`."""
    f = ReplyFields("info", reply)
    model = text_keys(reply.get("model"))
    slots = text_keys(reply.get("slots")) or {}
    frames, bad, noise, lost = f.integers("rx", 4)
    return BoardInfo(
        proto=f.integer("proto"),
        version=f.text("ver"),
        board=f.text("board"),
        micropython=f.text("mpy") if f.has("mpy") else None,
        os=f.text("os") if f.has("os") else None,
        boot=f.integer("boot"),
        buf_bytes=f.integer("buf"),
        kernels=f.text("kern") if f.has("kern") else "plain",
        slots={name: size for name, size in slots.items() if isinstance(size, int)},
        model=model_info("info", model) if model is not None else None,
        learner=f.flag("learner"),
        fault=f.text("fault") if f.has("fault") else None,
        note=f.text("note") if f.has("note") else None,
        free_bytes=f.integer("free"),
        frames=frames,
        bad_frames=bad,
        noise_bytes=noise,
        lost_bytes=lost,
    )


def job_status(reply: Reply) -> JobStatus:
    """The reply to `job`, read."""
    f = ReplyFields("job status", reply)

    def count(key: str) -> int:
        return f.integer(key) if f.has(key) else 0

    return JobStatus(
        job=f.integer("job"),
        state=f.text("state"),
        done=f.integer("done"),
        of=f.integer("of"),
        message=f.text("msg") if f.has("msg") else "",
        hits=count("hit"),
        right=count("right"),
        total=count("total"),
        evaluations=count("evals"),
        best=count("best"),
        early=f.has("early") and f.flag("early"),
        brought_back=f.has("back") and f.flag("back"),
        record=f.integer("seq") if f.has("seq") else None,
    )


def layer_stats(reply: Reply) -> tuple[LayerStats, ...]:
    """`layers` of the reply to `stats`; none from a device that does not tell."""
    layers = reply.get("layers")
    if layers is None:
        return ()
    maps = [text_keys(layer) for layer in layers] if isinstance(layers, list) else [None]
    return tuple(_layer_stats(layer) for layer in maps)


def _layer_stats(layer: Reply | None) -> LayerStats:
    if layer is None:
        raise CodecError("stats: reply key 'layers': a list of maps expected")
    f = ReplyFields("stats of a layer", layer)
    return LayerStats(
        op=f.integer("op"),
        entries=f.integer("entries"),
        kept=f.integer("kept"),
        ratio=f.number("ratio"),
        clipped=f.integer("clipped"),
        weights=f.integer("weights"),
        saturated=f.integer("saturated"),
    )


def numbers(reply: Reply) -> dict[str, int | float]:
    """The pairs of a reply whose values are numbers."""
    return {
        key: value
        for key, value in reply.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def instructions(reply: Reply) -> int | None:
    """`ins` of a reply to `count`; None where the board cannot count."""
    f = ReplyFields("count", reply)
    return f.integer("ins") if f.has("ins") else None
