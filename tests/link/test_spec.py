"""The test vectors of docs/SPEC-link.md are what both codecs read and write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fieldloop.link import board, client
from fieldloop.link.frames import console_frame
from fieldloop.link.header import Op, decode_message, encode_message
from fieldloop.runtime.core import core

SPEC = (Path(__file__).resolve().parents[2] / "docs" / "SPEC-link.md").read_text()
VECTORS = re.findall(r"^\| ([^|]+) \| `([0-9a-f]{20,})` \|$", SPEC, re.M)


def test_the_table_is_there() -> None:
    assert len(VECTORS) == 10


@pytest.mark.parametrize(("name", "text"), VECTORS)
def test_vector(name: str, text: str) -> None:
    ffi, lib = core()
    data = bytes.fromhex(text)
    message = decode_message(data)
    h = message.header
    again = encode_message(
        dict(message.fields),
        op=h.op,
        cmd=h.cmd,
        seq=h.seq,
        group=h.group,
        check=message.checked,
    )
    assert again == data
    assert message.checked == (h.group == 70)
    assert h.op in (Op.WRITE_REPLY, Op.READ_REPLY) or "request" in name
    assert lib.fl_smp_check(data, len(data), ffi.NULL) == (0 if message.checked else lib.FL_ENOENT)


def test_the_console_frame_of_the_specification() -> None:
    (step,) = (bytes.fromhex(text) for name, text in VECTORS if name.startswith("step request"))
    line = console_frame(step)
    assert line[:2] == b"\x06\x09" and line[-1:] == b"\n"
    assert f"`{line[2:-1].decode()}`" in SPEC


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("info", client.INFO), ("session", client.SESSION), ("push", board.PUSH)),
        *(("activate", board.ACTIVATE), ("predict", board.PREDICT), ("step", board.STEP)),
        *(("learner_open", board.LEARNER_OPEN), ("commit", board.COMMIT), ("undo", board.UNDO)),
        *(("reset", board.RESET), ("restore", board.RESTORE), ("stats", board.STATS)),
        *(("pull", board.PULL), ("mem", board.MEM), ("job", board.JOB), ("count", board.COUNT)),
    ],
)
def test_the_commands_of_the_specification(name: str, number: int) -> None:
    assert re.search(rf"^\| {number} {name} \| [RW] \|", SPEC, re.M)
