"""The simulated NOR flash: its rules, what it keeps over power cuts, and the power cuts."""

from __future__ import annotations

import random

import pytest

from fieldloop.targets.qemu import QemuBoard
from fieldloop.targets.raw_repl import RemoteError

pytestmark = pytest.mark.fieldloop_board(only=("qemu",), memory="realistic")

EIO = 5
EINVAL = 22

SETUP = """
import simboard, errno
p = simboard.Partition("store")
def attempt(f, *args):
    try:
        f(*args)
    except OSError as e:
        return e.errno
    return 0
"""


@pytest.fixture
def flash(board: QemuBoard) -> QemuBoard:
    board.exec(SETUP)
    return board


# ---- rules ----


def test_programs_each_unit_once_between_erases(flash: QemuBoard) -> None:
    flash.exec("data = bytes(range(1, 65))")
    assert flash.eval("attempt(p.writeblocks, 3, data, 64)") == 0
    assert flash.eval("bytes(memoryview(p)[3 * 4096 + 64:3 * 4096 + 128]) == data") is True
    # The same bytes, a subset of the bits, one unit of it, and all ones: each is a violation.
    assert flash.eval("attempt(p.writeblocks, 3, data, 64)") == EIO
    assert flash.eval("attempt(p.writeblocks, 3, bytes(64), 64)") == EIO
    assert flash.eval("attempt(p.writeblocks, 3, bytes(8), 120)") == EIO
    assert flash.eval("attempt(p.writeblocks, 3, b'\\xff' * 8, 64)") == EIO
    assert flash.eval("simboard.operations()[2]") == 4
    # A block that overlaps is refused whole.
    assert flash.eval("attempt(p.writeblocks, 3, bytes(16), 56)") == EIO
    assert flash.eval("bytes(memoryview(p)[3 * 4096 + 56:3 * 4096 + 64])") == b"\xff" * 8
    # After an erase it works again.
    assert flash.eval("p.ioctl(6, 3)") == 0
    assert flash.eval("bytes(memoryview(p)[3 * 4096:4 * 4096]) == b'\\xff' * 4096") is True
    assert flash.eval("attempt(p.writeblocks, 3, bytes(64), 64)") == 0


def test_a_unit_programmed_with_ones_counts_as_programmed_over_a_power_cut(
    flash: QemuBoard,
) -> None:
    assert flash.eval("attempt(p.writeblocks, 0, b'\\xff' * 8, 0)") == 0
    flash.restart()
    flash.exec(SETUP)
    assert flash.eval("attempt(p.writeblocks, 0, bytes(8), 0)") == EIO
    assert flash.eval("attempt(p.writeblocks, 0, bytes(8), 8)") == 0


@pytest.mark.parametrize(("offset", "size"), [(1, 8), (0, 7), (4, 8), (0, 12)])
def test_parts_of_units_are_refused(flash: QemuBoard, offset: int, size: int) -> None:
    assert flash.eval(f"attempt(p.writeblocks, 0, bytes({size}), {offset})") == EIO


def test_out_of_the_partition_is_refused(flash: QemuBoard) -> None:
    for call in (
        "p.writeblocks, 15, bytes(16), 4088",
        "p.writeblocks, 16, bytes(8), 0",
        "p.writeblocks, -1, bytes(8), 0",
        "p.writeblocks, 0, bytes(8), -8",
        "p.writeblocks, 1 << 20, bytes(8), 0",
        "p.writeblocks, 15, bytes(8192)",
        "p.writeblocks, 0, bytes(100)",
        "p.readblocks, 15, bytearray(4097)",
        "p.readblocks, 16, bytearray(1)",
        "p.readblocks, 0, bytearray(1), 1 << 29",
        "p.ioctl, 6, 16",
        "p.ioctl, 6, -1",
    ):
        assert flash.eval(f"attempt({call})") == EINVAL, call
    with pytest.raises(RemoteError, match="no partition"):
        flash.exec("simboard.Partition('nothing')")


