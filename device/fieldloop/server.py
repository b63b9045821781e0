"""Server: answers a host over SMP. docs/SPEC-link.md is the protocol.

Framing, checks and sessions are done by _fieldloop.Link; what arrives here is a request to carry out.
"""

import gc
import os
import sys

import _fieldloop

from fieldloop import jobs
from fieldloop.learner import STATE, Learner, resume
from fieldloop.push import Push

ENOENT = -2
EIO = -5
ENOMEM = -12
EBUSY = -16
EINVAL = -22
ENOSPC = -28
EBADMSG = -74
KNOWN = (2, 5, 11, 12, 16, 22, 28, 74, 95, 1001)
OVERHEAD = 128  # of a reply that carries data: header, keys, hash, crc


class Refuse(Exception):
    """A command that fails: minus an errno, what the host is told, and more pairs of the reply."""

    def __init__(self, code, text, more=None):
        super().__init__(text)
        self.code = code
        self.text = text
        self.more = more


class Server:
    """stream: None for the console, the number of a UART, or any stream. `poll()` answers at most
    one request; `run()` does so for ever. `model` and `learner` are what the host works with; they
    may be None."""

    def __init__(self, stream=None, storage=None, buf=4096, group=70, text=None):
        dedicated = stream is not None
        if stream is None:
            stream = getattr(sys.stdin, "buffer", sys.stdin)
            tx = getattr(sys.stdout, "buffer", sys.stdout)
        else:
            if isinstance(stream, int):
                from machine import UART

                stream = UART(stream, 115200, rxbuf=max(buf, 1024))
            tx = stream
        if storage is None:
            from fieldloop.storage import Storage

            storage = Storage()
        self.link = _fieldloop.Link(
            stream, tx, dedicated=dedicated, buf=buf, group=group, boot=_random(), text=text
        )
        self.group = group
        self.storage = storage
        self.model = None
        self.learner = None
        self.slot = None  # of the active model: name, bytes, sha256, uid
        self.fault = None  # why the active model or its learned state could not be used
        self.push = Push(self)
        self.job = None
        self.jobs = 0
        self.paint = None
        self.gone = False  # a reset was asked for and answered
        try:
            self.open_active()
        except (OSError, ValueError, MemoryError) as e:
            self.fault = str(e)

    def run(self):
        while True:
            self.poll(-1)

    def poll(self, wait_ms=0):
        """Answer at most one request, waiting for it so long at most; a job goes on meanwhile."""
        job = self.job
        if job is not None and job.state == "running":
            wait_ms = 0
        if not self.link.poll(wait_ms):
            if job is not None:
                job.advance()
            return False
        self._answer()
        if self.gone:
            import machine

            machine.reset()
        return True

    # ---- one request

    def _answer(self):
        link = self.link
        try:
            if link.group != self.group:
                handler = OS_WRITE if link.write else OS_READ
            else:
                handler = WRITE if link.write else READ
            handler = handler.get(link.command)
            if handler is None:
                link.refuse(8)
                return
            reply = handler(self, link.body())
        except Refuse as e:
            link.fail(e.code, e.text, e.more)
        except KeyError as e:
            link.fail(EINVAL, "the request lacks `%s`" % e.args[0])
        except MemoryError as e:
            gc.collect()
            link.fail(ENOMEM, str(e), _need_and_have(str(e)))
        except OSError as e:
            code = -e.errno if e.errno in KNOWN else EIO
            text = str(e.args[1]) if len(e.args) > 1 else str(e)
            link.fail(code, text, _need_and_have(text) if code == ENOSPC else None)
        except (ValueError, TypeError) as e:
            link.fail(EINVAL, str(e))
        else:
            link.reply(reply)

    # ---- models

    def open_active(self):
        active = self.storage.active()
        if active is None:
            return
        slot = self.storage.slot(active[0])
        if slot is None:
            raise ValueError("the active model's slot %s is gone" % active[0])
        model = _fieldloop.Model(slot.image(active[1]))
        if model.uid != active[3]:
            raise ValueError("slot %s holds another model than the active one" % active[0])
        self.storage.keep(active[3])
        self._use(model, active)

    def _use(self, model, active):
        self.close()
        self.model = model
        self.slot = active
        self.fault = None
        try:
            self.learner = resume(model, self.storage.store)
        except MemoryError as e:
            self.fault = "what was learned is stored but not in use: " + str(e)

    def close(self):
        """Let go of the model and the learner; what is in slots and store stays."""
        if self.learner is not None:
            self.learner.deinit()
        if self.model is not None:
            self.model.deinit()
        self.model = self.learner = self.slot = self.job = self.paint = None

    def need_model(self):
        if self.model is None:
            raise Refuse(ENOENT, self.fault or "no model is active; push one and activate it")
        return self.model

    def need_learner(self):
        self.need_model()
        if self.learner is None:
            raise Refuse(ENOENT, "no learner is open; open it first")
        return self.learner

    def need_no_job(self):
        if self.job is not None and self.job.state == "running":
            raise Refuse(EBUSY, "job %d is running; wait for it or cancel it" % self.job.id)

    def model_map(self):
        model, slot = self.model, self.slot
        return {
            "slot": slot[0],
            "sha": slot[2],
            "len": slot[1],
            "in": model.input_shape,
            "out": model.output_shape,
            "in_q": (model.input_scale, model.input_zero_point),
            "out_q": (model.output_scale, model.output_zero_point),
            "learn": model.trainable > 0,
        }

    def samples(self, x):
        """How many samples the bytes are; none is a mistake."""
        size = self.need_model().input_bytes
        count = len(x) // size
        if count == 0 or count * size != len(x):
            raise Refuse(
                EINVAL, "x: expected samples of %d bytes each, got %d bytes" % (size, len(x))
            )
        return count, size

    # ---- commands

    def info(self, _):
        link = self.link
        gc.collect()
        reply = {
            "proto": _fieldloop.protocol,
            "ver": ".".join([str(n) for n in _fieldloop.version]),
            "board": getattr(sys.implementation, "_machine", sys.platform),
            "mpy": ".".join([str(n) for n in sys.implementation[1][:3]]),
            "boot": link.boot,
            "s": link.session,
            "n": link.calls,
            "buf": link.buf,
            "slots": {name: slot.size for name, slot in self.storage.slots.items()},
            "model": None if self.model is None else self.model_map(),
            "learner": self.learner is not None,
            "free": gc.mem_free() if hasattr(gc, "mem_free") else 0,
            "rx": (link.frames, link.bad, link.noise, 0),
        }
        if self.fault:
            reply["fault"] = self.fault
        return reply

    def write_push(self, body):
        self.need_no_job()
        return self.push.take(body)

    def activate(self, body):
        self.need_no_job()
        name, sha = body["slot"], bytes(body["sha"])
        slot = self.storage.slot(name)
        if slot is None:
            raise Refuse(ENOENT, "no slot %s" % name)
        length = self.push.image_bytes(slot)
        if length == 0 or slot.sha256(length) != sha:
            raise Refuse(EBADMSG, "the SHA-256 of slot %s is another; push again" % name)
        model = self._open_new(slot, length)
        active = (name, length, sha, model.uid)
        try:
            self.storage.activate(*active)
        except OSError:
            if self.model is None:  # it made way for the new one
                self.open_active()
            raise
        self._use(model, active)
        return self.model_map()

    def _open_new(self, slot, length):
        # First beside the old model, so that this stays when the new one is refused; where there is
        # no room for both, the old one makes way and comes back if the new one does not open.
        try:
            return _open(slot, length)
        except MemoryError:
            self.close()
            gc.collect()
        try:
            return _open(slot, length)
        except Exception:
            self.open_active()
            raise

    def predict(self, body):
        x = body["x"]
        count, size = self.samples(x)
        model = self.model
        out = model.output_bytes
        y = bytearray(count * out)
        to = memoryview(y)
        for i in range(count):
            model.predict(x[i * size : i * size + size], to[i * out : i * out + out])
        return {"y": y}

    def learner_open(self, body):
        self.need_no_job()
        model = self.need_model()
        if self.learner is not None:
            self.learner.deinit()
            self.learner = None
            gc.collect()
        self.learner = Learner(model, self.storage.store, **body["cfg"])
        self.paint = None
        return {
            "bytes": model.arena_bytes + self.learner.total_bytes,
            "seq": self.learner.seq,
            "restored": self.learner.restored,
        }

    def step(self, body):
        self.need_no_job()
        learner = self.need_learner()
        x, y = body["x"], body["y"]
        count, size = self.samples(x)
        if len(y) != count:
            raise Refuse(EINVAL, "y: expected %d labels, got %d" % (count, len(y)))
        classes = self.model.output_bytes
        for label in y:  # before the first step, so that a refused call changed nothing
            if label >= classes:
                raise Refuse(EINVAL, "label: expected 0..%d, got %d" % (classes - 1, label))
        core = learner.core
        before = core.stats()
        hit = 0
        loss = 0.0
        for i in range(count):
            hit += core.step(x[i * size : i * size + size], y[i]) == y[i]
            loss += core.error
        after = core.stats()
        return {
            "k": count,
            "hit": hit,
            "loss": loss,
            "trained": after["trained"] - before["trained"],
            "macs": after["backward_macs"] - before["backward_macs"],
        }

    def commit(self, _):
        self.need_no_job()
        learner = self.need_learner()
        return {"seq": learner.commit(), "bytes": learner.state_bytes}

    def undo(self, _):
        self.need_no_job()
        return {"seq": self.need_learner().undo()}

    def reset(self, _):
        self.need_no_job()
        return {"seq": self.need_learner().reset()}

    def restore(self, _):
        self.need_no_job()
        return {"seq": self.need_learner().restore()}

    def stats(self, _):
        return self.need_learner().stats()

    def pull(self, body):
        self.need_model()
        offset, most = body["off"], self.link.buf - OVERHEAD
        if "max" in body:
            most = min(most, body["max"])
        kind = body["kind"]
        slot = store = None
        if kind == "image":
            slot = self.storage.slot(self.slot[0])
            length = self.slot[1]
        elif kind == "state":
            store = self.storage.store
            record = store.find(STATE, self.model.uid)
            length = record[3] if record else 0
            if length == 0:
                raise Refuse(ENOENT, "nothing learned is committed")
        else:
            raise Refuse(EINVAL, "kind: expected state or image, got %s" % kind)
        if not 0 <= offset <= length or most < 1:
            raise Refuse(EINVAL, "off: expected 0..%d, got %d" % (length, offset))
        data = bytearray(min(most, length - offset))
        if slot is not None:
            slot.readinto(offset, data)
        else:
            store.read(STATE, self.model.uid, 0, data, offset)
        reply = {"off": offset, "data": data, "len": length}
        if offset == 0:
            if slot is not None:
                reply["sha"] = self.slot[2]
            else:
                reply["sha"] = store.sha256(STATE, self.model.uid)
        return reply

    def _arena(self):
        model = self.need_model()
        return model.arena_bytes + (0 if self.learner is None else self.learner.total_bytes)

    def mem(self, _):
        used = 0
        arena = self._arena()
        if self.paint is not None:
            used = self.model.touched(self.paint)
            if self.learner is not None:
                used += self.learner.touched(self.paint)
        gc.collect()
        return {
            "arena": arena,
            "used": used,
            "free": gc.mem_free() if hasattr(gc, "mem_free") else 0,
        }

    def write_mem(self, body):
        self.need_no_job()
        arena = self._arena()
        paint = body["paint"] & 255
        self.model.paint(paint)
        if self.learner is not None:
            state = bytes(self.learner.state())
            self.learner.core.paint(paint)
            self.learner.core.load(state)
        self.paint = paint
        return {"arena": arena}

    def read_job(self, body):
        job = self.job
        if job is None or job.id != body["job"]:
            raise Refuse(ENOENT, "no job %d since this model was opened" % body["job"])
        return job.status()

    def write_job(self, body):
        do = body["do"]
        if do == "cancel":
            if self.job is None or self.job.id != body["job"]:
                raise Refuse(ENOENT, "no job %d" % body["job"])
            self.job.cancel()
            return {"job": self.job.id}
        self.need_no_job()
        kind = jobs.KINDS.get(do)
        if kind is None:
            raise Refuse(EINVAL, "do: expected train, selftest or cancel, got %s" % do)
        model = self.need_model()
        learner = self.need_learner() if do == "train" else None
        if model.samples == 0:
            raise Refuse(ENOENT, "the image carries no samples to work on")
        self.jobs += 1
        self.job = kind(self.jobs, body["of"], model, learner)
        return {"job": self.jobs}

    def count(self, body):
        count, _ = self.samples(body["x"])
        if count != 1:
            raise Refuse(EINVAL, "x: expected one sample, got %d" % count)
        y = bytearray(self.model.output_bytes)
        instructions, _ = _counted(self.model.predict, body["x"], y)
        return {"y": y, "ins": instructions}

    def write_count(self, body):
        self.need_no_job()
        learner = self.need_learner()
        x, y = body["x"], body["y"]
        count, _ = self.samples(x)
        if count != 1 or len(y) != 1 or y[0] >= self.model.output_bytes:
            raise Refuse(
                EINVAL, "expected one sample and one label below %d" % self.model.output_bytes
            )
        before = learner.stats()
        instructions, predicted = _counted(learner.step, x, y[0])
        after = learner.stats()
        return {
            "k": 1,
            "hit": int(predicted == y[0]),
            "loss": learner.error,
            "trained": after["trained"] - before["trained"],
            "macs": after["backward_macs"] - before["backward_macs"],
            "ins": instructions,
        }

    # ---- SMP's own group

    def echo(self, body):
        return {"r": body["d"]}

    def parameters(self, _):
        return {"buf_size": self.link.buf, "buf_count": 1}

    def restart(self, _):
        self.gone = True
        return {}


