"""The device's Learner: real and poisoned samples, batches, evaluation, early stop, what it tells.

What it computes is compared with the host's learner over the same C core: bytes, not tolerances.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from images import CLASSES, SAMPLE_BYTES, digits_image, samples
from package import install

from fieldloop.runtime import Learner, LearnerConfig, Model
from fieldloop.targets.pytest_plugin import firmware
from fieldloop.targets.raw_repl import RemoteError
from fieldloop.targets.unix import UnixBoard

COUNT = 40


@pytest.fixture
def unix() -> Iterator[UnixBoard]:
    with UnixBoard(firmware=firmware("unix")) as target:
        yield target


def real_samples() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Real values of samples(COUNT, 7), with ties between two steps and values out of range."""
    info = Model(digits_image()).inputs[0]
    real = info.dequantize(samples(COUNT, 7)).reshape(COUNT, SAMPLE_BYTES).astype(np.float32)
    real[:, 0] += np.float32(0.5) * np.float32(info.scale)
    real[::5, 1] = 1e30
    real[::7, 2] = -1e9
    return real


def prepare(target: Any) -> None:
    """`model`; sample(i), real(i) and poisoned(i, value) make the i-th sample."""
    install(target)
    target.put("/m.flm", digits_image())
    target.put("/x.bin", samples(COUNT, 7).tobytes())
    target.put("/f.bin", real_samples().tobytes())
    target.exec(
        "import fieldloop, _fieldloop, gc, array\n"
        "model = fieldloop.Model('/m.flm')\n"
        "x = open('/x.bin', 'rb').read()\nf = open('/f.bin', 'rb').read()\n"
        f"def sample(i): return memoryview(x)[i * {SAMPLE_BYTES} : (i + 1) * {SAMPLE_BYTES}]\n"
        "def real(i):\n"
        f"    return array.array('f', f[i * {4 * SAMPLE_BYTES} : (i + 1) * {4 * SAMPLE_BYTES}])\n"
        "def poisoned(i, value):\n    r = real(i)\n    r[i] = float(value)\n    return r\n"
    )


def opened(target: Any, **settings: Any) -> Learner:
    """`learner` on the device, and the same on the host."""
    target.exec(f"learner = fieldloop.Learner(model, **{settings!r})")
    return Learner(Model(digits_image()), LearnerConfig(**settings))


def same(target: Any, host: Learner) -> bool:
    return bool(target.eval("bytes(learner.state())") == bytes(host.state))


# ---- the same on every target


def check_real_samples(target: Any) -> None:
    """Floats are learned as the int8 samples that predict() makes of them."""
    prepare(target)
    host = opened(target, lr=1.0, memory=10, seed=3)
    predicted = [host.step(x, i % CLASSES).predicted for i, x in enumerate(real_samples())]
    told = target.eval(f"[learner.step(real(i), i % {CLASSES}) for i in range({COUNT})]")
    assert told == predicted
    assert same(target, host)
    assert target.eval("learner.stats()['clamped']") == host.stats.clamped > 0
    int8 = Learner(Model(digits_image()), LearnerConfig(lr=1.0, memory=10, seed=3))
    int8.run(int8.model.as_inputs(real_samples()), [i % CLASSES for i in range(COUNT)])
    for op, (w, _) in int8.weights().items():
        assert (w == host.weights()[op][0]).all()


def check_poison(target: Any) -> None:
    """A NaN or an infinity is refused and counted, and nothing else changes."""
    prepare(target)
    host = opened(target, lr=1.0, memory=10, seed=3)
    target.exec("learner.step(real(0), 1)")
    host.step(real_samples()[0], 1)
    for i, value in enumerate(("nan", "inf", "-inf")):
        assert target.eval(f"learner.step(poisoned({i}, '{value}'), 2)") is None
        assert target.eval("(learner.trained, learner.kept)") == (False, 0)
        bad = real_samples()[i]
        bad[i] = float(value)
        host.step(bad, 2)
    assert target.eval("learner.train(poisoned(5, 'nan'), 2)") is None
    host.train(np.full(SAMPLE_BYTES, np.nan, np.float32), 2)
    assert target.eval("learner.stats()['refused']") == host.stats.refused == 4
    assert target.eval("learner.stats()['samples']") == host.stats.samples
    assert same(target, host)
    target.exec("learner.step(real(1), 3)")
    host.step(real_samples()[1], 3)
    assert same(target, host)


def check_batches(target: Any) -> None:
    prepare(target)
    host = opened(target, lr=1.0, batch=4, optimizer="momentum", selector="dense", seed=2)
    xs = samples(COUNT, 7)
    for i in range(10):  # two batches, and a half
        host.step(xs[i], i % CLASSES)
    target.exec(f"for i in range(10): learner.step(sample(i), i % {CLASSES})")
    assert same(target, host)
    before = bytes(host.state)
    host.flush()
    assert bytes(host.state) != before
    target.exec("learner.flush()")
    assert same(target, host)
    target.exec("learner.flush()")
    assert same(target, host)
    assert target.eval("learner.stats()['updates']") == host.stats.updates