def test_simple_block_protocol_erases_first(flash: QemuBoard) -> None:
    flash.exec("a = bytes(4096); b = b'\\x5a' * 4096; c = bytearray(4096)")
    assert flash.eval("attempt(p.writeblocks, 2, a)") == 0
    assert flash.eval("attempt(p.writeblocks, 2, b)") == 0
    flash.exec("p.readblocks(2, c)")
    assert flash.eval("c == b") is True


def test_partition_is_a_read_only_buffer_in_place(flash: QemuBoard) -> None:
    assert flash.eval("(len(memoryview(p)), p.size, p.address % 16)") == (65536, 65536, 0)
    with pytest.raises(RemoteError, match="TypeError"):
        flash.exec("memoryview(p)[0] = 1")
    with pytest.raises(RemoteError):
        flash.exec("p.size = 1")
    same = "__import__('uctypes').addressof(p) == p.address"
    assert flash.eval(same) is True


def test_littlefs_never_breaks_the_rules(flash: QemuBoard) -> None:
    flash.exec(
        "import os, random\nrandom.seed(1)\n"
        "for i in range(60):\n"
        " with open('f%d' % (i % 7), 'wb' if i % 3 else 'ab') as f:\n"
        "  f.write(bytes(random.getrandbits(8) for _ in range(random.getrandbits(9))))\n"
        " if i % 5 == 0: os.remove('f%d' % (i % 7))\n",
        timeout=30,
    )
    erases, programs, violations = flash.eval("simboard.operations()")
    assert erases > 0 and programs > 60 and violations == 0


# ---- power cuts ----


def test_content_survives_a_kill(flash: QemuBoard) -> None:
    content = random.Random(4).randbytes(256)
    flash.exec(f"p.writeblocks(5, {content!r}, 512)")
    flash.kill()
    assert flash.read_partition("store")[5 * 4096 + 512 :][:256] == content
    flash.start()
    assert (
        flash.eval("bytes(memoryview(__import__('simboard').Partition('store'))[20992:21248])")
        == content
    )


def test_preloaded_partition(flash: QemuBoard) -> None:
    flash.kill()
    flash.write_partition("store", b"factory!")
    flash.start()
    flash.exec(SETUP)
    assert flash.eval("bytes(memoryview(p)[:16])") == b"factory!" + b"\xff" * 8
    assert flash.eval("attempt(p.writeblocks, 0, bytes(8), 0)") == EIO
    assert flash.eval("attempt(p.writeblocks, 0, bytes(8), 8)") == 0


def cut(board: QemuBoard, arm: str, work: str) -> str:
    """Arm a power cut, do the work, and return the report; the board is off afterwards."""
    board.begin(f"{SETUP}\n{arm}\n{work}\nopen('survived', 'w').close()")
    line = board.wait_for("FIELDLOOP-POWER-CUT")
    board.kill()
    return line


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fail_after_lets_the_nth_operation_complete(board: QemuBoard, n: int) -> None:
    work = "\n".join(f"p.writeblocks({i}, b'{i}' * 16, 0)" for i in range(4))
    line = cut(board, f"simboard.fail_after({n})", work)
    assert line == f"FIELDLOOP-POWER-CUT after program store+{(n - 1) * 4096:08x}"
    content = board.read_partition("store")
    for i in range(4):
        expected = b"%d" % i * 16 if i < n else b"\xff" * 16
        assert content[i * 4096 : i * 4096 + 16] == expected
    board.start()
    assert "survived" not in board.eval("__import__('os').listdir()")


