"""A network of nothing but numbers: two ends of the stream, their clocks, and what happens on the way."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dreamzero import embodiments
from dreamzero.robots.stream.backend import ArmFault, Rules
from dreamzero.robots.stream.bodies import Role
from dreamzero.robots.stream.client import Client
from dreamzero.robots.stream.companion import Companion

CARD = embodiments.get("tabletop_franka")
LOWER, UPPER, VELOCITY = (np.array(x) for x in (CARD.lower, CARD.upper, CARD.velocity))
HOME = np.array([0.0, -0.15, 0.0, -2.35, 0.0, 2.2, 0.785, 0.5])
KEY = bytes(range(32))
DRIVER, ARM = ("10.0.0.1", 5000), ("10.0.0.5", 47800)


class Arm:
    """A backend that goes where it is told at once, and remembers when it was told what."""

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        self.now = now
        self.pose = HOME.copy()
        self.commands: list[tuple[float, np.ndarray]] = []
        self.holds: list[float] = []
        self.trouble: ArmFault | None = None

    def read(self) -> np.ndarray:
        if self.trouble is not None:
            raise self.trouble
        return self.pose

    def command(self, q: np.ndarray) -> None:
        self.pose = q.copy()
        self.commands.append((self.now(), q.copy()))

    def hold(self) -> None:
        self.holds.append(self.now())

    def unsafe(self, rules: Rules) -> list[str]:
        """Commands outside limits, or further from an earlier one than the velocities allow."""
        found = []
        slack = VELOCITY * 2 / rules.control_hz + 1e-9
        for i, (t, q) in enumerate(self.commands):
            if (q < LOWER - 1e-9).any() or (q > UPPER + 1e-9).any():
                found.append(f"at {t}: {q} is outside the limits")
            for before, last in self.commands[max(0, i - 20) : i]:
                if (np.abs(q - last) > VELOCITY * (t - before) + slack).any():
                    found.append(f"at {t}: {np.abs(q - last).max()} rad within {t - before} s")
        return found


@dataclass
class Weather:
    """What the network does to a datagram; the two ways may differ."""

    delay_s: float = 0.002
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    asymmetry_s: float = 0.0
    blackouts: tuple[tuple[float, float], ...] = ()


@dataclass
class Net:
    """True time, in seconds; the companion's clock runs ``drift`` fast and started elsewhere."""

    weather: Weather = field(default_factory=Weather)
    seed: int = 0
    rules: Rules = field(default_factory=Rules)
    secret: bytes = KEY
    drift: float = 30e-6
    offset_s: float = -1234.5
    role: Role = Role.COMMAND

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.now_s = 0.0
        self.arm = Arm(lambda: self.now_s)
        self.companion = Companion(
            self.arm, CARD, self.secret, self.rules, random=self.dice.randbytes
        )
        self.client = self.driver()
        self.wire: list[tuple[float, int, bool, bytes]] = []
        self.sent = 0
        self.capture: list[bytes] = []
        self.command_times: dict[int, float] = {}
        self.taken: list[tuple[int, float]] = []

    def driver(self, **changes) -> Client:
        options = {"robot": CARD.robot, "count": CARD.action_dim, "secret": self.secret}
        options |= {"role": self.role, "random": self.dice.randbytes}
        return Client(**(options | changes))

    def ours(self) -> int:
        """The driver's clock, ns."""
        return round((self.now_s + 5000) * 1e9)

    def theirs(self) -> int:
        """The companion's clock, ns."""
        return round((self.now_s * (1 + self.drift) + 5000 + self.offset_s) * 1e9)

    def put(self, data: bytes, upward: bool) -> None:
        """A datagram on the wire, to the arm if ``upward``."""
        weather, dice = self.weather, self.dice
        if upward:
            self.capture.append(data)
        if any(start <= self.now_s < end for start, end in weather.blackouts):
            return
        for _ in range(1 + (dice.random() < weather.duplicate)):
            if dice.random() < weather.loss:
                continue
            copy = bytearray(data)
            if dice.random() < weather.corrupt:
                copy[dice.randrange(len(copy))] ^= 1 << dice.randrange(8)
            due = self.now_s + weather.delay_s + dice.uniform(0, weather.jitter_s)
            due += weather.asymmetry_s if upward else 0.0
            self.sent += 1
            heapq.heappush(self.wire, (due, self.sent, upward, bytes(copy)))

    def command(self, values: np.ndarray, duration_s: float = 1 / 15) -> None:
        data = self.client.command(tuple(map(float, values)), duration_s, self.ours())
        self.command_times[self.client.channel.sent] = self.now_s
        self.put(data, True)

    def run(self, seconds: float, each: Callable[[float], None] | None = None, hz: float = 15.0):
        """Let time pass; ``each`` is called ``hz`` times a second once the session is open."""
        end = self.now_s + seconds
        step = 1 / self.rules.control_hz
        calls = 0
        begin = self.now_s
        while self.now_s < end:
            next_tick = self.now_s + step
            while self.wire and self.wire[0][0] <= next_tick:
                self.now_s, _, upward, data = heapq.heappop(self.wire)
                if upward:
                    for answer, _ in self.companion.receive(data, DRIVER, self.theirs()):
                        self.put(answer, False)
                    self._note()
                else:
                    self.client.receive(data, self.ours())
            self.now_s = next_tick
            for data, _ in self.companion.tick(self.theirs()):
                self.put(data, False)
            for data in self.client.poll(self.ours()):
                self.put(data, True)
            if each is not None and self.client.state is not None:
                while calls <= (self.now_s - begin) * hz:
                    calls += 1
                    each(self.now_s)

    def _note(self) -> None:
        taken = self.companion.report()["taken"]
        if taken in self.command_times and (not self.taken or self.taken[-1][0] != taken):
            self.taken.append((taken, self.now_s - self.command_times[taken]))
