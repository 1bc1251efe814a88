"""Arms behind addresses: ``robots.open("serial:///dev/ttyACM0?baud=1000000", card)``.

Simulated, emulated and real arms are one class, :class:`Robot`; ``run_episode`` moves any of them
with any policy. Serial and MuJoCo are imported when an arm that needs them is opened.
"""

from __future__ import annotations

import importlib

from ..embodiments import Embodiment
from ..errors import UserError
from .base import Features, LinkLost, Robot, RobotFault
from .emulation import Emulator, EmulatorConfig
from .loop import run_episode
from .policies import HoldPolicy, ReplayPolicy
from .runlog import RunLog
from .safety import Guard, Limits, Watchdog
from .uri import Uri, parse

__all__ = [
    "Emulator",
    "EmulatorConfig",
    "Features",
    "Guard",
    "HoldPolicy",
    "Limits",
    "LinkLost",
    "ReplayPolicy",
    "Robot",
    "RobotFault",
    "RunLog",
    "Uri",
    "Watchdog",
    "open",
    "parse",
    "run_episode",
]


# (robot, scheme of the address) -> where its driver is; "" is any robot.
DRIVERS = {
    ("", "sim"): "dreamzero.robots.sim:SimRobot",
    ("so101", "serial"): "dreamzero.robots.feetech.so101:So101",
    ("so101", "tcp"): "dreamzero.robots.feetech.so101:So101",
    ("franka", "udp"): "dreamzero.robots.stream.driver:StreamRobot",
    ("yam", "udp"): "dreamzero.robots.stream.driver:StreamRobot",
    **{
        (robot, scheme): "dreamzero.robots.dynamixel.driver:DynamixelArm"
        for robot in ("koch", "openmanipulator_x", "vx300s")
        for scheme in ("serial", "tcp")
    },
    ("ur5e", "tcp"): "dreamzero.robots.ur.arm:UrRobot",
}


def open(uri: str, card: Embodiment, *, move: bool | None = None, speed: float = 1.0) -> Robot:
    """The arm at an address, not yet connected.

    Args:
        uri: ``serial:///dev/ttyACM0?baud=1000000&camera=v4l2:///dev/video0``, ``tcp://host:port``,
            ``udp://host:port?key=FILE``, ``sim://so101?task=reach-red&seed=0``.
        card: embodiment card that the policy was trained for.
        move: false is a dry run. Left out, emulated and simulated arms move and hardware does not.
        speed: part of the card's joint velocities that is allowed, in (0, 1].

    Raises:
        UserError: the address is wrong, or no driver knows the card's robot there.
    """
    where = parse(uri)
    moves = not where.hardware if move is None else move
    driver = DRIVERS.get((card.robot if where.scheme != "sim" else "", where.scheme))
    if driver is None:
        known = ", ".join(f"{robot} over {scheme}" for robot, scheme in DRIVERS if robot)
        raise UserError(
            f"{uri}: there is no driver for {card.robot} over {where.scheme}; known: {known}"
        )
    module, _, name = driver.partition(":")
    made: Robot = getattr(importlib.import_module(module), name)(
        where, card, move=moves, speed=speed
    )
    return made
