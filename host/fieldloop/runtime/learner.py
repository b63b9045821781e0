"""A learner on the host: the device's training, to the byte, from the same seed."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fieldloop.errors import FieldloopError, UsageError, VersionError
from fieldloop.runtime.core import core
from fieldloop.runtime.model import (
    Model,
    aligned_bytes,
    check_float_mode,
    pointer,
    refuse,
    touched_bytes,
)

SETTINGS = "see LearnerConfig for the settings and their ranges"
_STATE = struct.Struct("<4sHHII16s")  # the beginning of a state, see DESIGN.md


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerConfig:
    """How to learn; the same fields, ranges and defaults as `fl_learner_config_t`."""

    selector: Literal[
        "tinypropv2", "tinyprop", "dense", "topk", "random", "loss", "mask", "budget"
    ] = "tinypropv2"
    skip: Literal["auto", "on", "off"] = "auto"  # TinyPropv2's decision metric; auto: the selector's
    unit: Literal["element", "channel"] = "element"
    rank: Literal["error", "activation"] = "error"  # of channels
    search: Literal["auto", "heap", "histogram", "threshold"] = "auto"
    bias_mode: Literal["topk", "dense"] = "topk"
    k_rule: Literal["integer", "trunc_f32"] = "integer"
    deltas: Literal["f32", "int16"] = "f32"
    weights: Literal["int8", "int16", "f32"] = "int8"  # what a trained weight is kept in
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    layers: int = 0  # trainable layers from the output backwards; 0 = all of the image's
    floor: int = 1  # least entries (channels) kept of a layer
    batch: int = 1  # trained samples from one update to the next
    max_step: int = 32  # most steps of its int8 part that a weight moves at once
    s_min: float = 0.1  # bounds of the ratio of kept gradients
    s_max: float = 0.9
    zeta: float = 0.5  # damping of the ratio per layer away from the output
    d_min: float = 0.0  # bounds of TinyPropv2's decision metric
    d_max: float = 1.0
    d_thr: float = 0.05  # train iff the metric is above
    rho: float = 1.0  # forgetting of the running maxima; 1 = none
    lr: float = 1.0  # times the layer's own scale in the image
    beta1: float = 0.9  # decay of momentum, and of Adam's first moment
    beta2: float = 0.999  # of Adam's second
    replays: int = 4  # rehearsal samples trained after each new one
    memory: int = 0  # capacity of the rehearsal memory, in samples
    holdout: int = 0  # every n-th rehearsal sample of the image is only evaluated on
    seed: int = 0
    mask: tuple[float, ...] = ()  # of selector mask: share of channels, from the output backwards

    def fill(self, target: Any) -> None:
        """Writes the settings into an `fl_learner_config_t *`."""
        _, lib = core()
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "mask":
                _fill_mask(target, value)
                continue
            if field.name in _ENUMS:
                value = getattr(lib, f"{_ENUMS[field.name]}{str(value).upper()}", None)
                if value is None:
                    raise UsageError(
                        f"learner: {field.name}={getattr(self, field.name)!r} is unknown; "
                        f"{SETTINGS}"
                    )
            try:
                setattr(target, field.name, value)
            except (OverflowError, TypeError) as error:
                raise UsageError(
                    f"learner: {field.name} {value!r}: {error}; {SETTINGS}"
                ) from error


_ENUMS = {
    "selector": "FL_SELECT_",
    "skip": "FL_SKIP_",
    "unit": "FL_UNIT_",
    "rank": "FL_RANK_",
    "search": "FL_SEARCH_",
    "bias_mode": "FL_BIAS_",
    "k_rule": "FL_K_",
    "deltas": "FL_DELTAS_",
    "weights": "FL_WEIGHTS_",
    "optimizer": "FL_OPTIMIZER_",
}


def _fill_mask(target: Any, shares: tuple[float, ...]) -> None:
    if len(shares) > len(target.mask) or not all(0.0 <= share <= 1.0 for share in shares):
        raise UsageError(
            f"learner: mask: expected at most {len(target.mask)} shares of 0 to 1, got {shares}"
        )
    for i in range(len(target.mask)):
        target.mask[i] = int(shares[i] * 255 + 0.5) if i < len(shares) else 0


@dataclass(frozen=True, slots=True)
class LearnerSizes:
    """Bytes of a learner, known before it exists."""

    total_bytes: int  # its own block: the state, then what of the scratch the model does not lend
    state_bytes: int  # what a commit writes
    weight_bytes: int  # of the state
    memory_bytes: int  # of the state
    scratch_bytes: int  # wherever it lies
    lent_bytes: int  # of the scratch: in the model's arena, which counts it


@dataclass(frozen=True, slots=True)
class LearnerStats:
    """Counters since the start or the last reset; part of the state."""

    forward_macs: int
    backward_macs: int  # executed
    dense_backward_macs: int  # what dense training of the same layers would have executed
    samples: int
    replayed: int
    trained: int
    skipped: int
    refused: int
    remembered: int  # samples in the rehearsal memory
    clamped: int  # samples with values beyond the input's range
    updates: int  # times that weights were written
    clipped: int  # weights that moved less than a step asked for


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to one new sample."""

    error: float  # 2 (1 - p of its label), before the update
    predicted: int  # before the update
    trained: bool
    kept: int  # gradients kept, over all layers


