"""Where the tip is for given joint positions: the MJCF's chain of bodies in numpy, without MuJoCo.

For what must run where no simulator is installed, such as the limits of a real arm; inside the simulator
``ik.Solver`` does the same on MuJoCo's data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from xml.etree import ElementTree

import numpy as np

from ..errors import UserError
from .arms import Arm


@dataclass(frozen=True)
class _Link:
    """A body in its parent's frame, and the hinge it turns about (None: it is fixed)."""

    position: np.ndarray
    rotation: np.ndarray
    axis: np.ndarray | None


class Chain:
    """Hinges from the foot of an arm to its tip.

    Args:
        links: in order from the foot.
        tip: position of the tip in the last link, m.
    """

    def __init__(self, links: list[_Link], tip: np.ndarray) -> None:
        self._links, self._tip = links, tip
        self.joints = sum(link.axis is not None for link in links)

    @classmethod
    def of(cls, arm: Arm) -> Self:
        """The chain of a body of the tabletop; UserError if it has other joints than hinges."""
        root = ElementTree.fromstring(f"<mjcf>{arm.mjcf[0]}</mjcf>")
        path = _path(root)
        links = []
        for body in path:
            joint = body.find("joint")
            axis = None
            if joint is not None:
                if joint.get("type", "hinge") != "hinge" or joint.get("pos") is not None:
                    raise UserError(f"the chain of {arm.name} has a joint that is no plain hinge")
                axis = _numbers(joint.get("axis", "0 0 1"))
                axis = axis / np.linalg.norm(axis)
            position = _numbers(body.get("pos", "0 0 0"))
            links.append(_Link(position, _rotation(_numbers(body.get("quat", "1 0 0 0"))), axis))
        # The foot is where distances are counted from, wherever the scene puts it.
        links[0] = _Link(np.zeros(3), links[0].rotation, links[0].axis)
        site = next(site for site in path[-1].findall("site") if site.get("name") == "tip")
        return cls(links, _numbers(site.get("pos", "0 0 0")))

    def tip(self, joints: np.ndarray) -> np.ndarray:
        """Tip from the foot, float64 ``[3]`` m, of joint positions ``[joints]`` in rad."""
        place, turn, used = np.zeros(3), np.eye(3), 0
        for link in self._links:
            place = place + turn @ link.position
            turn = turn @ link.rotation
            if link.axis is not None:
                turn = turn @ _about(link.axis, float(joints[used]))
                used += 1
        return place + turn @ self._tip


def _path(root: ElementTree.Element) -> list[ElementTree.Element]:
    """Bodies from the outermost to the one that holds the site ``tip``."""
    parents = {child: parent for parent in root.iter() for child in parent}
    site = next(site for site in root.iter("site") if site.get("name") == "tip")
    path = [parents[site]]
    while parents[path[0]] is not root:
        path.insert(0, parents[path[0]])
    return path


def _numbers(text: str) -> np.ndarray:
    return np.array([float(word) for word in text.split()])


def _rotation(quaternion: np.ndarray) -> np.ndarray:
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _about(axis: np.ndarray, angle_rad: float) -> np.ndarray:
    """Rotation matrix about a unit axis."""
    half = angle_rad / 2
    return _rotation(np.array([np.cos(half), *(np.sin(half) * axis)]))
