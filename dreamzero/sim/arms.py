"""The bodies of the tabletop: MJCF from primitives, and what the environment has to know of each.

Joint limits come from the embodiment cards. Link lengths are those of the makers' drawings:
SO-101 (TheRobotStudio/SO-ARM100 URDF), Franka Emika Panda (data sheet, DH parameters), Universal
Robots UR5e (DH parameters). World frame: origin in the middle of the workspace, on the table;
x from the arm to the front camera; z up. Every arm ends in a site ``tip`` whose z axis points out
of the gripper and whose y axis is the one along which the fingers open.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import embodiments
from ..embodiments import Embodiment
from ..errors import UserError
from .bodies import franka, hand, so101, ur5e

_BODIES = {"so101": so101, "franka": franka, "ur5e": ur5e, "hand": hand}
ROBOTS = tuple(_BODIES)


@dataclass(frozen=True)
class Arm:
    """What the environment and the experts know of one body.

    Attributes:
        name: of the robot.
        card: the embodiment it belongs to.
        joints: names of its joints, in card order, the gripper's left out.
        fingers: names of the joints the gripper number drives.
        closed, opened: finger joint positions (rad or m) at gripper 0 and 1.
        base_m: (x, y, z) of the foot.
        home_rad: a pose over the workspace, from which inverse kinematics starts.
        tilt: pairs (radius_m, per_m): for every metre further than a radius from the foot the gripper
            leans outward by so many rad more, so that a short arm reaches the far edge.
        tip_half_m: half width of the closed fingers, what stands between tip and block in a push.
        grasp_offset_m: in a grasp the tip is this far from the block's centre, against the opening
            direction (0 where both fingers move).
        grasp_open: gripper with which it comes down over a block.
        noise: standard deviation of recorded disturbances of each joint (rad, m), some 2 cm at the tip.
        mjcf: XML of the body and of its actuators.
        free_limits: (lower, upper) of a body whose card has none (the hand).
    """

    name: str
    card: Embodiment
    joints: tuple[str, ...]
    fingers: tuple[str, ...]
    closed: float
    opened: float
    base_m: tuple[float, float, float]
    home_rad: tuple[float, ...]
    tilt: tuple[tuple[float, float], ...]
    tip_half_m: float
    grasp_offset_m: float
    grasp_open: float
    noise: tuple[float, ...]
    mjcf: tuple[str, str]
    free_limits: tuple[tuple[float, float], ...] = ()

    @property
    def lower(self) -> tuple[float, ...]:
        """Lower limits of joints (rad) and gripper: the card's where it has some."""
        return self.card.lower or tuple(low for low, _ in self.free_limits)

    @property
    def upper(self) -> tuple[float, ...]:
        """Upper limits of joints (rad) and gripper."""
        return self.card.upper or tuple(high for _, high in self.free_limits)

    @property
    def velocity(self) -> tuple[float, ...]:
        """Greatest speeds, rad/s (m/s) and 1/s."""
        return self.card.velocity or (1.0, 1.0, 1.0, 4.0, 4.0)


def get(robot: str) -> Arm:
    """The arm of that name; UserError names the known ones."""
    if robot not in ROBOTS:
        raise UserError(f"the tabletop has no robot {robot!r}; known: {', '.join(ROBOTS)}")
    card = embodiments.get(f"tabletop_{robot}")
    return Arm(name=robot, card=card, **_BODIES[robot].build(card))
