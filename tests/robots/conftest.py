"""Arms for tests: one on a simulated clock, and one behind a real pseudo-terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dreamzero import embodiments
from dreamzero.errors import UserError
from dreamzero.robots.base import Features, LinkLost, Robot, RobotFault
from dreamzero.robots.clock import ManualClock
from dreamzero.robots.dynamixel.driver import DynamixelArm
from dreamzero.robots.emulation import ARMS
from dreamzero.robots.emulation.pty import PtyWire
from dreamzero.robots.feetech.so101 import So101
from dreamzero.robots.servos.arm import ServoArm
from dreamzero.robots.servos.emulated import ServoBus
from dreamzero.robots.uri import parse
from dreamzero.types import Observation

# Two actions a frame: what the loop must keep apart.
CARD = embodiments.get("tabletop_so101").with_(video_hz=7.5, horizon=16)
VIEW = CARD.views[0]


class ClockworkArm(Robot):
    """An arm that goes where it is told, on a clock that moves by what each call costs.

    Its pictures carry their number in every pixel.
    """

    def __init__(self, cost_s: float = 0.0) -> None:
        clock = ManualClock(100.0)
        super().__init__(CARD, Features.from_card(CARD, {VIEW: (4, 4)}), clock)
        self.manual = clock
        self.cost_s = cost_s
        self.pose = np.zeros(CARD.action_dim, np.float32)
        self.sent: list[tuple[float, np.ndarray]] = []
        self.pictures = 0
        self.fail_after: int | None = None
        # Seconds on the clock between which there is no wire, and the pose the arm comes back in.
        self.outage_s = (np.inf, np.inf)
        self.moved_to: np.ndarray | None = None
        self.opened = 0

    def _cut(self) -> bool:
        return self.outage_s[0] <= self.manual.now() < self.outage_s[1]

    def _open(self) -> None:
        if self._cut():
            raise UserError("there is no port")
        self.opened += 1
        if self.opened > 1 and self.moved_to is not None:
            self.pose = self.moved_to

    def _observe(self, views: tuple[str, ...]) -> Observation:
        if self._cut():
            raise LinkLost("the wire is cut")
        self.manual.advance(self.cost_s)
        frames = {}
        for view in views:
            frames[view] = np.full((4, 4, 3), self.pictures % 256, np.uint8)
            self.pictures += 1
        return Observation(frames, self.pose.copy(), self.manual.now())

    def _send(self, action: np.ndarray) -> np.ndarray:
        if self._cut():
            raise LinkLost("the wire is cut")
        if self.fail_after is not None and len(self.sent) >= self.fail_after:
            raise RobotFault("the wire is cut")
        self.pose = np.asarray(action, np.float32)
        self.sent.append((self.manual.now(), self.pose))
        return self.pose

    def relax(self) -> None:
        self.relaxed = True

    def _close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def ordinary() -> Iterator[None]:
    """This process stays an ordinary one: a command that makes its own a punctual one is run within it
    here, and every later test would go before all that another worker measures in real time."""
    before = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None
    yield
    if before is not None and os.sched_getscheduler(0) != before:
        os.sched_setscheduler(0, before, os.sched_param(0))


@pytest.fixture
def arm() -> Iterator[ClockworkArm]:
    with ClockworkArm() as robot:
        yield robot


class PtyArm:
    """Servos on a pty in this process, with nothing that moves them but the test."""

    def __init__(self, robot: str = "so101", bus: ServoBus | None = None) -> None:
        self.robot = robot
        self.card = CARD if robot == "so101" else embodiments.get(ARMS[robot].card)
        self.bus = bus or ARMS[robot].make()
        self.wire = PtyWire(self.bus.feed)
        self.uri = parse(f"serial://{self.wire.port}")

    def servo(self, identity: int):
        return next(s for s in self.bus.everyone if s.get("id") == identity)

    def driver(self, query: str = "", **options) -> ServoArm:
        kind = So101 if self.robot == "so101" else DynamixelArm
        uri = parse(f"{self.uri}?{query}") if query else self.uri
        return kind(uri, self.card, **options)


@pytest.fixture
def pty_arm() -> Iterator[PtyArm]:
    arm = PtyArm()
    yield arm
    arm.wire.close()


@pytest.fixture
def koch() -> Iterator[PtyArm]:
    arm = PtyArm("koch")
    yield arm
    arm.wire.close()


@pytest.fixture
def viper() -> Iterator[PtyArm]:
    arm = PtyArm("vx300s")
    yield arm
    arm.wire.close()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are recorded under the working folder."""
    monkeypatch.chdir(tmp_path)
