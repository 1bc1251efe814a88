"""The wire: what is packed comes back, what is broken is one clear error, whatever the bytes."""

from __future__ import annotations

import math
import re
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dreamzero.serve.protocol import Limits, ProtocolError, pack, unpack

from . import peer

DTYPES = [
    "|b1", "|u1", "|i1", "<u2", "<i4", ">i4", "<u8", "<f2", "<f4", ">f4", "<f8", "<U3", "|S4",
]  # fmt: skip
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
MESSAGES = st.recursive(
    PLAIN | st.binary() | ARRAYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        alike = isinstance(b, np.ndarray) and (a.dtype, a.shape) == (b.dtype, b.shape)
        return alike and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    both_nan = isinstance(a, float) and math.isnan(a) and math.isnan(b)
    return type(a) is type(b) and (a == b or both_nan)


@given(MESSAGES)
def test_what_is_packed_comes_back(message: Any) -> None:
    assert same(unpack(pack(message)), message)


@given(ARRAYS)
def test_a_peer_reads_ours_and_we_read_the_peers(array: np.ndarray) -> None:
    theirs = msgpack.unpackb(pack({"a": array}), object_hook=peer.decode)["a"]
    ours = unpack(msgpack.packb({"a": array}, default=peer.encode))["a"]
    assert same(theirs, array) and same(ours, array)
    assert ours.flags.writeable


@pytest.mark.parametrize(
    "scalar",
    [np.float32(1.5), np.int64(-3), np.uint8(255), np.bool_(True), np.str_("cup"), np.bytes_(b"x")],
)
def test_scalars_keep_their_type(scalar: np.generic) -> None:
    back = unpack(msgpack.packb(scalar, default=peer.encode, strict_types=True))
    assert back == scalar and back.dtype == scalar.dtype
    assert unpack(pack([scalar])) == [scalar]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_one_clear_error(data: bytes) -> None:
    try:
        unpack(data)
    except ProtocolError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 300


@given(MESSAGES, st.data())
def test_a_damaged_message_is_a_message_or_one_clear_error(message: Any, data: Any) -> None:
    packed = bytearray(pack({"a": np.ones((2, 3), np.float32), "m": message}))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(packed)))
    for damaged in (bytes(packed), bytes(packed[:cut]), bytes(packed[cut:])):
        try:
            unpack(damaged)
        except ProtocolError as error:
            assert len(str(error)) < 400


def array(dtype: Any = "|u1", shape: Any = (2,), data: Any = b"ab", **more: Any) -> bytes:
    form = {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}
    return bytes(msgpack.packb(form | {k.encode(): v for k, v in more.items()}))


def scalar(dtype: Any, data: Any) -> bytes:
    form = {b"__npgeneric__": True, b"data": data, b"dtype": dtype}
    return bytes(msgpack.packb(form))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (array("|O"), "dtype '|O'"),
        (array("<c8", (1,), b"8 bytes."), "dtype '<c8'"),
        (array([["a", "<f4"]]), "dtype 'list'"),
        (array("i4,i4", (1,), b"8 bytes."), "dtype 'i4,i4'"),
        (array("(2,2)u1", (1,), b"four"), "dtype '(2,2)u1'"),
        (array("|V2", (1,)), "dtype '|V2'"),
        (array("<M8[ns]", (1,), b"8 bytes."), "dtype '<M8[ns]'"),
        (array("<f16", (1,), b"16 bytes of data"), "dtype '<f16'"),
        (array(shape=(3,)), "takes 3 bytes, not 2"),
        (array(shape=(-2,)), "whole numbers"),
        (array(shape=(True, 2)), "whole numbers"),
        (array(shape=(2**33, 2**33)), "not 2"),
        (array("<U0", (10**12,), b""), "takes 0 bytes"),
        (array(shape=(0, 2**63), data=b""), "an array of shape"),
        (array(shape=[1] * 9, data=b"a"), "up to 8"),
        (array(data="ab"), "data are bytes"),
        (array(order="F"), "an array is a map of"),
        (scalar("|i1", 300), "out of range"),
        (scalar("<f2", 1e9), "out of range"),
        (scalar("<f4", "3"), "holds a str"),
        (scalar("<i4", True), "holds a bool"),
        (scalar("|O", 1), "dtype '|O'"),
        (b"", "no msgpack message"),
        (b"\xc1", "no msgpack message"),
        (b"\x01\x02", "no msgpack message"),
        (b"\xa2\xff\xff", "no msgpack message"),
        (b"\x81\x01\x02", "no msgpack message"),
        (b"\x82\xa1a\x01\xa1a\x02", "a key twice"),
        (b"\xd4\x01\x00", "extension 1"),
        (b"\xd6\xff\x00\x00\x00\x00", "extension -1"),
    ],
)
def test_what_has_no_form_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=re.escape(says)):
        unpack(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xdd\xff\xff\xff\xff", "max_array_len"),
        (b"\xdf\xff\xff\xff\xff", "max_map_len"),
        (pack([0] * 1025), "max_array_len"),
        (pack([[[0]] * 200] * 3), "more than 256 maps and lists"),
        (b"\x91" * 9 + b"\xc0", "more than 8 deep"),
        (b"\x91" * 5000 + b"\xc0", "no msgpack message|maps and lists"),
        (pack({"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}}), "8 deep"),
        (bytes(64 * 2**20 + 1), "at most 67108864"),
    ],
)
def test_limits(data: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        unpack(data)


def test_limits_can_be_set() -> None:
    assert unpack(pack([1, 2]), Limits(size=3)) == [1, 2]
    with pytest.raises(ProtocolError, match="a message of 3 bytes; at most 2"):
        unpack(pack([1, 2]), Limits(size=2))


@pytest.mark.parametrize(
    "value", [np.array([None]), np.zeros(2, complex), np.zeros(1, "i4,i4"), object(), {1, 2}]
)
def test_what_cannot_be_sent_is_not_packed(value: Any) -> None:
    with pytest.raises(ProtocolError, match="no form on the wire"):
        pack({"a": value})
