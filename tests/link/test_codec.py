"""CBOR, header, check and session: vectors, other people's packages, and Python = C."""

from __future__ import annotations

import math
import random
import struct
import zlib
from typing import Any

import pytest
from link_helpers import random_message, random_value

from fieldloop.link import cbor
from fieldloop.link.errors import CodecError
from fieldloop.link.header import Header, Op, decode_message, encode_message
from fieldloop.runtime.core import core

cbor2 = pytest.importorskip("cbor2")
smp_header = pytest.importorskip("smp.header")

# RFC 8949, appendix A: what of it lies in the subset.
RFC_VECTORS = [
    ("00", 0),
    ("17", 23),
    ("1818", 24),
    ("1903e8", 1000),
    ("1a000f4240", 1000000),
    ("1b000000e8d4a51000", 1000000000000),
    ("20", -1),
    ("3903e7", -1000),
    ("f90001", 5.960464477539063e-8),
    ("f90400", 0.00006103515625),
    ("f93c00", 1.0),
    ("f9c400", -4.0),
    ("fa47c35000", 100000.0),
    ("fb3ff199999999999a", 1.1),
    ("f97c00", math.inf),
    ("fbfff0000000000000", -math.inf),
    ("f4", False),
    ("f5", True),
    ("f6", None),
    ("4401020304", b"\1\2\3\4"),
    ("6449455446", "IETF"),
    ("62c3bc", "ü"),
    ("83010203", [1, 2, 3]),
    ("a26161016162820203", {"a": 1, "b": [2, 3]}),
    ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]),
    ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}),
    ("bfff", {}),
]
BAD = [
    "",
    "18",  # cut off
    "1c",  # reserved
    "5f41004100ff",  # a string of indefinite length
    "c074",  # a tag
    "ff",  # a break that ends nothing
    "82ff01",  # a break in a definite array
    "bf6161ff",  # a key without a value
    "44010203",  # a string longer than the bytes
    "9b7fffffffffffffff",  # an absurd count
    "bb7fffffffffffffff00",
    "1bffffffffffffffff",  # above int64
    "3bffffffffffffffff",
    "818181818181818181" + "00",  # nested nine deep
    "e0",  # a simple value
    "9f01",  # no end
]


def c_tree(data: bytes) -> Any:
    """Decodes with the C reader, item by item."""
    ffi, lib = core()
    block = ffi.new("uint8_t[]", data or b"\0")
    cursor = ffi.new("fl_cbor_t *", {"at": block, "end": block + len(data)})
    item = ffi.new("fl_cbor_item_t *")
    whole = ffi.new("fl_cbor_t *", cursor[0])
    rc = lib.fl_cbor_skip(whole)
    if rc == 0 and whole.end - whole.at > 0:
        rc = lib.FL_EBADMSG
    if rc != 0:
        raise CodecError(f"C: {rc}")

    def value() -> Any:
        assert lib.fl_cbor_next(cursor, item) == 0
        kind, n = item.type, item.len
        if kind == lib.FL_CBOR_INT:
            return item.i
        if kind == lib.FL_CBOR_BYTES:
            return bytes(ffi.buffer(item.ptr, n))
        if kind == lib.FL_CBOR_TEXT:
            return bytes(ffi.buffer(item.ptr, n)).decode()
        if kind == lib.FL_CBOR_FLOAT:
            return item.f
        if kind == lib.FL_CBOR_BOOL:
            return bool(item.i)
        if kind == lib.FL_CBOR_NULL:
            return None
        endless = n == 2 ** (8 * ffi.sizeof("size_t")) - 1
        out: list[Any] = []
        pairs: dict[Any, Any] = {}
        done = 0
        while endless or done < n:
            if endless and cursor.at[0] == 0xFF:
                assert lib.fl_cbor_next(cursor, item) == 0
                assert item.type == lib.FL_CBOR_BREAK
                break
            first = value()
            done += 1
            if kind == lib.FL_CBOR_MAP:
                pairs.setdefault(first, value())
            else:
                out.append(first)
        return pairs if kind == lib.FL_CBOR_MAP else out

    return value()


