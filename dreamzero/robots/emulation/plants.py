"""What the emulated servos move: a first-order lag, or the MuJoCo arm on its table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...embodiments import Embodiment
from ...errors import UserError

if TYPE_CHECKING:
    from ...sim import Scene

VIEWS = ("front", "side", "wrist")


class Plant(Protocol):
    """Something with joints, advanced in real time by one thread."""

    def reset(self, task: str | None, suite: str, seed: int) -> None:
        """Put the arm and the table into the start of a scene."""

    def joints(self) -> np.ndarray:
        """Float64 ``[a]``: measured positions, rad, the gripper 0..1."""

    def advance(self, goal: np.ndarray, seconds: float) -> None:
        """Drive towards ``goal``, float ``[a]``, for a while."""

    def frame(self, view: str) -> np.ndarray:
        """uint8 ``[size_px, size_px, 3]``."""

    def score(self) -> dict[str, Any]:
        """``{"instruction", "success", "progress"}``."""

    def close(self) -> None: ...


class LagPlant:
    """Every joint follows its goal with one time constant, within the card's limits. No MuJoCo.

    Its camera shows a bar a joint, half-way up the picture at the middle of its range.
    """

    def __init__(self, card: Embodiment, size_px: int = 64, lag_s: float = 0.06) -> None:
        self._lower, self._upper = np.array(card.lower), np.array(card.upper)
        self._velocity = np.array(card.velocity)
        self._size_px = size_px
        self._lag_s = lag_s
        self._joints = np.clip(0.0, self._lower, self._upper)

    def reset(self, task: str | None, suite: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        middle = (self._lower + self._upper) / 2
        self._joints = middle + (self._upper - middle) * rng.uniform(-0.2, 0.2, len(middle))

    def joints(self) -> np.ndarray:
        return self._joints.copy()

    def advance(self, goal: np.ndarray, seconds: float) -> None:
        inside = np.clip(goal, self._lower, self._upper)
        step = (inside - self._joints) * (1 - np.exp(-seconds / self._lag_s))
        reach = self._velocity * seconds
        self._joints = self._joints + np.clip(step, -reach, reach)

    def frame(self, view: str) -> np.ndarray:
        size = self._size_px
        picture = np.full((size, size, 3), 235, np.uint8)
        share = (self._joints - self._lower) / (self._upper - self._lower)
        width = size // len(share)
        for i, part in enumerate(np.clip(share, 0, 1)):
            top = size - max(1, round(part * size))
            picture[top:, i * width + 1 : (i + 1) * width - 1] = (40, 90, 40 + 30 * (i % 7))
        return picture

    def score(self) -> dict[str, Any]:
        return {"instruction": "", "success": False, "progress": 0.0}

    def close(self) -> None:
        """Nothing to free."""


class TabletopPlant:
    """The arm of ``dreamzero.sim`` on its table, advanced by whole physics steps."""

    def __init__(self, card: Embodiment, size_px: int = 64) -> None:
        from ...sim import Tabletop

        self.table = Tabletop(robot=card.robot, views=VIEWS, size_px=size_px)
        self._owed_s = 0.0

    def reset(self, task: str | None, suite: str, seed: int) -> None:
        self.table.reset(options={"scene": scene(task, suite, seed)})
        self._owed_s = 0.0

    def joints(self) -> np.ndarray:
        return self.table.state().astype(np.float64)

    def advance(self, goal: np.ndarray, seconds: float) -> None:
        self._owed_s += seconds
        step_s = self.table.model.opt.timestep
        count = int(self._owed_s / step_s + 1e-6)
        if count:
            self.table.advance(goal, substeps=count)
            self._owed_s -= count * step_s

    def frame(self, view: str) -> np.ndarray:
        return self.table.render_views((view,))[view]

    def score(self) -> dict[str, Any]:
        return tabletop_score(self.table)

    def close(self) -> None:
        self.table.close()


def scene(task: str | None, suite: str, seed: int) -> Scene:
    """The scene of a suite and seed, or of a task key such as ``push-red-left``."""
    from ...sim import parse, sample_scene

    return sample_scene(suite, seed, parse(task) if task else None)


def tabletop_score(table: Any) -> dict[str, Any]:
    """Instruction, success and progress of a ``Tabletop``."""
    return {
        "instruction": table.scene.instruction,
        "success": bool(table.success()),
        "progress": float(table.progress()),
    }


def make(physics: str, card: Embodiment, size_px: int) -> Plant:
    """The plant of that name ("tabletop" or "lag")."""
    if physics == "lag":
        return LagPlant(card, size_px)
    if physics == "tabletop":
        return TabletopPlant(card, size_px)
    raise UserError(f"unknown physics {physics!r}; known: tabletop, lag")
