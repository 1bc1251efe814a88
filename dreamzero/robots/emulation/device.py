"""What stands between an emulated arm's wire and its physics, and which arms there are."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from ...errors import UserError


class Wire(Protocol):
    """Where a client reaches the arm.

    Attributes:
        address: URI, with the options that the wire needs (``serial:///dev/pts/3``,
            ``tcp://127.0.0.1:30004?emulated=1``).
        port: what a person would call it: a device path, or host and port.
    """

    address: str
    port: str

    def unplug(self) -> None:
        """Pull the cable: whoever holds the other end loses it, and nobody gets in."""

    def replug(self) -> None:
        """Put it back at the same address."""

    def close(self) -> None:
        """Gone for good. Safe to call twice."""


class Device(Protocol):
    """The electronics: it answers the wire byte for byte, on the wire's thread.

    The world's thread asks it for ``goals``, moves the arm, and tells it what it ``measure``d.

    Attributes:
        names: of the action's dimensions.
        faults: kinds that ``fault`` takes.
    """

    names: tuple[str, ...]
    faults: tuple[str, ...]

    def goals(self) -> tuple[np.ndarray, np.ndarray]:
        """(float64 ``[a]`` goals in the card's units, bool ``[a]`` driven and free to move)."""

    def measure(self, values: np.ndarray, elapsed_s: float) -> None:
        """Take measured positions, float ``[a]``; ``elapsed_s`` since the last ones."""

    def rest(self) -> None:
        """Make the present positions the goals (after the arm was put elsewhere)."""

    def fault(self, kind: str, joint: int) -> None:
        """Break something, or "mend" it.

        Args:
            joint: which one, as the wire counts them (a servo's id); 0 where the kind has none.

        Raises:
            UserError: no such joint.
        """

    def report(self) -> dict[str, Any]:
        """What a test may ask: ``packets`` seen, and whatever the device has to say."""

    def listen(self, at: str) -> Wire:
        """Open the wire at "pty", "tcp://127.0.0.1:0" ...; UserError if it has none there."""


@dataclass(frozen=True)
class Emulated:
    """An arm that can be emulated.

    Attributes:
        card: its embodiment card.
        device: "module:function" that makes its ``Device``.
        at: where it listens unless told otherwise.
        what: one line for ``--help``.
        body: card whose simulated body it moves; empty: its own card's; None: there is none.
    """

    card: str
    device: str
    at: str
    what: str
    body: str | None = ""

    def make(self) -> Device:
        module, _, name = self.device.partition(":")
        return cast(Device, getattr(importlib.import_module(module), name)())


ARMS = {
    "so101": Emulated(
        "tabletop_so101", "dreamzero.robots.feetech.servos:so101", "pty", "six STS3215 on a pty"
    ),
    "franka": Emulated(
        "tabletop_franka",
        "dreamzero.robots.stream.emulator:franka",
        "udp://127.0.0.1:0",
        "a companion computer on UDP",
    ),
    "yam": Emulated(
        "yam_arm",
        "dreamzero.robots.stream.emulator:yam",
        "udp://127.0.0.1:0",
        "a companion computer on UDP",
        body=None,
    ),
    "koch": Emulated(
        "tabletop_koch",
        "dreamzero.robots.dynamixel.servos:koch",
        "pty",
        "two XL430 and four XL330 on a pty, moving the SO-101's body",
        body="tabletop_so101",
    ),
    "openmanipulator_x": Emulated(
        "openmanipulator_x",
        "dreamzero.robots.dynamixel.servos:openmanipulator_x",
        "pty",
        "five XM430 on a pty",
        body=None,
    ),
    "vx300s": Emulated(
        "vx300s",
        "dreamzero.robots.dynamixel.servos:vx300s",
        "pty",
        "seven XM540 and two XM430 on a pty",
        body=None,
    ),
    "ur5e": Emulated(
        "tabletop_ur5e",
        "dreamzero.robots.ur.controller:Controller",
        "tcp://127.0.0.1:0",
        "an e-Series controller: RTDE, scripts, dashboard, Robotiq gripper",
    ),
}


def find(robot: str) -> Emulated:
    """The arm of that name; UserError names the known ones."""
    if robot not in ARMS:
        raise UserError(f"no emulator of {robot!r}; known: {', '.join(ARMS)}")
    return ARMS[robot]