def test_fail_inside_program_leaves_a_torn_block(board: QemuBoard) -> None:
    data = random.Random(5).randbytes(64)
    seen = set()
    for seed in range(6):
        work = f"p.writeblocks({seed}, {data!r}, 0)"
        assert " inside program " in cut(board, f"simboard.fail_inside(1, {seed})", work)
        got = board.read_partition("store")[seed * 4096 :][:64]
        units = [(got[i : i + 8], data[i : i + 8]) for i in range(0, 64, 8)]
        done = next(i for i, (a, b) in enumerate(units) if a != b)
        torn, wanted = units[done]
        assert all(a & w == w for a, w in zip(torn, wanted, strict=True))  # only some bits fell
        assert all(a == b"\xff" * 8 for a, _ in units[done + 1 :])
        seen.add((done, torn))
        board.start()
        # A torn unit cannot be programmed before an erase; the next one can.
        board.exec(SETUP)
        if torn != b"\xff" * 8:
            assert board.eval(f"attempt(p.writeblocks, {seed}, bytes(8), {done * 8})") == EIO
        if done < 7:
            assert board.eval(f"attempt(p.writeblocks, {seed}, bytes(8), {done * 8 + 8})") == 0
        assert board.eval(f"p.ioctl(6, {seed})") == 0
        assert board.eval(f"attempt(p.writeblocks, {seed}, bytes(8), {done * 8})") == 0
    assert len(seen) == 6


def test_fail_inside_is_the_same_every_time(board: QemuBoard) -> None:
    results = []
    for _ in range(2):
        board.exec(SETUP + "\np.writeblocks(0, bytes(4096))\np.ioctl(6, 1)")
        cut(board, "simboard.fail_inside(1, 77)", "p.ioctl(6, 0)")
        results.append(board.read_partition("store")[:4096])
        board.start()
    assert results[0] == results[1]


@pytest.mark.parametrize("seed", [2, 3])  # first to last, scattered
def test_fail_inside_erase_leaves_part_of_the_sector(board: QemuBoard, seed: int) -> None:
    board.exec(SETUP + "\np.writeblocks(0, bytes(4096))")
    assert " inside erase " in cut(board, f"simboard.fail_inside(1, {seed})", "p.ioctl(6, 0)")
    content = board.read_partition("store")[:4096]
    erased = [content[i : i + 8] == b"\xff" * 8 for i in range(0, 4096, 8)]
    assert 0 < sum(erased) < 512
    if seed % 2 == 0:
        assert erased == sorted(erased, reverse=True)
    board.start()
    board.exec(SETUP)
    first_left = erased.index(False)
    assert board.eval(f"attempt(p.writeblocks, 0, bytes(8), {first_left * 8})") == EIO
    assert board.eval("p.ioctl(6, 0)") == 0
    assert board.eval("attempt(p.writeblocks, 0, bytes(4096), 0)") == 0


def test_file_system_survives_cuts_at_every_operation(board: QemuBoard) -> None:
    old, new = b"old" * 130, b"new" * 160
    write = "with open('state', 'wb') as f: f.write(b'new' * 160)"
    operations = "sum(__import__('simboard').operations()[:2])"
    board.put("state", old)
    before = board.eval(operations)
    board.exec(write)
    needed = board.eval(operations) - before
    assert needed > 3
    seen = set()
    for n in range(1, needed + 2):
        board.put("state", old)
        mode = f"simboard.fail_inside({n}, {n})" if n % 2 else f"simboard.fail_after({n})"
        # Should the write need fewer operations this time, the erases bring the cut.
        board.begin(f"{SETUP}\n{mode}\n{write}\nfor i in range({n}): p.ioctl(6, 0)")
        board.wait_for("FIELDLOOP-POWER-CUT")
        board.restart()
        state = board.get("state")
        assert state in (old, new)
        seen.add(state)
    assert seen == {old, new}


def test_cut_board_hangs_silently_until_killed(board: QemuBoard) -> None:
    board.begin(f"{SETUP}\nsimboard.fail_after(1)\np.ioctl(6, 0)")
    board.wait_for("FIELDLOOP-POWER-CUT")
    assert board.running
    with pytest.raises(Exception, match="silent"):
        board.exec("pass", timeout=0.3)
    board.restart()
    assert board.eval("1") == 1
