"""A box around an arm that the tip of its tool may not leave, by forward kinematics, without I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np

from ..embodiments import Embodiment
from ..errors import UserError

Box = tuple[tuple[float, float], ...]


class Workspace:
    """Says how far outside its box the tool is.

    Args:
        box_m: ``((x_low, x_high), (y_low, y_high), (z_low, z_high))`` from the arm's foot; x ahead, z up.
        tip: where the tool is, float ``[3]`` in m from the foot, of an action float ``[a]``.
    """

    def __init__(self, box_m: Box, tip: Callable[[np.ndarray], np.ndarray]) -> None:
        box = np.array(box_m, dtype=np.float64)
        if box.shape != (3, 2) or not np.isfinite(box).all() or (box[:, 0] >= box[:, 1]).any():
            raise UserError(
                f"workspace {box_m} is no box: give low < high in m for x, y and z from the foot"
            )
        self.tip = tip
        self._low, self._high = box.T

    @classmethod
    def of(cls, card: Embodiment, box_m: Box | None) -> Self | None:
        """The workspace of a card's arm; None without a box.

        The shape is that of the simulator's body of the same robot, zero pose and signs as on the
        card: a real arm has to be calibrated to those for its box to be where it should.

        Raises:
            UserError: no box, or a robot whose shape is not known.
        """
        if box_m is None:
            return None
        from ..sim import arms, kinematics

        if card.robot not in arms.ROBOTS:
            raise UserError(
                f"the shape of {card.robot} is not known ({', '.join(arms.ROBOTS)} are), so no "
                "workspace can be kept: leave it out"
            )
        arm = arms.get(card.robot)
        chain = kinematics.Chain.of(arm)
        joints = len(arm.joints)
        return cls(box_m, lambda action: chain.tip(action[:joints]))

    def outside_m(self, action: np.ndarray) -> float:
        """Distance of the tool from the box, 0 inside, m, for joints float ``[a]``."""
        tip = self.tip(action)
        gap = np.maximum(np.maximum(self._low - tip, tip - self._high), 0.0)
        return float(np.sqrt(gap @ gap))
