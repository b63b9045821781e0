"""The store and the slot writer over simulated NOR flash: what their headers promise."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest

from fieldloop.errors import DoesNotFitError, FieldloopError, VersionError
from fieldloop.runtime.core import core
from fieldloop.runtime.flashfile import ANY_TYPE, NorFlash, Store, write_slot

UID = bytes(range(16))
OTHER = bytes(range(16, 32))
STATE, FACTORY = 1, 2


def payload_of(store: Store, type_: int, uid: bytes, nth: int = 0) -> bytes | None:
    record = store.find(type_, uid, nth)
    return None if record is None else record.payload


@pytest.mark.parametrize("prog", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("sectors", [(256, 64), (512, 3), (4096, 16), (8192, 2)])
def test_every_geometry_keeps_two_records_through_a_reboot(
    prog: int, sectors: tuple[int, int]
) -> None:
    size, count = sectors
    flash = NorFlash(sector_bytes=size, sector_count=count, prog_bytes=prog)
    store = Store(flash)
    dice = random.Random(prog * count)
    longest = (size - 32) * (count // 3) - 36 if count > 2 else (size - 32) // 4 - 36 - prog
    written: list[bytes] = []
    for i, n in enumerate([0, 1, longest, prog, longest - 1, 2 * prog, longest, 3, longest]):
        written.append(dice.randbytes(n))
        cut = dice.randrange(n + 1)
        store.append(STATE, UID, written[-1][:cut], b"", written[-1][cut:])
        if i % 2:
            store.mount()
        assert payload_of(store, STATE, UID) == written[-1]
        assert payload_of(store, STATE, UID, 1) == (written[-2] if i else None)
    assert store.find(STATE, UID, 2) is None
    with pytest.raises(DoesNotFitError):
        store.append(STATE, UID, bytes(size * count))
    store.mount()
    assert payload_of(store, STATE, UID) == written[-1]


def test_the_documented_limit_of_16_sectors_is_exact() -> None:
    store = Store(NorFlash())
    for i in range(5):
        store.append(STATE, UID, bytes([i]) * 20324)
        store.mount()
    with pytest.raises(DoesNotFitError) as caught:
        store.append(STATE, UID, bytes(20325))
    assert caught.value.needed_bytes == 18 * 4096
    assert caught.value.available_bytes == 16 * 4096
    assert payload_of(store, STATE, UID) == b"\x04" * 20324
    assert payload_of(store, STATE, UID, 1) == b"\x03" * 20324


def test_the_limit_of_one_sector_of_two_is_exact() -> None:
    flash = NorFlash(sector_bytes=512, sector_count=2, prog_bytes=4)
    longest = (512 - 24) // 2 - 36
    store = Store(flash)
    for i in range(9):
        store.append(STATE, UID, bytes([i]) * longest)
        if i % 3:
            store.mount()
        assert payload_of(store, STATE, UID) == bytes([i]) * longest
        assert i == 0 or payload_of(store, STATE, UID, 1) == bytes([i - 1]) * longest
    with pytest.raises(DoesNotFitError):
        store.append(STATE, UID, bytes(longest + 1))


def test_a_refused_append_touches_nothing() -> None:
    flash = NorFlash(sector_bytes=256, sector_count=4)
    store = Store(flash)
    store.append(STATE, UID, b"kept")
    before, operations = flash.image(), flash.operations
    with pytest.raises(DoesNotFitError):
        store.append(STATE, UID, bytes(500))
    assert (flash.image(), flash.operations) == (before, operations)


def test_undo_is_a_copy_of_the_record_before() -> None:
    store = Store(NorFlash(sector_bytes=256))
    long, short = random.Random(1).randbytes(700), b"short"
    store.append(STATE, UID, long)
    store.append(STATE, UID, short)
    store.copy(STATE, UID, 1)
    assert payload_of(store, STATE, UID) == long
    assert payload_of(store, STATE, UID, 1) == short
    with pytest.raises(FieldloopError, match="ENOENT"):
        store.copy(STATE, OTHER, 1)


def test_a_factory_marker_orders_with_states() -> None:
    store = Store(NorFlash())
    store.append(STATE, UID, b"one")
    store.append(FACTORY, UID)
    newest, before = store.find(ANY_TYPE, UID, 0), store.find(ANY_TYPE, UID, 1)
    assert newest is not None and (newest.type, newest.payload) == (FACTORY, b"")
    assert before is not None and (before.type, before.payload) == (STATE, b"one")
    assert before.seq < newest.seq
    assert store.find(ANY_TYPE, UID, 2) is None
    assert store.find(ANY_TYPE, OTHER) is None


def test_records_of_models_that_left_give_way() -> None:
    flash = NorFlash(sector_bytes=256, sector_count=4)
    store = Store(flash)
    for i in range(3):
        store.append(STATE, OTHER, bytes([i]) * 190)
    with pytest.raises(DoesNotFitError):
        store.append(STATE, UID, bytes(190))
    store.mount([UID])
    for i in range(12):
        store.append(STATE, UID, bytes([i]) * 190)
    store.mount()
    assert payload_of(store, STATE, UID) == b"\x0b" * 190
    store.mount([])
    assert list(store.records()) == []


def test_the_ninth_key_takes_the_place_of_the_one_longest_unwritten() -> None:
    store = Store(NorFlash(sector_bytes=4096, sector_count=4))
    uids = [bytes([i]) * 16 for i in range(9)]
    for _ in range(2):
        for uid in uids[:8]:
            store.append(STATE, uid, uid)
    store.append(STATE, uids[0], b"again")
    store.append(STATE, uids[8], b"new")
    for _ in range(2):
        assert store.find(STATE, uids[1]) is None
        for uid in (*uids[2:8], uids[0]):
            assert payload_of(store, STATE, uid, 1) == uid
        assert payload_of(store, STATE, uids[8]) == b"new"
        store.mount()


def test_a_file_survives_the_process_and_is_built_upon_only_after_an_erase(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    for i in range(8):
        with NorFlash(path, sector_bytes=512, sector_count=4) as flash:
            store = Store(flash)
            assert payload_of(store, STATE, UID) == (f"commit {i - 1}".encode() if i else None)
            store.append(STATE, UID, f"commit {i}".encode())
    with pytest.raises(FieldloopError, match="expected 4096 bytes"):
        NorFlash(path, sector_bytes=512, sector_count=8)


def test_a_store_of_another_geometry_or_version_is_refused_until_formatted() -> None:
    flash = NorFlash(sector_bytes=512, sector_count=4, prog_bytes=8)
    Store(flash).append(STATE, UID, b"eight")
    other = NorFlash(sector_bytes=512, sector_count=4, prog_bytes=16)
    other._bytes[:] = flash.image()
    with pytest.raises(VersionError, match="format"):
        Store(other)
    newer = bytearray(flash.image())
    newer[4] += 1
    struct.pack_into("<I", newer, 20, zlib.crc32(newer[:20]))
    flash._bytes[:] = newer
    with pytest.raises(VersionError):
        Store(flash)
    flash._bytes[4] -= 1
    struct.pack_into("<I", flash._bytes, 20, zlib.crc32(flash.image()[:20]))
    store = Store(flash)
    assert payload_of(store, STATE, UID) == b"eight"
    store.format()
    assert store.find(STATE, UID) is None
    assert flash.image() == b"\xff" * 2048


@pytest.mark.parametrize(
    "geometry",
    [
        {"sector_count": 1},
        {"sector_count": 257},
        {"sector_bytes": 128},
        {"prog_bytes": 64},
        {"prog_bytes": 3, "sector_bytes": 768},
        {"sector_bytes": 300, "prog_bytes": 8},
    ],
)
def test_an_impossible_geometry_is_refused(geometry: dict[str, int]) -> None:
    with pytest.raises(FieldloopError, match="EINVAL"):
        Store(NorFlash(**geometry))


def test_arguments_out_of_range_are_refused() -> None:
    store = Store(NorFlash())
    for type_ in (0, 0xFFFF):
        with pytest.raises(FieldloopError, match="EINVAL"):
            store.append(type_, UID, b"x")
    with pytest.raises(FieldloopError, match="16 bytes"):
        store.append(STATE, b"short", b"x")
    ffi, lib = core()
    store.append(STATE, UID, b"0123456789")
    rec = ffi.new("fl_store_rec_t *")
    out = ffi.new("uint8_t[16]")
    assert lib.fl_store_find(store._st, STATE, UID, 0, rec) == 0
    assert lib.fl_store_read(store._st, rec, 3, out, 7) == 0
    assert bytes(out)[:7] == b"3456789"
    assert lib.fl_store_read(store._st, rec, 3, out, 8) == lib.FL_EINVAL
    assert lib.fl_store_read(store._st, rec, 0xFFFFFFFF, out, 8) == lib.FL_EINVAL
    assert lib.fl_store_verify(store._st, rec) == 0
    store.append(STATE, UID, b"x")
    store.append(STATE, UID, b"y")
    assert lib.fl_store_read(store._st, rec, 0, out, 1) == lib.FL_ENOENT


@pytest.mark.parametrize("inside", [False, True])
def test_a_power_cut_through_the_python_flash(tmp_path: Path, inside: bool) -> None:
    """The whole way the host goes: a file, a cut, a new process, the old state or the new."""
    old = (b"b" * 300, b"a" * 300)
    new = (b"c" * 300, b"b" * 300)
    whole = NorFlash(sector_bytes=256, sector_count=8)
    for payload in (*reversed(old), new[0]):
        operations = whole.operations
        Store(whole).append(STATE, UID, payload)
    cuts = whole.operations - operations
    assert cuts >= 6
    seen = set()
    for n in range(1, cuts + 1):
        path = tmp_path / f"{n}.bin"
        with NorFlash(path, sector_bytes=256, sector_count=8) as flash:
            store = Store(flash)
            store.append(STATE, UID, old[1])
            store.append(STATE, UID, old[0])
            flash.fail_inside(n, seed=n) if inside else flash.fail_after(n)
            with pytest.raises(FieldloopError, match="EIO"):
                store.append(STATE, UID, new[0])
        with NorFlash(path, sector_bytes=256, sector_count=8) as flash:
            store = Store(flash)
            pair = (payload_of(store, STATE, UID), payload_of(store, STATE, UID, 1))
            assert pair in (old, new)
            seen.add(pair)
            store.append(STATE, UID, b"d" * 300)
            assert payload_of(store, STATE, UID, 1) == pair[0]
    assert old in seen
    assert inside or new in seen


def test_a_damaged_newest_record_uncovers_the_one_before() -> None:
    flash = NorFlash(sector_bytes=512, sector_count=6)
    store = Store(flash)
    store.append(STATE, UID, b"before" * 20)
    store.append(STATE, UID, b"newest" * 20)
    at = flash.image().rindex(b"newest")
    flash._bytes[at] ^= 1
    store.mount()
    assert payload_of(store, STATE, UID) == b"before" * 20
    assert store.find(STATE, UID, 1) is None


def test_the_vector_of_the_specification() -> None:
    flash = NorFlash(sector_bytes=256, sector_count=4, prog_bytes=8)
    Store(flash).append(STATE, UID, b"fieldloop")
    spec = (Path(__file__).resolve().parents[2] / "docs" / "SPEC-store.md").read_text()
    block = spec.split("<!-- vector -->")[1].split("```")[1]
    words = [word for line in block.splitlines() for word in line.partition("|")[0].split()]
    expected = bytes.fromhex("".join(words))
    assert flash.image()[: len(expected)] == expected
    assert set(flash.image()[len(expected) :]) == {0xFF}


@pytest.mark.parametrize("prog", [1, 8, 32])
@pytest.mark.parametrize("chunk", [1, 7, 32, 500, 4096])
def test_a_slot_reads_back_what_was_pushed(prog: int, chunk: int) -> None:
    flash = NorFlash(sector_bytes=512, sector_count=5, prog_bytes=prog)
    for n in (1, prog, 511, 512, 513, 2560):
        image = random.Random(n).randbytes(n)
        write_slot(flash, image, chunk)
        assert flash.image()[:n] == image
        tail = flash.image()[n : -(-n // prog) * prog]
        assert tail == b"\xff" * len(tail)
    with pytest.raises(DoesNotFitError):
        write_slot(flash, bytes(2561))


def test_a_slot_takes_chunks_in_order_only() -> None:
    ffi, lib = core()
    flash = NorFlash(sector_bytes=256, sector_count=2)
    slot = ffi.new("fl_slot_t *")
    assert lib.fl_slot_write(slot, 0, b"x", 1) == lib.FL_EINVAL
    assert lib.fl_slot_begin(slot, flash.c_flash, 0) == lib.FL_EINVAL
    assert lib.fl_slot_begin(slot, flash.c_flash, 300) == 0
    assert flash.erases == [1, 0]
    assert lib.fl_slot_write(slot, 0, bytes(100), 100) == 0
    assert lib.fl_slot_write(slot, 0, bytes(100), 100) == lib.FL_EINVAL
    assert lib.fl_slot_write(slot, 101, bytes(10), 10) == lib.FL_EINVAL
    assert lib.fl_slot_write(slot, 100, bytes(201), 201) == lib.FL_EINVAL
    assert lib.fl_slot_end(slot) == lib.FL_EAGAIN
    assert slot.next == 100
    assert lib.fl_slot_write(slot, 100, bytes(200), 200) == 0
    assert lib.fl_slot_end(slot) == 0
    assert lib.fl_slot_end(slot) == lib.FL_EINVAL
    assert flash.erases == [1, 1]


def test_a_slot_that_lost_power_is_written_again_from_the_start() -> None:
    image = random.Random(3).randbytes(900)
    for n in range(1, 9):
        flash = NorFlash(sector_bytes=256, sector_count=4)
        write_slot(flash, bytes(900), 100)
        flash.fail_inside(n, seed=n)
        with pytest.raises(FieldloopError, match="EIO"):
            write_slot(flash, image, 100)
        flash.power_on()
        assert flash.image()[:900] != image
        write_slot(flash, image, 100)
        assert flash.image()[:900] == image
