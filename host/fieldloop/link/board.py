"""A device behind a link, as typed calls: what `fieldloop.connect()` hands out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fieldloop.errors import FieldloopError, UsageError
from fieldloop.link.client import INFO, Client, Fields
from fieldloop.link.errors import CodecError, LinkError
from fieldloop.link.jobs import JOB, Job, Watcher
from fieldloop.link.replies import (
    BoardInfo,
    JobStatus,
    LayerStats,
    Memory,
    ModelInfo,
    Reply,
    ReplyFields,
    StepStats,
    board_info,
    instructions,
    layer_stats,
    model_info,
    numbers,
    step_stats,
    text_keys,
)
from fieldloop.link.samples import as_labels, as_samples
from fieldloop.link.transport import Port, StreamTransport, TextSink, open_port

PUSH, ACTIVATE, PREDICT, LEARNER_OPEN, STEP, COMMIT, UNDO = range(2, 9)
RESET, RESTORE, STATS, PULL, MEM = range(9, 14)
COUNT = JOB + 1

Int8 = npt.NDArray[np.int8]
Progress = Callable[[int, int], None]  # bytes done, bytes in all
Setting = bool | int | float | str | Sequence[float]

_OVERHEAD = 72  # of a message with samples: header, keys, session, counter, crc
_SLOW = 60.0  # seconds: erasing, verifying and learning take their time under simulation


class Board:
    """A connected device; a context manager.

    Text that the device prints on a shared port goes to the sink given to `connect()`.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._model: ModelInfo | None = None

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.client.close()

    # ---- asking

    def connect(self, timeout: float = 5.0) -> BoardInfo:
        """Says hello and checks versions; called by `connect()` below."""
        return self._board_info(self.client.connect(timeout))

    def info(self) -> BoardInfo:
        return self._board_info(self.client.read(INFO, {}, what="info"))

    def _board_info(self, reply: Reply) -> BoardInfo:
        info = board_info(reply)
        self._model = info.model
        return info

    def model(self) -> ModelInfo:
        """The active model; asked once, then known."""
        if self._model is None:
            self.info()
        if self._model is None:
            raise UsageError("no model is active on the device; push one first (fieldloop push)")
        return self._model

    def memory(self) -> Memory:
        f = ReplyFields("mem", self.client.read(MEM, {}, what="mem"))
        return Memory(f.integer("arena"), f.integer("used"), f.integer("free"))

    def paint(self, value: int) -> None:
        """Fills the arena with a byte; `memory()` then tells the highest one that changed."""
        if not 0 <= value <= 255:
            raise UsageError(f"paint: expected a byte, 0 to 255, got {value}")
        self.client.write(MEM, {"paint": value}, what="paint the arena")

    # ---- models

    def push(self, image: bytes, *, to: str, progress: Progress | None = None) -> None:
        """Sends an image to a slot or a path (absolute); goes on where an earlier push stopped."""
        if to == "" or to.endswith("/"):
            raise UsageError(f"push: a slot or the path of a file expected, got {to!r}")
        sha = hashlib.sha256(image).digest()
        what = f"push to {to}"
        off, match = 0, False
        stalls = 0
        while not match:
            at = off

            def chunk(at: int = at) -> Fields:
                fields: Fields = {"to": to, "off": at}
                if at == 0:
                    fields |= {"len": len(image), "sha": sha}
                room = self.client.message_limit - _OVERHEAD - len(to) - (48 if at == 0 else 0)
                fields["data"] = image[at : at + max(room, 32)]
                return fields

            reply = self.client.write(PUSH, chunk, what=what, timeout=_SLOW)
            off = ReplyFields(what, reply).integer("off")
            if not 0 <= off <= len(image):
                raise CodecError(f"{what}: offset 0 to {len(image)} expected, got {off}")
            if progress is not None:
                progress(off, len(image))
            if off == len(image):
                if reply.get("match") is not True:
                    raise LinkError(
                        f"{what}: the SHA-256 of what the device stored differs; push again"
                    )
                match = True
            # An offset that goes back is honoured (the device lost its place), but not for ever.
            stalls = stalls + 1 if off <= at else 0
            if stalls > 8:
                raise LinkError(
                    f"{what}: the device stays at offset {off} of {len(image)}; push again"
                )

    def activate(self, image: bytes, *, slot: str) -> ModelInfo:
        """Makes a pushed image the active model, if its SHA-256 matches."""
        sha = hashlib.sha256(image).digest()
        what = f"activate {slot}"
        reply = self.client.write(ACTIVATE, {"slot": slot, "sha": sha}, what=what, timeout=_SLOW)
        self._model = model_info(what, reply)
        return self._model

    def predict(self, x: npt.ArrayLike, *, progress: Progress | None = None) -> Int8:
        """int8 outputs [samples, classes...] of samples [n, ...] or of one, int8 or real."""
        model = self.model()
        samples = as_samples(x, model)
        out = np.empty((len(samples), model.output_bytes), np.int8)
        done = 0
        while done < len(samples):
            at = done

            def block(at: int = at) -> Fields:
                k = self._batch(len(samples) - at, max(model.input_bytes, model.output_bytes))
                return {"x": samples[at : at + k].tobytes()}

            reply = self.client.read(PREDICT, block, what="predict", timeout=_SLOW)
            y = ReplyFields("predict", reply).data("y")
            k, odd = divmod(len(y), model.output_bytes)
            if not 0 < k <= len(samples) - at or odd != 0:
                raise CodecError(
                    f"predict: outputs of {model.output_bytes} bytes expected, got {len(y)} bytes"
                )
            done = at + k
            out[at:done] = np.frombuffer(y, np.int8).reshape(k, model.output_bytes)
            if progress is not None:
                progress(done, len(samples))
        return out.reshape(len(samples), *model.output_shape[1:])

    def _batch(self, left: int, sample_bytes: int) -> int:
        return max(1, min(left, (self.client.message_limit - _OVERHEAD) // sample_bytes))

    # ---- learning

    def learner_open(self, settings: Mapping[str, Setting] | None = None) -> int:
        """Opens the learner; returns the bytes planned for learning. Keys: SPEC-link.md."""
        fields: Fields = {"cfg": dict(settings or {})}
        what = "open the learner"
        reply = self.client.write(LEARNER_OPEN, fields, what=what, timeout=_SLOW)
        return ReplyFields(what, reply).integer("bytes")

    def step(self, x: npt.ArrayLike, labels: npt.ArrayLike) -> StepStats:
        """Learns samples, int8 or real, one after another, in order; sums over all of them."""
        model = self.model()
        samples = as_samples(x, model)
        y = as_labels(labels, len(samples), model.output_bytes)
        total = StepStats(0, 0, 0.0, 0, 0)
        while total.samples < len(samples):
            at = total.samples

            def batch(at: int = at) -> Fields:
                k = self._batch(len(samples) - at, model.input_bytes + 1)
                return {"x": samples[at : at + k].tobytes(), "y": y[at : at + k].tobytes()}

            part = step_stats("step", self.client.write(STEP, batch, what="step", timeout=_SLOW))
            if not 0 < part.samples <= len(samples) - at:
                raise CodecError(f"step: some samples learned expected, got {part.samples}")
            total = StepStats(
                at + part.samples,
                total.hits + part.hits,
                total.loss_sum + part.loss_sum,
                total.trained + part.trained,
                total.backward_macs + part.backward_macs,
            )
        return total

    def _record(self, cmd: int, what: str) -> int:
        return ReplyFields(what, self.client.write(cmd, {}, what=what, timeout=_SLOW)).integer(
            "seq"
        )

    def commit(self) -> int:
        """Stores what was learned; returns the record's number."""
        return self._record(COMMIT, "commit")

    def undo(self) -> int:
        """Back to the commit before the last one."""
        return self._record(UNDO, "undo")

    def reset(self) -> int:
        """Back to the factory weights."""
        return self._record(RESET, "reset the learner")

    def restore(self) -> int:
        """Back to the last commit."""
        return self._record(RESTORE, "restore")

    def stats(self) -> dict[str, int | float]:
        """The learner's counters."""
        return numbers(self.client.read(STATS, {}, what="stats"))

    def layer_stats(self) -> tuple[LayerStats, ...]:
        """The same for each trained layer, from the output backwards."""
        return layer_stats(self.client.read(STATS, {"layers": True}, what="stats"))

    def learner_plan(self) -> dict[str, int]:
        """Bytes of RAM for learning: `total` holds the model's arena and the learner's block."""
        plan = text_keys(self.client.read(MEM, {}, what="mem").get("plan"))
        if plan is None:
            raise UsageError("no learner is open on the device; open it first")
        return {name: size for name, size in plan.items() if isinstance(size, int)}

    def pull(self, kind: str = "state", progress: Progress | None = None) -> bytes:
        """Fetches "state" (the newest commit) or "image" whole; checked by SHA-256."""
        what = f"pull the {kind}"
        for _ in range(3):  # it may change while it is fetched
            data, sha = self._pull_once(kind, what, progress)
            if hashlib.sha256(data).digest() == sha:
                return data
        raise LinkError(f"{what}: it changed while it was fetched, three times; pull again")

    def _pull_once(self, kind: str, what: str, progress: Progress | None) -> tuple[bytes, bytes]:
        data = bytearray()
        sha, total = b"", 1
        while len(data) < total:
            fields: Fields = {"kind": kind, "off": len(data)}
            fields["max"] = max(
                self.client.message_limit - _OVERHEAD - (48 if not data else 0), 32
            )
            f = ReplyFields(what, self.client.read(PULL, fields, what=what, timeout=_SLOW))
            piece = f.data("data")
            total = f.integer("len")
            if not data:
                sha = f.data("sha")
            if f.integer("off") != len(data) or len(data) + len(piece) > total or not piece:
                break  # it is another one by now; the SHA-256 tells
            data += piece
            if progress is not None:
                progress(len(data), total)
        return bytes(data), sha

    # ---- long work and measuring

    def train(
        self,
        steps: int,
        *,
        every: int = 0,
        patience: int = 0,
        commit: bool = False,
        watch: Watcher | None = None,
    ) -> JobStatus:
        """`train_job`, watched to its end: `Job.wait` says what `watch` and Ctrl-C do."""
        return self.train_job(steps, every=every, patience=patience, commit=commit).wait(watch)

    def train_job(
        self, steps: int, *, every: int = 0, patience: int = 0, commit: bool = False
    ) -> Job:
        """Starts training on the samples that travel with the model and are not held out.

        every: evaluates on the held-out ones before the first step and after so many.
        patience: ends after so many evaluations in a row without a new best, with the best state.
        commit: the device commits at the end, whether or not the host is there.
        """
        fields: Fields = {"do": "train", "of": steps, "every": every, "patience": patience}
        return Job.start(self.client, fields | {"commit": commit})

    def evaluate(self, watch: Watcher | None = None) -> tuple[int, int]:
        """(right, total) of the samples that the learner holds out; of all when it holds none."""
        status = Job.start(self.client, {"do": "evaluate"}).wait(watch)
        return status.right, status.total

    def job(self, number: int) -> Job:
        """A job that was started before, by whomever."""
        return Job(self.client, number)

    def job_start(self, do: str, of: int) -> int:
        """Starts "train", "evaluate" or "selftest" of so many pieces; returns the job's id."""
        return Job.start(self.client, {"do": do, "of": of}).number

    def job_status(self, job: int) -> JobStatus:
        return self.job(job).status()

    def job_cancel(self, job: int) -> None:
        self.job(job).cancel()

    def count_predict(self, x: npt.ArrayLike) -> int | None:
        """Executed instructions of one predict; None where the board cannot count."""
        (sample,) = self._one(x)
        reply = self.client.read(COUNT, {"x": sample.tobytes()}, what="count", timeout=_SLOW)
        return instructions(reply)

    def count_step(self, x: npt.ArrayLike, label: int) -> tuple[StepStats, int | None]:
        """Learns one sample and counts the executed instructions."""
        (sample,) = self._one(x)
        if not 0 <= label <= 255:
            raise UsageError(f"label 0 to 255 expected, got {label}")
        fields: Fields = {"x": sample.tobytes(), "y": bytes((label,))}
        reply = self.client.write(COUNT, fields, what="count", timeout=_SLOW)
        return step_stats("count", reply), instructions(reply)

    def _one(self, x: npt.ArrayLike) -> Int8:
        samples = as_samples(x, self.model())
        if len(samples) != 1:
            raise UsageError(f"one sample expected, got {len(samples)}")
        return samples


def connect(
    port: str | Port,
    *,
    dedicated: bool,
    baudrate: int = 115200,
    text: TextSink | None = None,
    timeout: float = 5.0,
) -> Board:
    """Opens a port and says hello. DeviceError: no port or no answer. VersionError: newer device.

    dedicated: nobody else uses the port (raw framing, messages up to the device's buffer); else
    the console framing, and what the device prints goes to `text`.
    """
    line = open_port(port, baudrate) if isinstance(port, str) else port
    board = Board(Client(StreamTransport(line, dedicated=dedicated, text=text)))
    try:
        board.connect(timeout)
    except FieldloopError:
        board.close()
        raise
    return board
