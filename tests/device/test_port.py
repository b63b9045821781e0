"""The port as a user meets it: mpremote on UART0, machine.UART(1), time, soft reset, counting."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import serial

from fieldloop.targets.qemu import QemuBoard

pytestmark = pytest.mark.fieldloop_board(only=("qemu",))


def mpremote(board: QemuBoard, *words: str, cwd: Path | None = None) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", board.repl_port, *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# ---- mpremote ----


def test_mpremote_exec_run_and_eval(board: QemuBoard, tmp_path: Path) -> None:
    assert mpremote(board, "exec", "print(6 * 7)").strip() == "42"
    assert mpremote(board, "eval", "2 ** 70").strip() == str(2**70)
    script = tmp_path / "script.py"
    script.write_text("for i in range(3):\n    print('line', i)\n" + "# padding\n" * 500)
    assert mpremote(board, "run", str(script)).split("\n")[:3] == ["line 0", "line 1", "line 2"]


def test_mpremote_files(board: QemuBoard, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(5000)
    (tmp_path / "data.bin").write_bytes(content)
    mpremote(board, "cp", str(tmp_path / "data.bin"), ":data.bin")
    assert "5000 data.bin" in mpremote(board, "ls")
    mpremote(board, "cp", ":data.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == content
    assert board.get("data.bin") == content
    mpremote(board, "mkdir", ":folder", "+", "rm", ":data.bin")
    assert "data.bin" not in mpremote(board, "ls")


def test_mpremote_resume_keeps_names_and_a_new_run_forgets(board: QemuBoard) -> None:
    mpremote(board, "exec", "kept = 5")
    assert mpremote(board, "resume", "exec", "print(kept)").strip() == "5"
    assert mpremote(board, "exec", "print('kept' in globals())").strip() == "False"


def test_mpremote_mount_runs_from_the_host(board: QemuBoard, tmp_path: Path) -> None:
    (tmp_path / "from_host.py").write_text("WHERE = 'host'\n")
    output = mpremote(
        board, "mount", str(tmp_path), "exec", "import from_host; print(from_host.WHERE)"
    )
    assert "host" in output.splitlines()


def test_mpremote_ctrl_c_stops_a_running_loop(board: QemuBoard) -> None:
    command = f"{sys.executable} -m mpremote connect {board.repl_port} resume exec".split()
    process = subprocess.Popen(
        [*command, "print('looping')\nwhile True: pass"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"looping"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert board.eval("1 + 1") == 2


def test_ctrl_c_raises_keyboard_interrupt_in_the_friendly_repl(board: QemuBoard) -> None:
    with serial.Serial(board.repl_port, timeout=5) as port:
        port.write(b"while True: pass\r\n\r\n")
        time.sleep(0.2)
        port.write(b"\x03")
        assert b"KeyboardInterrupt" in port.read_until(b"KeyboardInterrupt")
        port.write(b"print('still', 'here')\r\n")
        assert b"still here" in port.read_until(b"still here\r\n")


def test_mpremote_romfs(board: QemuBoard, tmp_path: Path) -> None:
    folder = tmp_path / "rom"
    folder.mkdir()
    (folder / "answer.py").write_text("ANSWER = 42\n")
    (folder / "blob.bin").write_bytes(bytes(range(256)) * 20)
    mpremote(board, "romfs", "--no-mpy", "deploy", str(folder))
    assert "ROMFS image size" in mpremote(board, "romfs", "query")
    board.restart()
    assert board.eval("__import__('answer').ANSWER") == 42
    output = board.exec("m = memoryview(open('/rom/blob.bin', 'rb'))\nprint(len(m), m[255])")
    assert output.split() == ["5120", "255"]


# ---- start-up ----


def test_main_py_runs_after_boot_and_after_soft_reset(board: QemuBoard) -> None:
    board.put("boot.py", b"order = ['boot']\n")
    board.put("main.py", b"order.append('main')\n")
    board.restart()
    assert board.eval("order") == ["boot", "main"]
    board.exec("order = None")
    with serial.Serial(board.repl_port, timeout=5) as port:
        port.write(b"\x04")
        assert b"MPY: soft reboot" in port.read_until(b"MPY: soft reboot")
        port.read_until(b">>> ")
    assert board.eval("order") == ["boot", "main"]


def test_print_without_a_reader_does_not_hang(board: QemuBoard) -> None:
    with serial.Serial(board.link_port, timeout=20) as port:
        board.begin(
            "import machine\nu = machine.UART(1)\n"
            "for i in range(4000): print('0123456789abcdef' * 8)\n"
            "u.write(b'done')"
        )
        assert port.read(4) == b"done"
    assert board.eval("1 + 1") == 2


# ---- the link's UART ----


def test_uart_moves_every_byte_both_ways(board: QemuBoard) -> None:
    content = random.Random(2).randbytes(65536)
    board.exec(
        "import machine, hashlib\nu = machine.UART(1, 115200, timeout=5000, rxbuf=4096)\n"
        "buffer = bytearray(4096)\nview = memoryview(buffer)"
    )
    with serial.Serial(board.link_port, timeout=10) as port:
        writer = threading.Thread(target=port.write, args=(content,))
        writer.start()
        output = board.exec(
            "h = hashlib.sha256()\nn = 0\n"
            "while n < 65536:\n k = u.readinto(buffer)\n h.update(view[:k])\n n += k\n"
            "print(h.digest().hex())",
            timeout=30,
        )
        writer.join()
        assert output.strip() == hashlib.sha256(content).hexdigest()
        board.begin(
            "for i in range(256):\n"
            " for j in range(256): buffer[j] = (i * 7 + j) & 255\n u.write(view[:256])"
        )
        expected = b"".join(bytes((i * 7 + j) & 255 for j in range(256)) for i in range(256))
        assert port.read(len(expected)) == expected


def test_uart_loses_nothing_while_nobody_reads(board: QemuBoard) -> None:
    content = random.Random(3).randbytes(32768)
    board.exec("import machine, time, hashlib\nu = machine.UART(1, timeout=3000)")
    with serial.Serial(board.link_port) as port:
        writer = threading.Thread(target=port.write, args=(content,))
        writer.start()
        time.sleep(0.5)  # the ring holds 8 KiB; the rest is held back
        output = board.exec("d = u.read(32768)\nprint(len(d), hashlib.sha256(d).digest().hex())")
        writer.join()
    assert output.split() == ["32768", hashlib.sha256(content).hexdigest()]


def test_uart_api_is_that_of_real_boards(board: QemuBoard) -> None:
    board.exec("import machine, select, time\nu = machine.UART(1, baudrate=921600, timeout=50)")
    assert board.eval("repr(u)").startswith("UART(1, baudrate=921600, ")
    assert board.eval("(u.any(), u.txdone(), u.read(4))") == (0, True, None)
    board.exec("p = select.poll(); p.register(u, select.POLLIN)")
    assert board.eval("p.poll(20)") == []
    with serial.Serial(board.link_port, timeout=5) as port:
        port.write(b"one\ntwo")
        assert board.eval("len(p.poll(2000))") == 1
        board.exec(
            "t = time.ticks_ms()\n"
            "while u.any() < 7 and time.ticks_diff(time.ticks_ms(), t) < 2000: pass"
        )
        assert board.eval("(u.any(), u.readline(), u.read())") == (7, b"one\n", b"two")
        assert board.eval("u.write(b'abc')") == 3
        assert port.read(3) == b"abc"
    board.exec("try:\n machine.UART(0)\nexcept ValueError as e:\n print(e)")
    assert "doesn't exist" in board.exec(
        "try:\n machine.UART(2)\nexcept ValueError as e: print(e)"
    )
    assert "8" in board.exec("try:\n machine.UART(1, bits=7)\nexcept ValueError as e: print(e)")
    board.exec("u.deinit()")
    assert board.exec("try:\n u.write(b'x')\nexcept OSError as e: print(e.errno)").strip() == "5"


def test_uart_write_gives_up_when_nobody_reads(board: QemuBoard) -> None:
    board.exec("import machine\nu = machine.UART(1)\nblock = bytes(4096)\ntotal = 0")
    # The host's kernel buffers a while before the port is really stuck.
    board.exec(
        "for _ in range(100):\n n = u.write(block) or 0\n total += n\n if n < 4096: break\n",
        timeout=30,
    )
    assert 4096 <= board.eval("total") < 100 * 4096
    assert board.eval("u.write(b'x')", timeout=30) is None


# ---- time and counting ----


def test_sleep_and_ticks_agree_with_the_host(board: QemuBoard) -> None:
    start = time.monotonic()
    spent = board.exec(
        "import time\nt = time.ticks_us()\ntime.sleep_ms(300)\n"
        "print(time.ticks_diff(time.ticks_us(), t))"
    )
    assert 300_000 <= int(spent) < 300_000 + 1e6 * (time.monotonic() - start)


COUNT = """
import simboard
def f(n):
    s = 0
    for i in range(n):
        s += i
    return s