def check_what_it_tells(target: Any) -> None:
    prepare(target)
    settings = {"lr": 1.0, "memory": 10, "holdout": 4, "batch": 2, "optimizer": "adam"}
    host = opened(target, **settings)
    target.exec(f"for i in range({COUNT}): learner.step(sample(i), i % {CLASSES})")
    host.run(samples(COUNT, 7), [i % CLASSES for i in range(COUNT)])
    host.flush()
    target.exec("learner.flush()")
    stats = target.eval("learner.stats()")
    assert stats == dataclasses.asdict(host.stats)
    layers = target.eval("learner.layer_stats()")
    assert [layer["op"] for layer in layers] == [layer.op for layer in host.layer_stats()]
    for told, own in zip(layers, host.layer_stats(), strict=True):
        assert told.pop("ratio") == pytest.approx(own.ratio)
        assert told == dataclasses.asdict(own)
        assert 0 < told["kept"] <= told["entries"]
    assert layers[-1]["kept"] < layers[-1]["entries"]  # of the lowest layer
    assert target.eval("learner.evaluate()") == host.evaluate()
    assert host.evaluate()[1] == 10  # of 40 samples in the image
    assert same(target, host)  # looking changes nothing
    own = dataclasses.asdict(host.plan)
    arena = target.eval("model.arena_bytes")  # scratch of the board's kernels included
    own["total"] += arena - own["arena"]
    own["arena"] = arena
    assert target.eval("learner.plan") == own


def check_fit(target: Any) -> None:
    """Steps with evaluations between; ends with the best state, and early."""
    prepare(target)
    settings = {"lr": 4.0, "holdout": 4, "selector": "dense", "replays": 0}
    labels = [(3 * i) % CLASSES for i in range(COUNT)]  # others than the image's: it gets worse
    host = opened(target, **settings)
    told = target.eval(
        f"learner.fit([sample(i) for i in range({COUNT})], {labels},"
        " epochs=3, every=10, patience=2)"
    )
    states, rights, hits = [], [], 0
    for i in range(3 * COUNT):
        hits += (
            host.step(samples(COUNT, 7)[i % COUNT], labels[i % COUNT]).predicted
            == (labels[i % COUNT])
        )
        if (i + 1) % 10:
            continue
        rights.append(host.evaluate()[0])
        states.append(bytes(host.state))
        if len(rights) - 1 - rights.index(max(rights)) == 2:
            break
    best = rights.index(max(rights))
    assert told == {
        "samples": 10 * len(rights),
        "hit": hits,
        "evals": len(rights),
        "best": rights[best],
        "total": 10,
        "early": len(rights) < 12,
        "kept": True,
        "back": best < len(rights) - 1,
    }
    assert told["early"] and told["back"]
    assert target.eval("bytes(learner.state())") == states[best]


CHECKS = [check_real_samples, check_poison, check_batches, check_what_it_tells, check_fit]


@pytest.mark.parametrize("check", CHECKS)
def test_on_unix(unix: UnixBoard, check: Any) -> None:
    check(unix)


@pytest.mark.fieldloop_board(needs=("files", "megabyte"))
@pytest.mark.parametrize("check", CHECKS)
def test_on_board(board: Any, check: Any) -> None:
    check(board)


# ---- memory, flash, refusals


@pytest.mark.fieldloop_board(only=("qemu",))
def test_deep_recursion_is_refused_not_overrun(board: Any) -> None:
    """Opening and learning at the bottom of a recursion: RuntimeError, or all is well."""
    prepare(board)
    host = opened(board, lr=1.0, memory=10, seed=3)
    board.exec(
        "def down(f, n):\n    if n == 0: return f()\n    return down(f, n - 1)\n"
        "def tried(f):\n    told = []\n    for n in range(300):\n"
        "        try: down(f, n); told.append(1)\n        except RuntimeError: told.append(0)\n"
        "    return told\n"
    )
    steps = board.eval("tried(lambda: learner.step(sample(1), 2))", timeout=120)
    assert steps == sorted(steps, reverse=True) and 0 < sum(steps) < 300
    for _ in range(sum(steps)):
        host.step(samples(COUNT, 7)[1], 2)
    assert same(board, host)
    opens = board.eval("tried(lambda: fieldloop.Learner(model).deinit())", timeout=120)
    assert opens == sorted(opens, reverse=True) and 0 < sum(opens) < sum(steps)


