"""A learner on the host: the device's training, to the byte, from the same seed."""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldloop.errors import FieldloopError, UsageError, VersionError
from fieldloop.runtime.core import core
from fieldloop.runtime.learner_config import (
    SETTINGS,
    LearnerConfig,
    Optimizer,
    Weights,
    check,
)
from fieldloop.runtime.learner_facts import (
    Fit,
    LayerStats,
    LearnerPlan,
    LearnerSizes,
    LearnerStats,
    Step,
    copy_fields,
)
from fieldloop.runtime.model import (
    Int8,
    Model,
    aligned_bytes,
    check_float_mode,
    pointer,
    refuse,
    touched_bytes,
)

_STATE = struct.Struct("<4sHHII16s5IBB")  # the beginning of a state, see DESIGN.md
_VERSION = 2
_WEIGHTS: tuple[Weights, ...] = ("int8", "int16", "f32")  # by their numbers in a state
_OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "momentum", "adam")
_NOT_RUN = Step(float("nan"), -1, False, 0)


def learner_sizes(model: Model, config: LearnerConfig) -> LearnerSizes:
    """What a learner of this model and configuration needs; UsageError when there can be none."""
    ffi, lib = model.core
    c_config = ffi.new("fl_learner_config_t *")
    config.fill(c_config)
    check(c_config)
    sizes = ffi.new("fl_learner_sizes_t *")
    code = lib.fl_learner_sizes(model.handle, c_config, sizes)
    if code != 0:
        _refuse(code)
    result: LearnerSizes = copy_fields(LearnerSizes, sizes)
    return result