def _copy_fields(kind: type, struct: Any) -> Any:
    return kind(**{field.name: getattr(struct, field.name) for field in fields(kind)})


def learner_sizes(model: Model, config: LearnerConfig) -> LearnerSizes:
    """What a learner of this model and configuration needs; UsageError when there can be none."""
    ffi, lib = model.core
    c_config = ffi.new("fl_learner_config_t *")
    config.fill(c_config)
    sizes = ffi.new("fl_learner_sizes_t *")
    code = lib.fl_learner_sizes(model.handle, c_config, sizes)
    if code != 0:
        _refuse(code)
    result: LearnerSizes = _copy_fields(LearnerSizes, sizes)
    return result


def _refuse(code: int) -> None:
    _, lib = core()
    hints = {
        lib.FL_ENOENT: "the image names no trainable layers: compile it with some",
        lib.FL_ENOTSUP: "the way back to a trainable layer cannot be walked: train fewer layers",
        lib.FL_EINVAL: f"a setting is out of range, or never trains or never skips; {SETTINGS}",
    }
    refuse(code, "learner", hints.get(code, "compile the model again"), UsageError)


class Learner:
    """Learns on a model, which runs with the learned weights from then on.

    One learner at a time has a model; making another one takes it over, and `close()` gives the
    model its factory weights back.
    """

    def __init__(self, model: Model, config: LearnerConfig | None = None) -> None:
        self._ffi, self._lib = model.core
        self.model = model
        self.config = config or LearnerConfig()
        self.sizes = learner_sizes(model, self.config)
        self._config = self._ffi.new("fl_learner_config_t *")
        self.config.fill(self._config)
        self._block = aligned_bytes(self.sizes.total_bytes)
        self._learner = self._ffi.new("fl_learner_t *")
        self._step = self._ffi.new("fl_step_t *")
        model.bind("LEARN")
        self._start()

    def _start(self) -> None:
        check_float_mode()
        code = self._lib.fl_learner_init(
            self._learner,
            self.model.handle,
            self._config,
            pointer(self._block),
            len(self._block),
        )
        if code != 0:
            _refuse(code)
        self.model.owner = self  # keeps the weights alive as long as the model runs with them

    @classmethod
    def of_state(cls, model: Model, state: bytes) -> Learner:
        """A learner that holds this state, with the layers and the memory it was made with."""
        what = f"learned state of {len(state)} bytes"
        if len(state) < _STATE.size or state[:4] != b"FLS1":
            raise FieldloopError(f"{what}: expected one from fieldloop pull or learn, got another")
        _, version, layers, size, memory, uid = _STATE.unpack_from(state)
        if version != 1:
            raise VersionError(f"{what}: expected version 1, got {version}; update fieldloop")
        if size != len(state) or memory > size:
            raise FieldloopError(f"{what} is damaged; pull it from the device again")
        if uid.hex() != model.uid:
            raise UsageError(
                f"{what}: expected one of model {model.uid[:8]}, got one of model "
                f"{uid.hex()[:8]}; name the model it was learned with"
            )
        learner = cls(model, LearnerConfig(layers=layers, memory=memory))
        learner.load(state)
        return learner

    @property
    def classes(self) -> int:
        """Entries of the logits."""
        return int(self._learner.classes)

    def step(self, x: npt.NDArray[Any], y: int) -> Step:
        """Learns one labelled sample, remembers it, and replays old ones."""
        return self._learn(self._lib.fl_learner_step, x, [y])[0]

    def train(self, x: npt.NDArray[Any], y: int) -> Step:
        """Learns one labelled sample, nothing else."""
        return self._learn(self._lib.fl_learner_train, x, [y])[0]

    def run(self, xs: npt.NDArray[Any], ys: Iterable[int]) -> list[Step]:
        """`step` for each sample of a stream, in order."""
        return self._learn(self._lib.fl_learner_step, xs, ys)

    @property
    def stats(self) -> LearnerStats:
        """The counters now."""
        stats: LearnerStats = _copy_fields(LearnerStats, self._lib.fl_learner_stats(self._learner))
        return stats

    @property
    def state(self) -> bytes:
        """Everything that was learned: the bytes that the device's store keeps."""
        place = self._lib.fl_learner_state(self._learner)
        return bytes(self._ffi.buffer(place, self.sizes.state_bytes))

    def load(self, state: bytes) -> None:
        """Takes over a state of the same model and configuration; on an error nothing changes."""
        code = self._lib.fl_learner_load(self._learner, self._ffi.from_buffer(state), len(state))
        if code == self._lib.FL_EINVAL:
            raise UsageError(
                "learned state: expected one of this model with the same trained layers and "
                "memory, got another; open the learner with the settings it was made with"
            )
        if code != 0:
            refuse(code, f"learned state of {len(state)} bytes", "pull it from the device again")

    def reset(self) -> None:
        """Back to the factory weights, an empty memory and zero counters."""
        self._lib.fl_learner_reset(self._learner)

    def weights(self) -> dict[int, tuple[npt.NDArray[np.int8], npt.NDArray[np.int32] | None]]:
        """Copies of the trained weights [rows, ...] and biases, by operator of the model."""
        result = {}
        for i in range(self._learner.layer_count):
            layer = self._learner.layers[i]
            w = np.frombuffer(self._ffi.buffer(layer.w, layer.rows * layer.row_bytes), np.int8)
            b = None
            if layer.b != self._ffi.NULL:
                b = np.frombuffer(self._ffi.buffer(layer.b, 4 * layer.rows), np.int32).copy()
            result[int(layer.op)] = (w.copy(), b)
        return result

    def close(self) -> None:
        """Gives the model its factory weights back."""
        if self.model.owner is self:
            self.model.handle.overrides = self._ffi.NULL
            self.model.handle.override_count = 0
            self.model.owner = None

    def watermark(self, xs: npt.NDArray[Any], ys: Iterable[int]) -> tuple[int, int]:
        """Bytes that learning a stream from the start really touches. Ends in a reset.

        Of the model's arena, as planned `model.arena_bytes`, and of the learner's own block, as
        planned `sizes.total_bytes`.
        """
        labels = list(ys)

        def run() -> None:
            self._start()
            self.run(xs, labels)

        touched = self.model.touched(run), touched_bytes(self._block, run)
        self._start()
        return touched

    def _learn(self, call: Any, xs: npt.NDArray[Any], ys: Iterable[int]) -> list[Step]:
        if self.model.owner is not self:
            raise UsageError(
                "learner: another learner has taken the model, or this one was closed; "
                "open a new one"
            )
        check_float_mode()
        samples = self.model.as_inputs(xs)
        labels = [int(y) for y in ys]
        if len(labels) != len(samples):
            raise UsageError(
                f"learner: expected a label for each of {len(samples)} samples, got {len(labels)}"
            )
        steps = []
        for sample, label in zip(samples, labels, strict=True):
            if not 0 <= label < self.classes:
                raise UsageError(f"label: expected 0..{self.classes - 1}, got {label}")
            code = call(self._learner, pointer(sample, "int8_t *"), label, self._step)
            if code != 0:
                refuse(code, "learning a sample", "report this: an opened learner learns")
            s = self._step
            steps.append(Step(float(s.error), int(s.predicted), bool(s.trained), int(s.kept)))
        return steps
