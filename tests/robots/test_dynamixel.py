"""Protocol 2.0: byte vectors of ROBOTIS' e-Manual, and streams that were damaged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.errors import UserError
from dreamzero.robots.dynamixel import protocol as dynamixel
from dreamzero.robots.dynamixel.protocol import BROADCAST, Instruction, Parser
from dreamzero.robots.dynamixel.table import EEPROM_END, MEMORY_BYTES, X_SERIES
from dreamzero.robots.servos.codec import Packet, Status

# The examples of emanual.robotis.com/docs/en/dxl/protocol2, in its order.
REQUESTS = [
    (dynamixel.ping(1), "01 03 00 01 19 4e"),
    (dynamixel.ping(BROADCAST), "fe 03 00 01 31 42"),
    (dynamixel.read(1, 132, 4), "01 07 00 02 84 00 04 00 1d 15"),
    (dynamixel.write(1, 116, bytes.fromhex("00020000")), "01 09 00 03 74 00 00 02 00 00 ca 89"),
    (dynamixel.reg_write(1, 104, bytes.fromhex("c8000000")), "01 09 00 04 68 00 c8 00 00 00 ae 8e"),
    (dynamixel.action(1), "01 03 00 05 02 ce"),
    (dynamixel.reboot(1), "01 03 00 08 2f 4e"),
    (dynamixel.sync_read(132, 4, [1, 2]), "fe 09 00 82 84 00 04 00 01 02 ce fa"),
    (
        dynamixel.sync_write(116, {1: bytes.fromhex("96000000"), 2: bytes.fromhex("aa000000")}),
        "fe 11 00 83 74 00 04 00 01 96 00 00 00 02 aa 00 00 00 82 87",
    ),
    (dynamixel.fast_sync_read(132, 4, [3, 7, 4]), "fe 0a 00 8a 84 00 04 00 03 07 04 20 f2"),
    (
        dynamixel.bulk_read({1: (144, 2), 2: (146, 1)}),
        "fe 0d 00 92 01 90 00 02 00 02 92 00 01 00 1a 05",
    ),
]
ANSWERS = [
    ("01 07 00 55 00 06 04 26 65 5d", Status(1, 0, bytes.fromhex("060426"))),
    ("02 07 00 55 00 06 04 26 6f 6d", Status(2, 0, bytes.fromhex("060426"))),
    ("01 08 00 55 00 a6 00 00 00 8c c0", Status(1, 0, bytes.fromhex("a6000000"))),
    ("02 08 00 55 00 1f 08 00 00 ba be", Status(2, 0, bytes.fromhex("1f080000"))),
    ("01 04 00 55 00 a1 0c", Status(1, 0, b"")),
    ("01 06 00 55 00 77 00 c3 69", Status(1, 0, bytes.fromhex("7700"))),
    ("02 05 00 55 00 24 8b a9", Status(2, 0, bytes.fromhex("24"))),
]
FAST = "fe 19 00 55 00 03 a6 00 00 00 84 08 00 07 1f 08 00 00 16 ca 00 04 ff 03 00 00 d1 9e"
FAST_STATUSES = [
    Status(3, 0, bytes.fromhex("a6000000")),
    Status(7, 0, bytes.fromhex("1f080000")),
    Status(4, 0, bytes.fromhex("ff030000")),
]


@pytest.mark.parametrize(("made", "expected"), REQUESTS)
def test_requests_are_the_manuals(made: bytes, expected: str) -> None:
    assert made.hex(" ") == f"ff ff fd 00 {expected}"


@pytest.mark.parametrize(("frame", "expected"), ANSWERS)
def test_answers_are_the_manuals(frame: str, expected: Status) -> None:
    data = bytes.fromhex("fffffd00" + frame)
    (packet,) = Parser().feed(data)
    assert dynamixel.statuses(packet, len(expected.data)) == [expected]
    assert dynamixel.status(*expected) == data


def test_one_answer_of_three_servos() -> None:
    data = bytes.fromhex("fffffd00" + FAST)
    (packet,) = Parser().feed(data)
    assert dynamixel.statuses(packet, 4) == FAST_STATUSES
    assert dynamixel.statuses(packet, 3) == []
    assert dynamixel.merge(FAST_STATUSES) == data


@given(st.binary(max_size=40))
def test_crc_is_buypass(data: bytes) -> None:
    # The check value of the catalogue of CRCs, and another implementation: bit by bit.
    assert dynamixel.crc16(b"123456789") == 0xFEE8
    crc = 0
    for bit in "".join(f"{byte:08b}" for byte in data):
        top = crc >> 15 ^ int(bit)
        crc = (crc << 1 & 0xFFFF) ^ (0x8005 if top else 0)
    assert dynamixel.crc16(data) == crc


def test_a_header_inside_is_stuffed_and_counted() -> None:
    data = bytes.fromhex("ff ff fd 00 ff ff fd fd")
    frame = dynamixel.write(1, 116, data)
    body = frame[8:-2]
    assert body.hex(" ") == "74 00 ff ff fd fd 00 ff ff fd fd fd"
    assert frame[5] == 1 + len(body) + 2
    assert Parser().feed(frame) == [Packet(1, Instruction.WRITE, b"\x74\x00" + data)]


def test_the_answer_to_a_fast_sync_read_is_not_stuffed() -> None:
    answers = [Status(1, 0, bytes.fromhex("fffffdff")), Status(2, 0x80, bytes.fromhex("fffffd00"))]
    frame = dynamixel.merge(answers)
    assert len(frame) == 8 + 2 * 8
    (packet,) = Parser().feed(frame)
    assert dynamixel.statuses(packet, 4) == answers


def test_requests_are_no_answers() -> None:
    (packet,) = Parser().feed(dynamixel.read(1, 132, 4))
    assert dynamixel.statuses(packet, 4) == []


# The stuff that headers and stuffing are made of, far more often than chance would bring it.
tricky = st.lists(st.sampled_from([0xFF, 0xFD, 0x00, 0x55, 0xFE]), max_size=40).map(bytes)
contents = st.one_of(st.binary(max_size=40), tricky)
ids = st.one_of(st.integers(0, 252), st.just(BROADCAST))
packets = st.builds(Packet, ids, st.integers(0, 255), contents)


@given(packets)
def test_whatever_is_sent_arrives(packet: Packet) -> None:
    frame = dynamixel.encode(packet)
    assert Parser().feed(frame) == [packet]
    if packet.code != Instruction.STATUS:
        assert frame.find(dynamixel.HEADER, 1) < 0


@given(st.lists(packets, max_size=6), st.data())
def test_split_anywhere_with_noise_between(sent: list[Packet], data: st.DataObject) -> None:
    # Noise without FF cannot be taken for a header, so that everything must be found.
    quiet = st.binary(max_size=8).map(lambda b: b.replace(b"\xff", b"\x00"))
    stream = b"".join(data.draw(quiet) + dynamixel.encode(p) for p in sent) + data.draw(quiet)
    parser, found, at = Parser(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, 9))
        found += parser.feed(stream[at : at + step])
        at += step
    assert found == sent


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    frame = bytearray(dynamixel.encode(draw(packets)))
    frame[draw(st.integers(0, len(frame) - 1))] ^= draw(st.integers(1, 255))
    return bytes(frame)


@given(st.lists(st.one_of(contents, packets.map(dynamixel.encode), damaged()), max_size=12))
def test_noise_yields_only_packets_that_are_really_there(parts: list[bytes]) -> None:
    parser, whole = Parser(), b"".join(parts)
    for packet in [packet for part in parts for packet in parser.feed(part)]:
        assert dynamixel.encode(packet) in whole


@given(packets, st.one_of(st.binary(max_size=30), tricky))
def test_a_packet_after_any_damage_is_found_in_the_end(packet: Packet, noise: bytes) -> None:
    parser, frame = Parser(), dynamixel.encode(packet)
    found = parser.feed(noise)
    # A false header may swallow up to a longest packet; nothing waits longer than that.
    for _ in range(2 + dynamixel.MAX_LENGTH // len(frame)):
        found += parser.feed(frame + bytes(8))
    assert packet in found


def test_a_damaged_packet_is_counted_and_the_next_one_found() -> None:
    damaged = bytearray(dynamixel.ping(3))
    damaged[-1] ^= 1
    parser = Parser()
    assert parser.feed(bytes(damaged) + dynamixel.ping(4)) == [Packet(4, 1)]
    assert (parser.bad_checksums, parser.noise_bytes) == (1, 10)


@pytest.mark.parametrize("wrong", [Packet(253, 1), Packet(255, 1), Packet(1, 256)])
def test_what_does_not_fit_is_refused(wrong: Packet) -> None:
    with pytest.raises(UserError, match="cannot be sent"):
        dynamixel.encode(wrong)
    with pytest.raises(UserError, match="do not fit one packet"):
        dynamixel.encode(Packet(1, 3, bytes(dynamixel.MAX_LENGTH)))
    with pytest.raises(UserError, match="equally long"):
        dynamixel.sync_write(116, {1: b"\x00", 2: b"\x00\x00"})


def test_errors_in_words() -> None:
    assert dynamixel.error_names(0x87) == ["hardware error", "access error"]
    assert dynamixel.error_names(0) == []


@pytest.mark.parametrize(
    ("name", "address", "size", "low", "high"),
    [
        ("model", 0, 2, 0, 65535),
        ("id", 7, 1, 0, 255),
        ("drive_mode", 10, 1, 0, 255),
        ("operating_mode", 11, 1, 0, 255),
        ("secondary_id", 12, 1, 0, 255),
        ("homing_offset", 20, 4, -(2**31), 2**31 - 1),
        ("max_position", 48, 4, 0, 2**32 - 1),
        ("min_position", 52, 4, 0, 2**32 - 1),
        ("torque_enable", 64, 1, 0, 255),
        ("hardware_error", 70, 1, 0, 255),
        ("goal_current", 102, 2, -32768, 32767),
        ("profile_acceleration", 108, 4, 0, 2**32 - 1),
        ("profile_velocity", 112, 4, 0, 2**32 - 1),
        ("goal_position", 116, 4, -(2**31), 2**31 - 1),
        ("present_current", 126, 2, -32768, 32767),
        ("present_position", 132, 4, -(2**31), 2**31 - 1),
        ("present_voltage", 144, 2, 0, 65535),
        ("present_temperature", 146, 1, 0, 255),
    ],
)
def test_registers_lie_where_the_manual_has_them(
    name: str, address: int, size: int, low: int, high: int
) -> None:
    register = X_SERIES[name]
    assert (register.address, register.size, register.range) == (address, size, (low, high))


def test_registers_do_not_overlap_and_the_eeprom_ends_between_two() -> None:
    taken = [r.address + i for r in X_SERIES.values() for i in range(r.size)]
    assert len(taken) == len(set(taken))
    assert max(taken) < MEMORY_BYTES
    ends = [(r.address, r.address + r.size) for r in X_SERIES.values()]
    assert not any(first < EEPROM_END < last for first, last in ends)


@given(st.sampled_from(sorted(X_SERIES)), st.integers(-(2**33), 2**33))
def test_register_values_survive_or_are_refused(name: str, value: int) -> None:
    register = X_SERIES[name]
    low, high = register.range
    if low <= value <= high:
        assert register.from_bytes(register.to_bytes(value)) == value
    else:
        with pytest.raises(UserError, match=name):
            register.to_bytes(value)