simboard.count(f, 1)
print([simboard.count(f, n) for n in (0, 1, 2, 100, 101, 100)], simboard.count(len, b'ab'))
"""


@pytest.mark.fieldloop_board(only=("qemu",), icount=True)
def test_count_is_the_same_in_two_runs(board: QemuBoard) -> None:
    first = board.exec(COUNT)
    board.restart()
    assert board.exec(COUNT) == first
    rows, _ = first.strip().rsplit(" (", 1)
    counts = [row[0] for row in eval(rows)]
    assert counts[3] == counts[5]
    assert counts[2] - counts[1] == counts[4] - counts[3] > 0  # one turn costs what it costs


@pytest.mark.slow
@pytest.mark.fieldloop_board(only=("qemu",), icount=True)
def test_count_is_right_beyond_32_bits_of_ticks(board: QemuBoard) -> None:
    # A loop of known cost, longer than the 671 million instructions in which the timer wraps.
    board.exec(
        "import simboard\n@micropython.asm_thumb\ndef spin(r0):\n label(L)\n sub(r0, 1)\n bne(L)\n"
    )
    short = board.eval("simboard.count(spin, 1000)[0]", timeout=60)
    for turns in (100_000_000, 500_000_000):
        long = board.eval(f"simboard.count(spin, {turns})[0]", timeout=120)
        assert long - short == 2 * (turns - 1000)


def test_count_without_icount_is_an_error(board: QemuBoard) -> None:
    output = board.exec(
        "import simboard\ntry:\n simboard.count(len, b'')\nexcept RuntimeError as e: print(e)"
    )
    assert "icount" in output
    assert board.eval("__import__('simboard').icount()") is False


@pytest.mark.fieldloop_board(only=("qemu",), icount=True)
def test_serial_works_under_icount(board: QemuBoard) -> None:
    board.exec("import machine\nu = machine.UART(1, timeout=2000)")
    with serial.Serial(board.link_port, timeout=10) as port:
        board.begin("while True:\n d = u.read(64)\n if d: u.write(d)")
        for size in (1, 64, 64):
            sent = os.urandom(size).ljust(64, b".")
            port.write(sent)
            assert port.read(64) == sent


def test_idle_board_costs_no_host_time(board: QemuBoard) -> None:
    assert board.running and board._process is not None
    ticks_path = Path(f"/proc/{board._process.pid}/stat")

    def used() -> int:
        fields = ticks_path.read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    board.exec("pass")
    before = used()
    time.sleep(1.0)
    assert used() - before <= 0.1 * os.sysconf("SC_CLK_TCK")
