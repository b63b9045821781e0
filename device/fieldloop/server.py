"""Server: answers a host over SMP. docs/SPEC-link.md is the protocol.

Framing, checks and sessions are done by _fieldloop.Link; what arrives here is a request to carry
out, and commands.py does that.
"""

import gc
import os
import sys

import _fieldloop

from fieldloop import commands, files
from fieldloop.errors import EBUSY, EINVAL, EIO, ENOENT, ENOMEM, ENOSPC, KNOWN, Refuse
from fieldloop.learner import STATE, resume
from fieldloop.push import Push


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

                if sys.platform == "zephyr":
                    stream = "uart%d" % stream  # the devicetree's name for it
                # A console frame is 3/8 longer than its message. Zephyr's drivers may hand over
                # all of one at once; elsewhere the server keeps up with the line.
                ring = buf + buf // 2 if sys.platform == "zephyr" else buf
                stream = UART(stream, 115200, rxbuf=max(ring, 1024))
            tx = stream
        if storage is None:
            from fieldloop.storage import Storage

            storage = Storage()
        self.link = _fieldloop.Link(
            stream, tx, dedicated=dedicated, buf=buf, group=group, boot=_random(), text=text
        )
        self.tx = tx
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
        if self.job is not None and self.job.state == "running":
            wait_ms = 0
        asked = self.link.poll(wait_ms)
        if asked:
            self._answer()
            if self.gone:
                import machine

                if hasattr(self.tx, "flush"):
                    self.tx.flush()  # the reply may still wait in the UART's own buffer
                machine.reset()
        if self.job is not None:  # also after an answer: a busy host must not keep it waiting
            self.job.advance()
        return asked

    # ---- one request

    def _answer(self):
        link = self.link
        if link.group != self.group:
            files.answer(self)
            return
        try:
            handler = (commands.WRITE if link.write else commands.READ).get(link.command)
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
        except Exception as e:  # a request of a shape nobody thought of must not end the server
            link.fail(EINVAL, "%s: %s" % (type(e).__name__, e))
        else:
            link.reply(reply)

    # ---- models

    def open_active(self):
        found = self.storage.open()
        if found is not None:
            self._use(*found)

    def _use(self, model, active):
        self.close()
        self.model = model
        self.slot = active
        self.fault = None
        store = self.storage.store
        why = "the settings it was learned with are not stored"
        try:
            self.learner = resume(model, store)
        except (MemoryError, OSError, ValueError) as e:
            why = str(e)
        newest = store.find(STATE, model.uid) if self.learner is None else None
        if newest is not None and newest[3]:
            self.fault = "what was learned is stored but not in use: " + why

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

    def need_no_job(self, but_paused=False):
        """Nothing may change under a job; a paused one can at least be committed."""
        job = self.job
        if job is None or not job.active() or (but_paused and job.state == "paused"):
            return
        raise Refuse(EBUSY, "job %d is %s; wait for it or cancel it" % (job.id, job.state))

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
