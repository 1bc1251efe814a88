"""Damaged bytes for every wire: does anything crash, and does anything get through that should not?

Valid frames of each protocol are cut, joined, flipped and mixed with noise, and fed to the side that has
to bear it: emulated servos, an RTDE parser, and a companion with a key.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from .. import embodiments

_PIECE = 256


def fuzz_frames(n: int = 1_000_000, seed: int = 0) -> dict[str, float]:
    """Feed ``n`` damaged frames, a quarter to each protocol.

    Returns:
        ``frames``; ``crashes``, exceptions other than a protocol's own refusal; ``accepted``, damaged
        datagrams of the joint stream that a companion took for genuine; ``us_a_frame``.
    """
    rng = np.random.default_rng(seed)
    crashes, begin = 0, time.perf_counter()
    targets = [_feetech(), _dynamixel(), _rtde()]
    companion, accepted = _companion()
    targets.append(companion)
    for frames, feed in targets:
        for _ in range(n // (len(targets) * _PIECE) + 1):
            for data in _damaged(rng, frames, _PIECE):
                try:
                    feed(data)
                except Exception:  # noqa: BLE001  that nothing is raised is what is counted
                    crashes += 1
    count = len(targets) * _PIECE * (n // (len(targets) * _PIECE) + 1)
    return {
        "frames": float(count),
        "crashes": float(crashes),
        "accepted": float(accepted()),
        "us_a_frame": 1e6 * (time.perf_counter() - begin) / count,
    }


_Target = tuple[list[bytes], Callable[[bytes], object]]


def _damaged(rng: np.random.Generator, frames: list[bytes], count: int) -> list[bytes]:
    """``count`` pieces of bytes, none of which is one of the frames."""
    whole = set(frames)
    out: list[bytes] = []
    while len(out) < count:
        data = bytearray(frames[int(rng.integers(len(frames)))])
        match int(rng.integers(5)):
            case 0:
                data = data[: int(rng.integers(len(data)))]
            case 1:
                for at in rng.integers(len(data), size=int(rng.integers(1, 4))):
                    data[at] ^= 1 << int(rng.integers(8))
            case 2:
                data[int(rng.integers(len(data))) : 0] = rng.bytes(int(rng.integers(1, 9)))
            case 3:
                data = data[int(rng.integers(len(data))) :] + data[: int(rng.integers(len(data)))]
            case _:
                data = bytearray(rng.bytes(int(rng.integers(1, 80))))
        if bytes(data) not in whole:
            out.append(bytes(data))
    return out


def _feetech() -> _Target:
    from . import feetech
    from .feetech.servos import so101

    bus = so101()
    frames = [
        feetech.ping(1),
        feetech.read(2, 56, 2),
        feetech.write(3, 42, b"\x00\x08"),
        feetech.sync_read(56, 2, bus.calibration.ids),
        feetech.sync_write(42, dict.fromkeys(bus.calibration.ids, b"\x10\x08")),
    ]
    return frames, bus.feed


def _dynamixel() -> _Target:
    from .dynamixel import protocol
    from .dynamixel.servos import koch

    bus = koch()
    frames = [
        protocol.ping(1),
        protocol.read(2, 132, 4),
        protocol.write(3, 116, b"\x00\x08\x00\x00"),
        protocol.sync_read(132, 4, bus.calibration.ids),
        protocol.fast_sync_read(132, 4, bus.calibration.ids),
        protocol.sync_write(116, dict.fromkeys(bus.calibration.ids, b"\x10\x08\x00\x00")),
    ]
    return frames, bus.feed


def _rtde() -> _Target:
    from .ur import protocol
    from .ur.protocol import NotRtde, Recipe

    recipe = Recipe(1, ("actual_q", "timestamp"), ("VECTOR6D", "DOUBLE"))
    names = ("actual_q", "timestamp")
    frames = [
        protocol.request_version(),
        protocol.setup_outputs(500, names),
        protocol.setup_inputs(("input_double_register_24",)),
        protocol.start(),
        protocol.text("protective stop"),
        recipe.encode([0.1] * 7),
    ]
    readers: list[Callable[[bytes], object]] = [
        protocol.read_outputs_request,
        protocol.read_names,
        protocol.read_text,
        recipe.decode,
    ]

    def feed(data: bytes) -> None:
        try:
            for package in protocol.Parser().feed(data):
                for read in readers:
                    try:
                        read(bytes(package.payload))
                    except NotRtde:
                        continue
        except NotRtde:
            pass

    return frames, feed


class _Still:
    """A backend that counts what it is told."""

    def __init__(self, width: int) -> None:
        self.pose, self.commands = np.zeros(width), 0

    def read(self) -> np.ndarray:
        return self.pose

    def command(self, q: np.ndarray) -> None:
        self.commands += 1

    def hold(self) -> None:
        """It never moved."""


def _companion() -> tuple[_Target, Callable[[], int]]:
    """A companion in a live session, and genuine commands of that session that it was not sent."""
    from .stream.client import Client
    from .stream.companion import Companion

    card = embodiments.get("tabletop_franka")
    secret, peer, step_ns = bytes(range(32)), ("127.0.0.1", 47801), 1_000_000
    backend = _Still(card.action_dim)
    companion = Companion(backend, card, secret)
    client = Client(card.robot, card.action_dim, secret)
    now_ns = step_ns
    hello = client.poll(now_ns)
    sent = list(hello)
    while client.state is None:
        now_ns += step_ns
        answers = [a for data in sent for a, _ in companion.receive(data, peer, now_ns)]
        answers += [a for a, _ in companion.tick(now_ns)]
        for answer in answers:
            client.receive(answer, now_ns)
        sent = client.poll(now_ns)
    pose = tuple(map(float, backend.pose + 0.1))
    frames = [*hello, *(client.command(pose, 1 / 15, now_ns) for _ in range(8))]

    def feed(data: bytes) -> None:
        nonlocal now_ns
        now_ns += step_ns
        for ping in client.poll(now_ns):  # the session stays alive
            companion.receive(ping, peer, now_ns)
        companion.receive(data, peer, now_ns)
        if now_ns % (5 * step_ns) == 0:
            companion.tick(now_ns)

    return (frames, feed), lambda: backend.commands
