"""Frames: what is in comes out, and nothing passes that was not tagged with the key."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.robots.stream import bodies, protocol
from dreamzero.robots.stream.bodies import Command, Hello, Refusal, State, Welcome
from dreamzero.robots.stream.client import Client
from dreamzero.robots.stream.companion import Companion
from dreamzero.robots.stream.protocol import Echo, Frame, FrameError, Kind
from dreamzero.robots.stream.session import Channel, Window, handshake_keys, session_keys

from .conftest import CARD, DRIVER, KEY, Arm, Net

README = Path(protocol.__file__).with_name("README.md").read_text(encoding="utf-8")
u64 = st.integers(0, 2**64 - 1)
nonces = st.binary(min_size=16, max_size=16)
keys = st.binary(min_size=16, max_size=40)
frames = st.builds(
    Frame, st.integers(0, 255), u64, st.integers(1, 2**64 - 1), u64,
    st.builds(Echo, u64, u64, u64, u64), st.binary(max_size=200),
)  # fmt: skip
doubles = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20)
singles = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1)


@given(frames, keys)
def test_a_frame_comes_back_as_it_was(frame: Frame, key: bytes) -> None:
    data = protocol.pack(frame, key)
    assert len(data) == protocol.OVERHEAD + len(frame.body)
    assert protocol.parse(data) == frame
    assert protocol.authentic(data, key)
    assert not protocol.authentic(data, key + b"!")


def test_every_single_flipped_bit_is_refused() -> None:
    frame = Frame(Kind.COMMAND, 77, 5, 123, Echo(1, 2, 3, 4), Command((0.1,) * 8, 66_667).pack())
    data = protocol.pack(frame, KEY)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            protocol.parse(bytes(flipped))
        except FrameError:
            continue
        # Only the tag stands behind the CRC.
        assert bit // 8 >= len(data) - protocol.TAG_BYTES
        assert not protocol.authentic(bytes(flipped), KEY)


@given(frames, keys, st.integers(-40, 40).filter(bool))
def test_cut_and_lengthened_frames_are_refused(frame: Frame, key: bytes, change: int) -> None:
    data = protocol.pack(frame, key)
    wrong = data[:change] if change < 0 else data + bytes(change)
    with pytest.raises(FrameError):
        protocol.parse(wrong)


def stray(data: bytes) -> st.SearchStrategy[bytes]:
    """Anything, and things that begin like a frame or nearly are one."""
    whole = bytearray(data)

    def smeared(places: list[tuple[int, int]]) -> bytes:
        copy = bytearray(whole)
        for place, value in places:
            copy[place % len(copy)] = value
        return bytes(copy)

    places = st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 255)), min_size=1, max_size=6)
    return (
        st.binary(max_size=300)
        | st.binary(max_size=300).map(b"DZJS\x01".__add__)
        | places.map(smeared)
    )


net = Net()
net.run(0.2)
LIVE = net.client.channel.seal(Kind.COMMAND, Command((0.1,) * 8, 66_667).pack(), net.ours())


@given(st.lists(stray(LIVE), min_size=1, max_size=10))
def test_any_bytes_are_taken_without_a_word_and_without_effect(chunks: list[bytes]) -> None:
    taken, count = net.companion.report()["taken"], net.client.channel.received
    for data in chunks:
        if data == LIVE:
            continue
        net.companion.receive(data, DRIVER, net.theirs())
        net.client.receive(data, net.ours())
    assert net.companion.report()["taken"] == taken
    assert net.companion.report()["counts"].get("commands", 0) == 0
    assert net.client.channel.received == count


@given(st.sampled_from([Hello, Welcome, Refusal, State, Command]), st.binary(max_size=80))
def test_any_bytes_are_a_body_or_a_frame_error(kind: type, data: bytes) -> None:
    try:
        kind.unpack(data)
    except FrameError as error:
        assert error.cause == "body"


@given(
    nonces, nonces, st.integers(0, 2**32 - 1), doubles, singles, st.text(max_size=20), st.binary()
)
def test_bodies_come_back_and_later_fields_do_not_disturb(
    nonce, other, number, wide, narrow, text, later
) -> None:
    text = "".join(c for c in text if c.isprintable())
    for body in (
        Hello(nonce, 1, 8, text[:16]),
        Welcome(nonce, other, number, 1, 2, 3),
        State(tuple(wide), number, 3, 1, 7, 9, 10),
        Command(tuple(narrow), number),
    ):
        assert type(body).unpack(body.pack()) == body
        assert type(body).unpack(body.pack() + later) == body
    refusal = Refusal(nonce, 3, text)
    assert Refusal.unpack(refusal.pack() + later).reason == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(FrameError, match="body"):
        Command.unpack(Command((0.0, value), 1).pack())


def test_what_does_not_fit_a_frame() -> None:
    with pytest.raises(ValueError, match="1025 bytes"):
        protocol.pack(Frame(1, 1, 1, 1, body=bytes(1025)), KEY)
    with pytest.raises(ValueError, match="range|format|<="):
        protocol.pack(Frame(1, 2**64, 1, 1), KEY)


def test_a_kind_from_a_later_release_is_ignored() -> None:
    net = Net()
    net.run(0.2)
    data = net.client.channel.seal(42, b"from the future", net.ours())  # type: ignore[arg-type]
    assert net.companion.receive(data, DRIVER, net.theirs()) == []
    net.run(0.1)
    assert net.companion.report()["sessions"] == 1


@given(st.lists(st.integers(1, 700), max_size=200))
def test_a_window_lets_each_number_pass_once_in_any_order(numbers: list[int]) -> None:
    window, seen = Window(), set()
    for number in numbers:
        fresh = number not in seen and number > max(seen, default=0) - 256
        assert window.admit(number) == fresh
        seen.add(number)


def test_a_huge_step_is_no_work() -> None:
    window = Window()
    assert window.admit(2**63)
    assert not window.admit(5)
    assert window.admit(2**64 - 1)
    assert not window.admit(2**63)


def test_a_channel_counts_losses_of_both_ways() -> None:
    one, other = Channel(1, b"a", b"b"), Channel(1, b"b", b"a")
    for i in range(20):
        data = one.seal(Kind.PING, b"", i)
        if i % 4:
            assert other.admit(data, protocol.parse(data), i)
    answer = other.seal(Kind.PING, b"", 30)
    assert one.admit(answer, protocol.parse(answer), 31)
    assert other.stats(40)["loss_in"] == pytest.approx(0.25)
    assert one.stats(40)["loss_out"] == pytest.approx(0.25)
    assert one.stats(40)["loss_in"] == 0


def test_a_frame_sent_back_to_its_sender_is_none() -> None:
    one = Channel(1, b"a", b"b")
    data = one.seal(Kind.COMMAND, b"", 0)
    assert not one.admit(data, protocol.parse(data), 1)
    assert one.counts["forged"] == 1


def test_the_example_of_the_readme() -> None:
    """Written down for authors of other ends; the keys were checked against ``openssl kdf``."""
    keys, frame = ("".join(block.split()) for block in re.findall(r"```\n([0-9a-f\s]+)```", README))
    welcome = Welcome(b"\xaa" * 16, b"\xbb" * 16, 1, 1, 1, 1)
    driver, companion = session_keys(bytes(range(32)), welcome, 0x1122334455667788)
    assert (driver + companion).hex() == keys
    data = bytes.fromhex(frame)
    assert protocol.authentic(data, driver)
    assert protocol.parse(data) == Frame(
        Kind.COMMAND, 0x1122334455667788, 7, 10**9, Echo(5, 4, 9 * 10**8, 2 * 10**9),
        Command((0.25, -0.5), 66_667).pack(),
    )  # fmt: skip


def test_the_tables_are_those_of_the_code() -> None:
    """Offsets in the docstrings, which other authors go by, against the structures."""
    rows = re.findall(r"^ +(\d+) +(\d+)  (\w[\w ]*)", protocol.__doc__, re.MULTILINE)
    at = 0
    for start, size, _ in rows:
        assert int(start) == at
        at += int(size)
    assert at == protocol.OVERHEAD - 20 == struct.calcsize("<4sBBH7Q")
    state = State((1.0,), 2, 3, 4, 5, 6, 7)
    assert state.pack() == struct.pack("<BBHHHQQQd", 1, 8, 3, 4, 5, 2, 6, 7, 1.0)
    assert "32   -  count numbers" in bodies.__doc__


class SecondAuthor:
    """A driver written from README.md and the tables alone: none of the project's code."""

    def __init__(self, secret: bytes, robot: bytes, count: int) -> None:
        self.secret, self.robot, self.count = secret, robot, count
        self.nonce = bytes(range(100, 116))

    def hkdf(self, salt: bytes, info: bytes) -> bytes:
        import hmac

        return hmac.new(
            hmac.new(salt, self.secret, "sha256").digest(), info + b"\x01", "sha256"
        ).digest()

    def frame(
        self, key: bytes, kind: int, session: int, sequence: int, sent: int, echo, body: bytes
    ):
        import hmac
        import zlib

        head = b"DZJS" + struct.pack(
            "<BBHQQQQQQQ", 1, kind, len(body), session, sequence, sent, *echo
        )
        data = head + body
        data += struct.pack("<I", zlib.crc32(data))
        return data + hmac.new(key, data, "sha256").digest()[:16]

    def hello(self) -> bytes:
        body = self.nonce + bytes((1, self.count, len(self.robot), 0)) + self.robot
        key = self.hkdf(b"", b"dreamzero stream 1 handshake driver")
        return self.frame(key, 1, 0, 1, 10**9, (0, 0, 0, 0), body)

    def take_welcome(self, data: bytes) -> None:
        assert data[5] == 2
        assert data[64:80] == self.nonce
        (self.session,) = struct.unpack_from("<Q", data, 8)
        info = b"dreamzero stream 1 session " + struct.pack("<Q", self.session)
        self.key = self.hkdf(self.nonce + data[80:96], info + b" driver")

    def state(self, data: bytes) -> tuple:
        assert data[5] == 4
        (sequence, sent) = struct.unpack_from("<QQ", data, 16)
        count, width = data[64], data[65]
        assert width == 8
        self.echo = (sequence, 1, sent)
        return struct.unpack_from(f"<{count}d", data, 96)


