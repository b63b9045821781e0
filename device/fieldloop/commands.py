"""The commands of the link, one function each: command(server, body) -> reply.

A request's byte strings are views into the receive buffer; what outlives the call is copied.
"""

import gc
import sys

import _fieldloop

from fieldloop import jobs
from fieldloop.errors import EBADMSG, EINVAL, ENOENT, ENOTSUP, Refuse
from fieldloop.learner import STATE, Learner, resume

OVERHEAD = 128  # of a reply that carries data: header, keys, hash, crc


def info(server, _):
    link = server.link
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
        "kern": _fieldloop.kernels(),
        "slots": {name: slot.size for name, slot in server.storage.slots.items()},
        "model": None if server.model is None else server.model_map(),
        "learner": server.learner is not None,
        "free": gc.mem_free() if hasattr(gc, "mem_free") else 0,
        "rx": (link.frames, link.bad, link.noise, 0),
    }
    if server.fault:
        reply["fault"] = server.fault
    if server.storage.note:
        reply["note"] = server.storage.note
    return reply


def push(server, body):
    server.need_no_job()
    return server.push.take(body)


def activate(server, body):
    server.need_no_job()
    name, sha = body["slot"], bytes(body["sha"])
    slot = server.storage.slot(name)
    if slot is None:
        raise Refuse(ENOENT, "no slot %s" % name)
    length = server.push.image_bytes(slot)
    if length == 0 or slot.sha256(length) != sha:
        raise Refuse(EBADMSG, "the SHA-256 of slot %s is another; push again" % name)
    model = _open_new(server, slot, length)
    active = (name, length, sha, model.uid)
    try:
        server.storage.activate(*active)
    except OSError:
        if server.model is None:  # it made way for the new one
            server.open_active()
        raise
    server._use(model, active)
    return server.model_map()


def _open_new(server, slot, length):
    # First beside the old model, so that this stays when the new one is refused; where there is
    # no room for both, the old one makes way and comes back if the new one does not open.
    try:
        return _open(slot, length)
    except MemoryError:
        server.close()
        gc.collect()
    try:
        return _open(slot, length)
    except Exception:
        server.open_active()
        raise


def predict(server, body):
    x = body["x"]
    count, size = server.samples(x)
    model = server.model
    out = model.output_bytes
    y = bytearray(count * out)
    to = memoryview(y)
    for i in range(count):
        model.predict(x[i * size : i * size + size], to[i * out : i * out + out])
    return {"y": y}


def learner_open(server, body):
    server.need_no_job()
    model = server.need_model()
    store = server.storage.store
    try:
        learner = Learner(model, store, **body["cfg"])  # closes the one before, if all is well
    except Exception:
        if server.learner is not None and server.learner.closed:
            server.learner = None
            gc.collect()
            server.learner = resume(model, store)  # the board goes on with its newest commit
        raise
    server.learner = learner
    server.paint = None
    return {
        "bytes": model.arena_bytes + server.learner.total_bytes,
        "seq": server.learner.seq,
        "restored": server.learner.restored,
    }


def step(server, body):
    server.need_no_job()
    learner = server.need_learner()
    x, y = body["x"], memoryview(body["y"])
    count, size = server.samples(x)
    if len(y) != count:
        raise Refuse(EINVAL, "y: expected %d labels, got %d" % (count, len(y)))
    classes = server.model.output_bytes
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


def commit(server, _):
    server.need_no_job(but_paused=True)
    learner = server.need_learner()
    return {"seq": learner.commit(), "bytes": learner.state_bytes}


def undo(server, _):
    server.need_no_job()
    return {"seq": server.need_learner().undo()}


def reset(server, _):
    server.need_no_job()
    return {"seq": server.need_learner().reset()}


def restore(server, _):
    server.need_no_job()
    return {"seq": server.need_learner().restore()}


def stats(server, body):
    learner = server.need_learner()
    reply = learner.stats()
    if body.get("layers", False):
        reply["layers"] = learner.layer_stats()
    return reply


def pull(server, body):
    server.need_model()
    offset, most = body["off"], server.link.buf - OVERHEAD
    if "max" in body:
        most = min(most, body["max"])
    kind = body["kind"]
    slot = store = None
    if kind == "image":
        slot = server.storage.slot(server.slot[0])
        length = server.slot[1]
    elif kind == "state":
        store = server.storage.store
        record = store.find(STATE, server.model.uid)
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
        store.read(STATE, server.model.uid, 0, data, offset)
    reply = {"off": offset, "data": data, "len": length}
    if offset == 0:
        if slot is not None:
            reply["sha"] = server.slot[2]
        else:
            reply["sha"] = store.sha256(STATE, server.model.uid)
    return reply


