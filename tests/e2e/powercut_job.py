"""Runs on the board, as its main.py, for powercut_board.py: learns and commits until the power
fails.

What goes over UART 1: the board tells `H`, the number and the SHA-256 of what it came up with; the
host answers with the operation to fail at, whether inside it, and a seed; from then on the board
tells `C`, the number and the flash operations so far, after each commit that returned.
"""

import _fieldloop
import simboard
from fieldloop.learner import resume
from fieldloop.storage import Storage
from machine import UART

SAMPLES = "samples.bin"  # label, then the sample's bytes, one after the other
COMMAND_BYTES = 9


def run():
    uart = UART(1, 115200, timeout=5000, timeout_char=1000)
    storage = Storage()
    model, _ = storage.open()
    learner = resume(model, storage.store)
    uart.write(b"H" + learner.seq.to_bytes(4, "little") + _fieldloop.sha256((learner.state(),)))
    command = uart.read(COMMAND_BYTES)
    at = int.from_bytes(command[:4], "little")
    with open(SAMPLES, "rb") as f:
        samples = f.read()
    learn_and_commit(
        uart, learner, samples
    )  # the commit after a power cut, with nothing in its way
    if command[8]:
        simboard.fail_inside(at, int.from_bytes(command[4:8], "little"))
    elif at:
        simboard.fail_after(at)
    while True:
        learn_and_commit(uart, learner, samples)


def learn_and_commit(uart, learner, samples):
    size = learner.model.input_bytes + 1
    at = learner.stats()["samples"] * size % len(samples)
    learner.step(samples[at + 1 : at + size], samples[at])
    seq = learner.commit()
    operations = sum(simboard.operations()[:2])
    uart.write(b"C" + seq.to_bytes(4, "little") + operations.to_bytes(4, "little"))
