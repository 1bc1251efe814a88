"""Arms behind addresses: ``robots.open("serial:///dev/ttyACM0?baud=1000000", card)``.

Simulated, emulated and real arms are one class, ``Robot``; ``run_episode`` moves any of them
with any policy. Serial and MuJoCo are imported when an arm that needs them is opened.

    base       the contract of an arm            safety, workspace, estop   what keeps it from harm
    episode    run_episode                       streaming, streamer        the loop's process, both ends
    loop       ticks, boundaries, outages        pilot, plan, smoothing     from chunks to setpoints
    recorder, runlog, recording                  what happened, and the dataset it becomes
    uri, transport, camera, calibration, clock   wires, pictures, units, time
    emulation  arms that are not there           benchmark                  what is promised, measured
"""

from __future__ import annotations

import importlib

from ..embodiments import Embodiment
from ..errors import UserError
from .base import Features, LinkLost, Recipe, Robot, RobotFault, Stopped
from .emulation import Emulator, EmulatorConfig
from .episode import run_episode
from .estop import EStop
from .options import Options
from .policies import HoldPolicy, ReplayPolicy
from .runlog import RunLog
from .safety import Guard, Limits, Watchdog
from .uri import Uri, parse
from .workspace import Workspace

__all__ = [
    "EStop",
    "Emulator",
    "EmulatorConfig",
    "Features",
    "Guard",
    "HoldPolicy",
    "Limits",
    "LinkLost",
    "Options",
    "Recipe",
    "ReplayPolicy",
    "Robot",
    "RobotFault",
    "RunLog",
    "Stopped",
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


def open(
    uri: str,
    card: Embodiment,
    *,
    move: bool | None = None,
    speed: float = 1.0,
    step_rad: float | None = None,
    workspace_m: tuple[tuple[float, float], ...] | None = None,
) -> Robot:
    """The arm at an address, not yet connected.

    Args:
        uri: ``serial:///dev/ttyACM0?baud=1000000&camera=v4l2:///dev/video0``, ``tcp://host:port``,
            ``udp://host:port?key=FILE``, ``sim://so101?task=reach-red&seed=0``.
        card: embodiment card that the policy was trained for.
        move: false is a dry run. Left out, emulated and simulated arms move and hardware does not.
        speed: part of the card's joint velocities that is allowed, in (0, 1].
        step_rad: most that one command may differ from the one before, however much time has passed.
        workspace_m: ``((x_low, x_high), (y_low, y_high), (z_low, z_high))``, a box from the arm's foot
            (x ahead, z up) that the tip of the tool stays in.

    Raises:
        UserError: the address is wrong, no driver knows the card's robot there, or the shape of
            this arm is not known and so no box can be kept.
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
    made.guard = Guard(Limits.from_card(card, speed, step_rad), Workspace.of(card, workspace_m))
    made.recipe = Recipe(uri, card, moves, speed, step_rad, workspace_m)
    made.estop = EStop(where)
    return made
