"""Feetech's frames: vectors worked out by hand from the manual, and streams that were damaged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.errors import UserError
from dreamzero.robots import feetech
from dreamzero.robots.feetech import STS3215, Packet, Parser

# (what, bytes as in Feetech's communication manual or summed by hand)
VECTORS = [
    (feetech.ping(1), "ff ff 01 02 01 fb"),
    (feetech.read(1, 0x38, 2), "ff ff 01 04 02 38 02 be"),
    (feetech.write(0xFE, 5, b"\x01"), "ff ff fe 04 03 05 01 f4"),
    # Position 2048, time 0, speed 1000 to servo 1.
    (
        feetech.write(1, 0x2A, bytes.fromhex("0008 0000 e803")),
        "ff ff 01 09 03 2a 00 08 00 00 e8 03 d5",
    ),
    (feetech.sync_read(0x38, 2, [1, 2]), "ff ff fe 06 82 38 02 01 02 3c"),
    (
        feetech.sync_write(0x2A, {1: b"\x00\x08", 2: b"\xff\x0f"}),
        "ff ff fe 0a 83 2a 02 01 00 08 02 ff 0f 2f",
    ),
]


@pytest.mark.parametrize(("made", "expected"), VECTORS)
def test_vectors(made: bytes, expected: str) -> None:
    assert made.hex(" ") == expected


def test_status_packet_of_a_read() -> None:
    (packet,) = Parser().feed(bytes.fromhex("ffff 01 04 00 1805 dd"))
    assert packet == Packet(1, 0, bytes.fromhex("1805"))
    assert STS3215["present_position"].from_bytes(packet.params) == 1304


@pytest.mark.parametrize(
    ("name", "address", "size"),
    [
        ("id", 5, 1),
        ("torque_enable", 40, 1),
        ("goal_position", 42, 2),
        ("present_position", 56, 2),
        ("present_speed", 58, 2),
        ("present_load", 60, 2),
        ("present_voltage", 62, 1),
        ("present_temperature", 63, 1),
        ("moving", 66, 1),
    ],
)
def test_registers_lie_where_the_memory_table_has_them(name: str, address: int, size: int) -> None:
    assert (STS3215[name].address, STS3215[name].size) == (address, size)


def test_registers_do_not_overlap() -> None:
    taken = [r.address + i for r in STS3215.values() for i in range(r.size)]
    assert len(taken) == len(set(taken))
    assert max(taken) < feetech.MEMORY_BYTES


@given(st.sampled_from(sorted(STS3215)), st.integers(-40000, 70000))
def test_register_values_survive_or_are_refused(name: str, value: int) -> None:
    register = STS3215[name]
    try:
        data = register.to_bytes(value)
    except UserError:
        top = 1 << (8 * register.size if register.sign_bit is None else register.sign_bit)
        assert value >= top or value < (0 if register.sign_bit is None else 1 - top)
        return
    assert len(data) == register.size
    assert register.from_bytes(data) == value


def test_sign_is_a_bit_and_not_a_complement() -> None:
    assert STS3215["present_speed"].to_bytes(-300).hex() == "2c81"
    assert STS3215["homing_offset"].to_bytes(-1).hex() == "0108"


packets = st.builds(Packet, st.integers(0, 254), st.integers(0, 255), st.binary(max_size=40))


@given(st.lists(packets, max_size=6), st.data())
def test_split_anywhere_with_noise_between(sent: list[Packet], data: st.DataObject) -> None:
    # Noise without FF cannot be taken for a header, so that everything must be found.
    quiet = st.binary(max_size=8).map(lambda b: b.replace(b"\xff", b"\x00"))
    stream = b"".join(data.draw(quiet) + feetech.encode(p) for p in sent) + data.draw(quiet)
    parser, found, at = Parser(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, 9))
        found += parser.feed(stream[at : at + step])
        at += step
    assert found == sent


@given(st.lists(st.binary(max_size=64), max_size=12))
def test_noise_yields_only_packets_that_are_really_there(parts: list[bytes]) -> None:
    parser, stream = Parser(), b"".join(parts)
    found = [packet for part in parts for packet in parser.feed(part)]
    for packet in found:
        assert feetech.encode(packet) in stream


@given(packets, st.binary(max_size=30))
def test_a_packet_after_any_damage_is_found_in_the_end(packet: Packet, noise: bytes) -> None:
    parser = Parser()
    found = parser.feed(noise)
    # A false header may swallow up to a longest packet; nothing waits longer than that.
    for _ in range(2 + 255 // 6):
        found += parser.feed(feetech.encode(packet) + bytes(6))
    assert packet in found


def test_bad_checksum_is_counted_and_the_next_packet_found() -> None:
    damaged = bytearray(feetech.ping(3))
    damaged[-1] ^= 1
    parser = Parser()
    assert parser.feed(bytes(damaged) + feetech.ping(4)) == [Packet(4, 1)]
    assert parser.bad_checksums == 1
    assert parser.noise_bytes == 6


def test_header_with_a_third_ff() -> None:
    assert Parser().feed(b"\xff" + feetech.ping(1)) == [Packet(1, 1)]


@pytest.mark.parametrize("wrong", [Packet(255, 1), Packet(1, 256), Packet(1, 3, bytes(249))])
def test_what_does_not_fit_is_refused(wrong: Packet) -> None:
    with pytest.raises(UserError):
        feetech.encode(wrong)


def test_sync_write_of_unequal_data_is_refused() -> None:
    with pytest.raises(UserError, match="equally long"):
        feetech.sync_write(42, {1: b"\x00", 2: b"\x00\x00"})


def test_error_bits_have_names() -> None:
    assert feetech.error_names(0x24) == ["overheating", "overload"]