def _refuse(code: int) -> None:
    _, lib = core()
    hints = {
        lib.FL_ENOENT: "the image names no trainable layers: compile it with some",
        lib.FL_ENOTSUP: "the way back to a trainable layer cannot be walked: train fewer layers",
        lib.FL_EINVAL: f"the image has fewer trainable layers, or it is too large; {SETTINGS}",
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
        _, version, layers, size, memory, uid, _, maxima, *_, weights, optimizer = (
            _STATE.unpack_from(state)
        )
        if version != _VERSION:
            raise VersionError(
                f"{what}: expected version {_VERSION}, got {version}; update fieldloop, or the "
                "device that it is from"
            )
        damaged = FieldloopError(f"{what} is damaged; pull it from the device again")
        if size != len(state) or memory > size:
            raise damaged
        if weights >= len(_WEIGHTS) or optimizer >= len(_OPTIMIZERS):
            raise damaged
        if uid.hex() != model.uid:
            raise UsageError(
                f"{what}: expected one of model {model.uid[:8]}, got one of model "
                f"{uid.hex()[:8]}; name the model it was learned with"
            )
        config = LearnerConfig(
            layers=layers,
            memory=memory,
            weights=_WEIGHTS[weights],
            optimizer=_OPTIMIZERS[optimizer],
        )
        learner = cls(model, config)
        if maxima == learner._learner.y_max_count + 1:  # the largest loss is one of them
            learner = cls(model, replace(config, selector="loss"))
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

    def fit(
        self,
        xs: npt.NDArray[Any],
        ys: Iterable[int],
        *,
        epochs: int = 1,
        patience: int | None = None,
    ) -> Fit:
        """`run` for some epochs, with an evaluation after each (see `evaluate`).

        `patience`: so many evaluations without a better one end it. What is kept in the end is the
        state of the best evaluation, the first of equal ones, whatever came after it.
        """
        if epochs < 1 or (patience is not None and patience < 1):
            raise UsageError(
                f"fit: expected 1 or more epochs and a patience of 1 or more, got {epochs} and "
                f"{patience}"
            )
        labels = list(ys)
        seen: list[int] = []
        best, kept = 0, b""
        _, total = self.evaluate()  # refuses before the first step what it would after the last
        for _ in range(epochs):
            self.run(xs, labels)
            self.flush()
            right, _ = self.evaluate()
            seen.append(right)
            if len(seen) == 1 or right > seen[best]:
                best, kept = len(seen) - 1, self.state
            elif patience is not None and len(seen) - 1 - best >= patience:
                break
        if best != len(seen) - 1:
            self.load(kept)
        return Fit(tuple(seen), total, best, len(seen) < epochs)

    def flush(self) -> None:
        """Writes what a batch has gathered so far; nothing where there is nothing."""
        self._check_owner()
        self._lib.fl_learner_flush(self._learner)

    def evaluate(self) -> tuple[int, int]:
        """Right ones of how many samples of the image's rehearsal set: those that are held out
        (`holdout`), or all of it. Counts nothing and changes no weight.
        """
        self._check_owner()
        check_float_mode()
        right, total = self._ffi.new("uint32_t *"), self._ffi.new("uint32_t *")
        code = self._lib.fl_learner_evaluate(self._learner, right, total)
        if code != 0:
            refuse(code, "evaluating", "report this: an opened learner evaluates")
        if total[0] == 0:
            raise UsageError(
                "learner: there is nothing to evaluate on; compile the model with more rehearsal "
                "samples, or hold out more often"
            )
        return int(right[0]), int(total[0])

    def quantize(self, x: npt.NDArray[Any]) -> Int8 | None:
        """One real-valued sample in the model's own quantisation; None where a value is NaN or
        infinite. Counts it as `clamped` or `refused` where it is.
        """
        samples = self._as_floats(x)
        if len(samples) != 1:
            raise UsageError(f"learner: expected one sample to quantise, got {len(samples)}")
        return self._quantize(samples[0])

    @property
    def plan(self) -> LearnerPlan:
        """RAM, in bytes."""
        sizes, arena = self.sizes, self.model.plan_bytes("LEARN")
        return LearnerPlan(
            arena=arena,
            state=sizes.state_bytes,
            weights=sizes.weight_bytes,
            optimizer=sizes.optimizer_bytes,
            memory=sizes.memory_bytes,
            scratch=sizes.scratch_bytes,
            lent=sizes.lent_bytes,
            batch=sizes.batch_bytes,
            total=arena + sizes.total_bytes,
        )

    def layer_stats(self) -> tuple[LayerStats, ...]:
        """The counters of each trained layer now, from the output backwards."""
        found = []
        for i in range(self._learner.layer_count):
            layer = self._learner.layers[i]
            counted = self._lib.fl_learner_layer_stats(self._learner, i)
            found.append(
                LayerStats(
                    op=int(layer.op),
                    entries=int(counted.entries),
                    kept=int(counted.kept),
                    clipped=int(counted.clipped),
                    saturated=int(self._lib.fl_learner_saturated(self._learner, i)),
                    weights=int(layer.rows * layer.row_bytes),
                )
            )
        return tuple(found)

    @property
    def stats(self) -> LearnerStats:
        """The counters now."""
        stats: LearnerStats = copy_fields(LearnerStats, self._lib.fl_learner_stats(self._learner))
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
        self._check_owner()
        labels = list(ys)

        def run() -> None:
            self._start()
            self.run(xs, labels)

        touched = self.model.touched(run), touched_bytes(self._block, run)
        self._start()
        return touched

    def _check_owner(self) -> None:
        if self.model.owner is not self:
            raise UsageError(
                "learner: another learner has taken the model, or this one was closed; "
                "open a new one"
            )

    def _as_floats(self, xs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        with np.errstate(over="ignore"):  # what is infinite in float32 is refused
            return np.ascontiguousarray(self.model.as_samples(xs), np.float32)

    def _quantize(self, sample: npt.NDArray[np.float32]) -> Int8 | None:
        q = np.empty(sample.size, np.int8)
        code = self._lib.fl_learner_quantize(
            self._learner, pointer(sample, "float *"), pointer(q, "int8_t *")
        )
        if code not in (0, self._lib.FL_EDOM):
            refuse(code, "quantising a sample", "report this: an opened learner quantises")
        return q if code == 0 else None

    def _label(self, y: Any) -> int:
        try:
            label = operator.index(y)
        except TypeError:  # 1.5 is no class
            label = -1
        if not 0 <= label < self.classes:
            raise UsageError(f"label: expected 0..{self.classes - 1}, got {y}")
        return label

    def _learn(self, call: Any, xs: npt.NDArray[Any], ys: Iterable[int]) -> list[Step]:
        self._check_owner()
        check_float_mode()
        is_real = np.asarray(xs).dtype.kind == "f"
        samples = self._as_floats(xs) if is_real else self.model.as_inputs(xs)
        labels = [self._label(y) for y in ys]  # all, so that a refused call changed nothing
        if len(labels) != len(samples):
            raise UsageError(
                f"learner: expected a label for each of {len(samples)} samples, got {len(labels)}"
            )
        steps = []
        for sample, label in zip(samples, labels, strict=True):
            q = self._quantize(sample) if is_real else sample
            if q is None:
                steps.append(_NOT_RUN)
                continue
            code = call(self._learner, pointer(q, "int8_t *"), label, self._step)
            if code != 0:
                refuse(code, "learning a sample", "report this: an opened learner learns")
            s = self._step
            steps.append(Step(float(s.error), int(s.predicted), bool(s.trained), int(s.kept)))
        return steps