def c_dumps(value: Any) -> bytes:
    ffi, lib = core()
    buf = ffi.new("uint8_t[]", 1 << 16)
    w = ffi.new("fl_cbor_w_t *")
    lib.fl_cbor_w_init(w, buf, 1 << 16)

    def put(v: Any) -> None:
        if v is None:
            lib.fl_cbor_put_null(w)
        elif isinstance(v, bool):
            lib.fl_cbor_put_bool(w, v)
        elif isinstance(v, int):
            lib.fl_cbor_put_int(w, v)
        elif isinstance(v, float):
            lib.fl_cbor_put_f32(w, v)
        elif isinstance(v, bytes):
            lib.fl_cbor_put_bytes(w, v, len(v))
        elif isinstance(v, str):
            lib.fl_cbor_put_text(w, v.encode(), len(v.encode()))
        elif isinstance(v, list):
            lib.fl_cbor_put_array(w, len(v))
            for x in v:
                put(x)
        else:
            lib.fl_cbor_put_map(w, len(v))
            for k, x in v.items():
                put(k)
                put(x)

    put(value)
    assert not w.overflow
    return bytes(ffi.buffer(buf, w.len))


def f32(x: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", x))[0])


@pytest.mark.parametrize(("data", "value"), RFC_VECTORS)
def test_rfc_8949_vectors(data: str, value: object) -> None:
    assert cbor.loads(bytes.fromhex(data)) == value
    got = c_tree(bytes.fromhex(data))
    assert got == (f32(value) if isinstance(value, float) else value)


@pytest.mark.parametrize("data", BAD)
def test_both_readers_refuse(data: str) -> None:
    for reader in (cbor.loads, c_tree):
        with pytest.raises(CodecError):
            reader(bytes.fromhex(data))


def test_every_half_float() -> None:
    for bits in range(0, 1 << 16, 7):
        data = b"\xf9" + bits.to_bytes(2, "big")
        ours, theirs = cbor.loads(data), c_tree(data)
        assert ours == theirs or (math.isnan(ours) and math.isnan(theirs))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "x",
    [
        *(0.1, 1 / 3, 1e-45, 7e-46, 7.1e-46, 1e-40, 1.17549435e-38, 1e-320, 0.0, -0.0),
        *(3.4028234e38, 3.4028235677973366e38, 3.5e38, 1e300, -1e300, 1e-300, math.pi),
        *(16777217.0, 16777219.0, 1 + 2**-24, 1 + 3 * 2**-24, 2**-149, 2**-150, 3 * 2**-150),
    ],
)
def test_doubles_are_rounded_to_float32_as_hardware_does(x: float) -> None:
    import numpy as np

    with np.errstate(over="ignore"):
        expected = np.float32(x)
    got = np.float32(c_tree(b"\xfb" + struct.pack(">d", x)))
    assert got.tobytes() == expected.tobytes()


def test_random_doubles_too() -> None:
    import numpy as np

    rng = random.Random(0)
    for _ in range(3000):
        x = struct.unpack(">d", rng.randbytes(8))[0]
        if rng.random() < 0.7:  # near the range of float32
            x = math.ldexp(rng.uniform(-2, 2), rng.randrange(-155, 130))
        with np.errstate(over="ignore"):
            expected = np.float32(x)
        got = np.float32(c_tree(b"\xfb" + struct.pack(">d", x)))
        assert got.tobytes() == expected.tobytes() or (np.isnan(got) and np.isnan(expected))


@pytest.mark.parametrize("seed", range(200))
def test_python_c_and_cbor2_agree(seed: int) -> None:
    rng = random.Random(seed)
    value = random_value(rng)
    data = cbor.dumps(value)
    assert data == c_dumps(value)
    assert cbor.loads(data) == c_tree(data) == cbor2.loads(data) == value
    assert cbor.loads(cbor2.dumps(value)) == value == c_tree(cbor2.dumps(value))