def _arena(server):
    model = server.need_model()
    return model.arena_bytes + (0 if server.learner is None else server.learner.total_bytes)


def mem(server, _):
    used = 0
    arena = _arena(server)
    if server.paint is not None:
        used = server.model.touched(server.paint)
        if server.learner is not None:
            used += server.learner.touched(server.paint)
    gc.collect()
    reply = {
        "arena": arena,
        "used": used,
        "free": gc.mem_free() if hasattr(gc, "mem_free") else 0,
    }
    if server.learner is not None:
        reply["plan"] = server.learner.plan
    return reply


def write_mem(server, body):
    server.need_no_job()
    arena = _arena(server)
    paint = body["paint"] & 255
    server.model.paint(paint)
    if server.learner is not None:
        state = bytes(server.learner.state())
        server.learner.core.paint(paint)
        server.learner.core.load(state)
    server.paint = paint
    return {"arena": arena}


def read_job(server, body):
    job = server.job
    if job is None or job.id != body["job"]:
        raise Refuse(ENOENT, "no job %d since this model was opened" % body["job"])
    return job.status()


def write_job(server, body):
    do = body["do"]
    if do in ("pause", "resume", "cancel"):
        job = server.job
        if job is None or job.id != body["job"]:
            raise Refuse(ENOENT, "no job %d since this model was opened" % body["job"])
        getattr(job, do)()
        return job.status()
    server.need_no_job()
    kind = jobs.KINDS.get(do)
    if kind is None:
        kinds = ", ".join(sorted(jobs.KINDS))
        raise Refuse(EINVAL, "do: expected %s, pause, resume or cancel, got %s" % (kinds, do))
    model = server.need_model()
    learner = None if do == "selftest" else server.need_learner()
    if model.samples == 0:
        raise Refuse(ENOENT, "the image carries no samples to work on")
    server.jobs += 1
    server.job = kind(server.jobs, body, model, learner)
    return {"job": server.jobs}


def count(server, body):
    count, _ = server.samples(body["x"])
    if count != 1:
        raise Refuse(EINVAL, "x: expected one sample, got %d" % count)
    y = bytearray(server.model.output_bytes)
    instructions, _ = _counted(server.model.predict, body["x"], y)
    return {"y": y, "ins": instructions}


def write_count(server, body):
    server.need_no_job()
    learner = server.need_learner()
    x, y = body["x"], body["y"]
    count, _ = server.samples(x)
    if count != 1 or len(y) != 1 or y[0] >= server.model.output_bytes:
        raise Refuse(
            EINVAL, "expected one sample and one label below %d" % server.model.output_bytes
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


def echo(server, body):
    return {"r": body["d"]}


def parameters(server, _):
    # A raw message may fill a buffer of that size, a console frame brings 4 bytes of its own.
    return {"buf_size": server.link.buf - 4, "buf_count": 1}


def restart(server, _):
    import machine

    if not hasattr(machine, "reset"):
        raise Refuse(ENOTSUP, "this board cannot reset itself")
    server.gone = True
    return {}


def _open(slot, length):
    image = slot.image(length)
    error = _fieldloop.check(image)
    if error == EBADMSG:
        raise Refuse(EBADMSG, "slot %s holds no whole .flm image" % slot.name)
    try:
        return _fieldloop.Model(image)
    except ValueError as e:
        raise Refuse(error or EINVAL, str(e)) from None


def _counted(function, *args):
    """(executed instructions or None, result)."""
    try:
        import simboard

        if simboard.icount:
            return simboard.count(function, *args)
    except ImportError:
        pass
    return None, function(*args)


READ = {
    0: info,
    4: predict,
    11: stats,
    12: pull,
    13: mem,
    14: read_job,
    15: count,
}
WRITE = {
    2: push,
    3: activate,
    5: learner_open,
    6: step,
    7: commit,
    8: undo,
    9: reset,
    10: restore,
    13: write_mem,
    14: write_job,
    15: write_count,
}
OS_READ = {0: echo, 6: parameters}
OS_WRITE = {0: echo, 5: restart}