def test_a_driver_written_from_the_page_alone_moves_the_arm() -> None:
    arm, ms = Arm(), 1_000_000
    companion = Companion(arm, CARD, KEY)
    driver = SecondAuthor(KEY, b"franka", 8)
    companion.tick(0)
    ((welcome, _),) = companion.receive(driver.hello(), DRIVER, 0)
    driver.take_welcome(welcome)
    ping = driver.frame(driver.key, 7, driver.session, 1, 10**9, (0, 0, 0, 0), b"")
    assert companion.receive(ping, DRIVER, 1 * ms) == []
    ((state, _),) = companion.tick(20 * ms)
    pose = driver.state(state)
    assert pose == pytest.approx(arm.pose)
    target = [*pose[:-1], 0.6]
    body = struct.pack("<BBHI8f", 8, 4, 0, 20_000, *target)
    echo = (*driver.echo, 10**9 + 21 * ms)
    command = driver.frame(driver.key, 5, driver.session, 2, 10**9 + 22 * ms, echo, body)
    companion.receive(command, DRIVER, 22 * ms)
    for t in range(25, 80, 5):
        companion.tick(t * ms)
    assert arm.pose == pytest.approx(target, abs=1e-6)


def test_keys_differ_by_direction_nonce_and_session() -> None:
    welcome, other = (
        Welcome(b"a" * 16, b"b" * 16, 1, 1, 1, 1),
        Welcome(b"c" * 16, b"b" * 16, 1, 1, 1, 1),
    )
    found = {*handshake_keys(KEY), *session_keys(KEY, welcome, 1), *session_keys(KEY, welcome, 2)}
    found |= {*session_keys(KEY, other, 1), *handshake_keys(b"")}
    assert len(found) == 10


def test_a_client_asks_again_until_it_is_answered() -> None:
    client = Client("franka", 8, KEY)
    asked = [t for t in range(0, 1000, 10) if client.poll(t * 1_000_000)]
    assert asked == list(range(0, 1000, 100))