@pytest.mark.parametrize("seed", range(300))
def test_both_readers_agree_on_damaged_bytes(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        data = bytearray(cbor.dumps(random_value(rng)))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.choice((rng.randrange(256), 0xFF, 0x9F, 0xBF))
        data = data[: rng.randrange(1, len(data) + 1)]
        try:
            theirs = c_tree(bytes(data))
        except (CodecError, UnicodeDecodeError, TypeError):  # TypeError: a list as a key
            with pytest.raises(CodecError):
                cbor.loads(bytes(data))
            continue
        assert repr(c_dumps(cbor.loads(bytes(data)))) == repr(c_dumps(theirs))


def test_what_cannot_be_sent_is_refused() -> None:
    for value in (1 << 63, -(1 << 63) - 1, 1e39, object(), {1, 2}):
        with pytest.raises(CodecError):
            cbor.dumps(value)


# ---- messages


def test_header_interop_with_the_smp_package() -> None:
    theirs = smp_header.Header(
        op=smp_header.OP.WRITE,
        version=smp_header.Version.V2,
        flags=smp_header.Flag(0),
        length=300,
        group_id=70,
        sequence=9,
        command_id=6,
    )
    ours = Header(op=Op.WRITE, group=70, cmd=6, seq=9, length=300)
    assert ours.pack() == bytes(theirs) == bytes.fromhex("0a00012c00460906")
    assert Header.unpack(ours.pack() + bytes(300)) == ours


def test_requests_of_the_smp_package_are_read_by_both() -> None:
    os_management = pytest.importorskip("smp.os_management")
    ffi, lib = core()
    message = bytes(os_management.EchoWriteRequest(d="hello", sequence=3))
    ours = decode_message(message)
    assert (ours.header.group, ours.header.cmd, ours.fields) == (0, 0, {"d": "hello"})
    h = ffi.new("fl_smp_t *")
    assert lib.fl_smp_unpack(message, len(message), h) == 0
    assert (h.op, h.group, h.seq, h.cmd, h.length) == (2, 0, 3, 0, len(message) - 8)
    reply = encode_message({"r": "hello"}, op=Op.WRITE_REPLY, cmd=0, seq=3, group=0, check=False)
    assert os_management.EchoWriteResponse.loads(reply).r == "hello"
    parameters = encode_message(
        {"buf_size": 4096, "buf_count": 1}, op=Op.READ_REPLY, cmd=6, seq=4, group=0, check=False
    )
    assert os_management.MCUMgrParametersReadResponse.loads(parameters).buf_size == 4096


def test_the_check_as_the_specification_writes_it() -> None:
    fields = {"s": 7, "n": 1, "x": b"\1\2", "y": b"\3"}
    entries = cbor2.dumps(fields)[1:]
    crc = zlib.crc32(entries, zlib.crc32(bytes((2, 0, 70, 6))))
    message = encode_message(dict(fields), op=Op.WRITE, cmd=6, seq=5)
    assert message[8:] == cbor2.dumps({**fields, "crc": crc})
    _, lib = core()
    assert lib.fl_smp_check(message, len(message), core()[0].NULL) == 0


def test_messages_of_the_c_writer_pass_the_python_check() -> None:
    ffi, lib = core()
    buf = ffi.new("uint8_t[]", 64)
    w = ffi.new("fl_cbor_w_t *")
    head = ffi.new("fl_smp_t *", {"op": 3, "version": 1, "group": 70, "seq": 9, "cmd": 6})
    lib.fl_smp_begin(w, buf, 64, head)
    lib.fl_cbor_put_str(w, b"k")
    lib.fl_cbor_put_int(w, 5)
    n = lib.fl_smp_end(w)
    message = decode_message(bytes(ffi.buffer(buf, n)))
    assert message.checked and message.fields == {"k": 5}
    assert lib.fl_smp_check(buf, n, ffi.NULL) == 0
    n = lib.fl_smp_damaged(buf, 64, 70)
    message = decode_message(bytes(ffi.buffer(buf, n)))
    assert (message.header.cmd, message.fields, message.checked) == (255, {"rc": 9}, True)
    for cap in range(n):
        assert lib.fl_smp_damaged(buf, cap, 70) == lib.FL_ENOMEM


def test_every_damaged_byte_is_noticed_by_both() -> None:
    ffi, lib = core()
    message = encode_message(
        {"s": 7, "n": 300, "x": b"\1\2", "y": b"\3"}, op=Op.WRITE, cmd=6, seq=5
    )
    for at in range(len(message)):
        for bit in range(8):
            bad = bytearray(message)
            bad[at] ^= 1 << bit
            h = ffi.new("fl_smp_t *")
            ok = (
                lib.fl_smp_unpack(bytes(bad), len(bad), h) == 0
                and lib.fl_smp_check(bytes(bad), len(bad), ffi.NULL) == 0
            )
            try:
                ours = decode_message(bytes(bad))
                checked = ours.checked and ours.header.version == 1
            except CodecError:
                checked = False
            # Sequence number, flags, the reserved bits: nothing that the call is made of.
            harmless = at in (1, 6) or (at == 0 and bit >= 5)
            assert ok == checked == harmless, (at, bit)


@pytest.mark.parametrize("seed", range(100))
def test_python_and_c_check_agree(seed: int) -> None:
    ffi, lib = core()
    rng = random.Random(seed)
    message = bytearray(random_message(rng))
    for _ in range(rng.randrange(3)):
        message[rng.randrange(8, len(message))] ^= 1 << rng.randrange(8)
    rc = lib.fl_smp_check(bytes(message), len(message), ffi.NULL)
    try:
        checked = decode_message(bytes(message)).checked
    except CodecError:
        # UTF-8 is looked at by Python only; the check notices a damaged text all the same.
        assert rc in (lib.FL_EBADMSG, lib.FL_ENOTSUP, lib.FL_ENOENT)
        return
    assert rc == (0 if checked else lib.FL_ENOENT)