READ = {
    0: Server.info,
    4: Server.predict,
    11: Server.stats,
    12: Server.pull,
    13: Server.mem,
    14: Server.read_job,
    15: Server.count,
}
WRITE = {
    2: Server.write_push,
    3: Server.activate,
    5: Server.learner_open,
    6: Server.step,
    7: Server.commit,
    8: Server.undo,
    9: Server.reset,
    10: Server.restore,
    13: Server.write_mem,
    14: Server.write_job,
    15: Server.write_count,
}
OS_READ = {0: Server.echo, 6: Server.parameters}
OS_WRITE = {0: Server.echo, 5: Server.restart}


def _open(slot, length):
    image = slot.image(length)
    error = _fieldloop.check(image)
    if error == EBADMSG:
        raise Refuse(EBADMSG, "slot %s holds no whole .flm image" % slot.name)
    if error != 0:
        try:
            _fieldloop.Model(image)
        except ValueError as e:
            raise Refuse(error, str(e))
    return _fieldloop.Model(image)


def _counted(function, *args):
    """(executed instructions or None, result)."""
    try:
        import simboard

        if simboard.icount:
            return simboard.count(function, *args)
    except ImportError:
        pass
    return None, function(*args)


def _need_and_have(text):
    """The first two numbers of "needs A bytes ..., B ..."; None when it tells no two."""
    numbers = [int(word) for word in text.replace(",", " ").split() if word.isdigit()]
    return {"need": numbers[0], "have": numbers[1]} if len(numbers) > 1 else None


def _random():
    """A number unlike that of the boot before."""
    if hasattr(os, "urandom"):
        return int.from_bytes(os.urandom(4), "little")
    import time

    return time.ticks_us() ^ id(time) * 2654435761