def test_real_samples_allocate_once(unix: UnixBoard) -> None:
    prepare(unix)
    code = (
        "import micropython\nlearner = fieldloop.Learner(model, memory=4)\n"
        "step = learner.step\nr = real(1)\nstep(r, 2)\nmicropython.heap_lock()\n"
        "try:\n    step(r, 3); learner.train(r, 3)\nfinally:\n    micropython.heap_unlock()\n"
        "print('ok')"
    )
    assert unix.exec(code).strip().endswith("ok")


def test_fit_without_room_for_the_best_state_says_so(unix: UnixBoard) -> None:
    prepare(unix)
    opened(unix, lr=4.0, holdout=4, selector="dense", replays=0)
    unix.exec(
        "import fieldloop.best as best\ndef none(n): raise MemoryError\nbest.bytearray = none"
    )
    told = unix.eval(f"learner.fit([sample(0)] * 8, [{CLASSES - 1}] * 8, every=1, patience=2)")
    assert (told["kept"], told["back"]) == (False, False)


def test_fit_needs_something_to_look_at(unix: UnixBoard) -> None:
    prepare(unix)
    opened(unix, holdout=41)  # the image has 40
    with pytest.raises(RemoteError, match="holdout"):
        unix.exec("learner.fit([sample(0)], [1])")
    assert unix.eval("learner.stats()['samples']") == 0
    opened(unix, holdout=4)
    for call, words in (
        ("[sample(0)] * 2, [1]", "labels: expected 2, got 1"),
        ("[], []", "expected samples"),
        ("[sample(0)], [1], epochs=0", "1 or more epochs"),
        ("[sample(0)], [1], every=-1", "from 0"),
        ("[sample(0)], [1], patience=-1", "from 0"),
    ):
        with pytest.raises(RemoteError, match=words):
            unix.exec(f"learner.fit({call})")
    assert unix.eval("learner.stats()['samples']") == 0
    assert unix.eval("learner.fit([sample(0)] * 5, [1] * 5, every=3)['evals']") == 2  # 3 and 5


def test_more_layers_than_there_are(unix: UnixBoard) -> None:
    prepare(unix)
    with pytest.raises(RemoteError, match="fewer trainable layers"):
        unix.exec("fieldloop.Learner(model, layers=9)")


def test_a_commit_holds_what_a_batch_had_gathered(unix: UnixBoard) -> None:
    prepare(unix)
    unix.exec(
        "from fieldloop.slots import FileBlocks\nflash = FileBlocks('/store')\n"
        "def learner(): return fieldloop.Learner(model, flash, batch=8, selector='dense')\n"
        "l = learner()\nfactory = bytes(l.state())\n"
        "for i in range(3): l.step(sample(i), i)\n"
        "l.commit()\nkept = bytes(l.state())\nl.deinit()\nl = learner()"
    )
    assert unix.eval("(l.restored, bytes(l.state()) == kept)") == (True, True)
    host = Learner(Model(digits_image()), LearnerConfig(batch=8, selector="dense"))
    host.run(samples(3, 7), [0, 1, 2])
    host.flush()
    assert unix.eval("kept") == bytes(host.state)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("s_min=3.0", ["s_min", "0 to 1"]),
        ("s_min=0.5, s_max=0.4", ["s_min", "above s_max"]),
        ("d_thr=1.0", ["d_thr", "nothing would ever be trained"]),
        ("selector='dense', skip='on', d_min=0.5", ["d_thr", "ever be skipped"]),
        ("skip='off'", ["tinyprop"]),
        ("rank='activation'", ["unit=channel"]),
        ("deltas='int16', optimizer='adam'", ["int16", "SGD"]),
        ("deltas='int16', batch=2", ["batch 1"]),
        ("selector='mask'", ["mask", "all zero"]),
        ("selector='mask', mask=(2.0,)", ["mask", "0 to 1"]),
        ("selector='mask', mask=[1] * 17", ["mask", "more shares"]),
        ("holdout=1", ["holdout", "nothing to rehearse"]),
        ("batch=0", ["batch", "1 to 256"]),
        ("batch=300", ["batch", "1 to 256"]),
        ("max_step=0", ["max_step", "1 to 254"]),
        ("floor=0", ["floor", "1 to 65535"]),
        ("lr=float('nan')", ["lr", "above 0"]),
        ("rho=0.0", ["rho"]),
        ("beta1=1.0", ["beta1", "below 1"]),
        ("selector=99", ["selector", "unknown"]),
        ("optimizer='rmsprop'", ["optimizer", "rmsprop"]),
        ("layers=17", ["layers"]),
        ("replays=257", ["replays", "256"]),
    ],
)
def test_settings_are_refused_with_the_reason(
    unix: UnixBoard, settings: str, words: list[str]
) -> None:
    prepare(unix)
    with pytest.raises(RemoteError) as caught:
        unix.exec(f"fieldloop.Learner(model, {settings})")
    message = str(caught.value)
    assert "ValueError" in message
    assert all(word in message for word in words), message
    unix.exec("fieldloop.Learner(model)")  # and nothing broke
