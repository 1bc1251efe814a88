"""How long one look at all joints takes, over a real port or an emulated one."""

from __future__ import annotations

import time

import numpy as np

from ...embodiments import Embodiment
from ...errors import UserError
from .arm import ServoArm


def time_sync_read(uri: str, card: Embodiment, n: int = 200, pause_s: float = 0.002) -> np.ndarray:
    """Time reads of every joint's position, as the control loop does them. Nothing moves.

    Args:
        uri: address of an arm of servos, as for ``robots.open``.
        n: how often.
        pause_s: rest between two reads, so that no read finds the bus still busy.

    Returns:
        float64 ``[n]``, seconds from the request to the last joint in radians.

    Raises:
        UserError: the address leads to no arm of servos. RobotFault: no answer.
    """
    from .. import open as open_robot

    robot = open_robot(uri, card, move=False)
    if not isinstance(robot, ServoArm):
        raise UserError(f"{uri}: {card.robot} has no servo bus whose reads could be timed")
    seconds = np.zeros(n)
    with robot:
        for i in range(n):
            start = time.perf_counter()
            robot.observe(views=())
            seconds[i] = time.perf_counter() - start
            time.sleep(pause_s)
    return seconds
