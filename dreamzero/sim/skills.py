"""What the experts can do. A skill has phases; in each it aims at a point with a speed.

One scene has one right motion: a pusher always comes down behind the block, square to the direction,
and pushes straight; a grasp comes from above, turned like the block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from . import world
from .layout import BLOCK_HALF_M, PUSH_M, ZONED_M
from .tabletop import Tabletop

HOVER_M = 0.072
_PUSH_HEIGHT_M = 0.016
_TOUCH_HEIGHT_M = 2 * BLOCK_HALF_M + 0.001
_GRASP_HEIGHT_M = 0.012
_CARRY_M = 0.085
_STAND_OFF_M = 0.016
# A tip this near the line of a push (or over the block to be touched), and this near behind the
# block, goes on from there: what to do follows from where things are, not from what was done before.
_ABOVE_M, _CLOSE_BEHIND_M, _BESIDE_M = 0.012, 0.032, 0.045
_DT_S = 1.0 / world.CONTROL_HZ
Limits = tuple[float, float]
# Greatest speed (m/s) and acceleration (m/s2).
_TRANSIT, _DESCEND, _PUSH = (0.17, 0.55), (0.12, 0.6), (0.085, 0.5)
_SWIFT, _DIP, _SHOVE = (0.32, 1.3), (0.20, 1.2), (0.12, 0.7)
_CLOSE_ROWS, _OPEN_ROWS = 5, 3
# A stroke of play that does not arrive (something is in the way) ends after so long.
_STROKE_ROWS = 25


@dataclass(frozen=True)
class Aim:
    """Where the tip should go: point (3), m; (speed, acceleration); turn of the gripper; opening."""

    point_m: np.ndarray
    limits: Limits
    yaw_rad: float = 0.0
    gripper: float = 0.0


class Skill(Protocol):
    """Asked once a control step; ``phase`` is for pictures and logs."""

    @property
    def phase(self) -> str: ...

    def aim(self) -> Aim: ...


class Mover:
    """The reference point of the tip and its velocity."""

    def __init__(self, env: Tabletop) -> None:
        self._env = env
        self.restart()

    def restart(self) -> None:
        """Takes the tip where it is, at rest."""
        self.reference = self._env.tip()
        self._velocity = np.zeros(3)

    def near(self, goal: np.ndarray, within_m: float) -> bool:
        """Reference at the goal, and the arm itself not far."""
        return bool(
            np.linalg.norm(self.reference - goal) < within_m
            and np.linalg.norm(self._env.tip() - goal) < within_m + 0.012
        )

    def toward(self, goal: np.ndarray, speed: float, acceleration: float) -> None:
        """Moves the reference one step: bounded speed and acceleration, no overshoot."""
        way = goal - self.reference
        distance = float(np.linalg.norm(way))
        # Braking from v takes v^2 / 2a; half a step is kept in hand.
        brake = float(np.sqrt(2 * acceleration * distance + (acceleration * _DT_S / 2) ** 2))
        wanted = min(speed, brake - acceleration * _DT_S / 2, distance / _DT_S)
        change = way / max(distance, 1e-9) * wanted - self._velocity
        most = acceleration * _DT_S
        change *= min(1.0, most / max(float(np.linalg.norm(change)), 1e-9))
        self._velocity = self._velocity + change
        self.reference = self.reference + self._velocity * _DT_S


class Reach:
    """Over the block, then down until its top is touched."""

    def __init__(self, env: Tabletop, mover: Mover, colour: str) -> None:
        self._env, self._mover, self._colour, self.phase = env, mover, colour, "over"

    def aim(self) -> Aim:
        block = self._env.block(self._colour)[0]
        over = np.array([block[0], block[1], HOVER_M])
        # Straight above the block there is no reason to rise first, wherever the arm comes from.
        above = np.linalg.norm((self._env.tip() - over)[:2]) < _ABOVE_M
        if self.phase == "over" and (above or self._mover.near(over, 0.012)):
            self.phase = "down"
        if self.phase == "over":
            return Aim(over, _TRANSIT)
        return Aim(np.array([block[0], block[1], _TOUCH_HEIGHT_M]), _DESCEND)


class Push:
    """Over the far side of the block, down, and straight along the direction.

    Args:
        direction: unit vector (2), world.
            None: towards ``goal_m``, planned anew whenever the block went astray.
        goal_m: centre (2) of a zone; the way there is longer, so all is done faster.
    """

    def __init__(
        self,
        env: Tabletop,
        mover: Mover,
        direction: np.ndarray | None,
        goal_m: np.ndarray | None = None,
    ) -> None:
        self._transit, self._dip, self._shove = (
            (_TRANSIT, _DESCEND, _PUSH) if goal_m is None else (_SWIFT, _DIP, _SHOVE)
        )
        self._env, self._mover, self.phase = env, mover, "over"
        if env.tip()[2] < HOVER_M - 0.012 and self._beside_a_block():
            self.phase = "up"
        self._goal_m = goal_m
        self._plan(direction)
        self._hold = mover.reference

    def aim(self) -> Aim:
        env, direction = self._env, self._direction
        block = env.block(env.scene.task.colour)[0] * (1, 1, 0)
        tip = env.tip()
        gap = BLOCK_HALF_M + env.arm.tip_half_m
        behind = block - direction * (gap + _STAND_OFF_M)
        over = behind + (0, 0, HOVER_M)
        along = float((block - self._block0) @ direction)
        offset = tip - behind
        across = float(np.abs(offset - (offset @ direction) * direction)[:2].max())
        astray = across > 0.02 or (tip - block) @ direction > -0.4 * gap
        if self.phase in ("down", "push") and along < self._distance_m - 0.02 and astray:
            # Knocked off the line, or past the block: go up and come again.
            self._again()
        if self.phase == "hold" and self._missed(block):
            self._again()
        if self.phase == "up" and tip[2] > HOVER_M - 0.012:
            self.phase = "over"
        ready = across < _ABOVE_M and 0.9 * gap < (block - tip) @ direction < gap + _CLOSE_BEHIND_M
        if (self.phase == "over" and self._mover.near(over, 0.010)) or (
            self.phase in ("up", "over") and ready and self._goal_m is None
        ):
            self.phase = "down"
        if self.phase == "down" and tip[2] < _PUSH_HEIGHT_M + 0.008:
            self.phase = "push"
        if self.phase == "push" and along >= self._distance_m - 0.004:
            self.phase = "hold"
            self._hold = self._mover.reference.copy()
        return Aim(*self._leg(block, behind, along, gap), yaw_rad=self._yaw_rad)

    def _plan(self, direction: np.ndarray | None) -> None:
        """Direction, distance and turn of the gripper from where the block is."""
        block = self._env.block(self._env.scene.task.colour)[0]
        # The way of a push counts from where the block lay when the episode began.
        start = next(b for b in self._env.scene.blocks if b.colour == self._env.scene.task.colour)
        self._block0, self._distance_m = np.array([start.x_m, start.y_m, 0.0]), PUSH_M
        if direction is None:
            assert self._goal_m is not None
            self._block0 = block
            way = self._goal_m - block[:2]
            self._distance_m = max(float(np.linalg.norm(way)), 1e-6)
            direction = way / self._distance_m
        self._direction = np.array([*direction, 0.0])
        # The closed fingers are as broad as thick: the nearest quarter turn makes them square.
        self._yaw_rad = _square(math.atan2(direction[1], direction[0]))

    def _beside_a_block(self) -> bool:
        env = self._env
        gaps = [env.block(b.colour)[0][:2] - env.tip()[:2] for b in env.scene.blocks]
        return bool(min(np.abs(gap).max() for gap in gaps) < _BESIDE_M)

    def _missed(self, block: np.ndarray) -> bool:
        if self._goal_m is None:
            return False
        return float(np.linalg.norm(self._goal_m - block[:2])) > ZONED_M - 0.004

    def _again(self) -> None:
        self.phase = "up"
        self._mover.restart()
        if self._goal_m is not None:
            self._plan(None)

    def _leg(
        self, block: np.ndarray, behind: np.ndarray, along: float, gap: float
    ) -> tuple[np.ndarray, Limits]:
        """Point and limits of the present phase."""
        if self.phase == "up":
            return self._mover.reference * (1, 1, 0) + (0, 0, HOVER_M), self._dip
        if self.phase == "over":
            return behind + (0, 0, HOVER_M), self._transit
        if self.phase == "down":
            return behind + (0, 0, _PUSH_HEIGHT_M), self._dip
        if self.phase == "hold":
            return self._hold, self._shove
        if self._goal_m is not None:
            # The block sticks to the fingers: they go the way that it still has to go.
            way = np.array([*(self._goal_m - block[:2]), 0.0])
            return self._env.tip() * (1, 1, 0) + way + (0, 0, _PUSH_HEIGHT_M), self._shove
        left = self._distance_m - along
        end = block + self._direction * (left - gap)
        return end + (0, 0, _PUSH_HEIGHT_M), self._shove


class Chain:
    """A push onto a zone; once the block lies there, up and over to another one."""

    def __init__(self, env: Tabletop, mover: Mover, goal_m: np.ndarray) -> None:
        self._env, self._mover, self._goal_m = env, mover, goal_m
        self._push = Push(env, mover, None, goal_m)
        self._then = Reach(env, mover, env.scene.task.then or "")
        self._up = False

    @property
    def phase(self) -> str:
        return self._then.phase if self._up else self._push.phase

    def aim(self) -> Aim:
        env, mover = self._env, self._mover
        away = float(np.linalg.norm(self._goal_m - env.block(env.scene.task.colour)[0][:2]))
        if self._push.phase in ("push", "hold") and away < ZONED_M - 0.008:
            # The block is where it should be: rise before going anywhere.
            over = mover.reference * (1, 1, 0) + (0, 0, HOVER_M)
            self._up |= env.tip()[2] > HOVER_M - 0.012
            if not self._up:
                return replace(self._push.aim(), point_m=over, limits=_DIP)
        # The gripper stays turned as it was: a touch does not mind.
        push = self._push.aim()
        return replace(self._then.aim(), yaw_rad=push.yaw_rad) if self._up else push


class Play:
    """What a child does with blocks: strokes at any height, in any direction, fingers open or shut.

    Every stroke begins beside a block or somewhere on the table, ends up to 12 cm further, and one
    in three lifts what it may have caught.
    """

    def __init__(self, env: Tabletop, mover: Mover, rng: np.random.Generator) -> None:
        self._env, self._mover, self._rng, self.phase = env, mover, rng, "stroke"
        self._points: list[tuple[np.ndarray, Limits, float]] = []
        self._rows = 0

    def aim(self) -> Aim:
        self._rows += 1
        if not self._points or self._rows > _STROKE_ROWS:
            self._points, self._rows = self._stroke(), 0
        point, limits, gripper = self._points[0]
        if self._mover.near(point, 0.012):
            self._points.pop(0)
            self._rows = 0
        return Aim(point, limits, 0.0, gripper)

    def _stroke(self) -> list[tuple[np.ndarray, Limits, float]]:
        rng, env = self._rng, self._env
        block = env.block(str(rng.choice([b.colour for b in env.scene.blocks])))[0]
        angle, back = rng.uniform(-math.pi, math.pi), rng.uniform(0.0, 0.06)
        way = np.array((math.cos(angle), math.sin(angle), 0.0))
        begin = np.where(rng.random() < 0.7, block, rng.uniform(-1, 1, 3) * (0.09, 0.12, 0)) * (
            1,
            1,
            0,
        )
        begin = np.clip(begin - way * back, (-0.11, -0.14, 0), (0.10, 0.14, 0))
        end = np.clip(begin + way * rng.uniform(0.02, 0.12), (-0.11, -0.14, 0), (0.11, 0.14, 0))
        low = (0, 0, float(rng.uniform(_GRASP_HEIGHT_M, HOVER_M)))
        over = (0, 0, float(rng.uniform(HOVER_M - 0.015, HOVER_M + 0.03)))
        opening = env.arm.grasp_open * float(rng.random() < 0.5)
        transit, slow = _SWIFT if rng.random() < 0.5 else _TRANSIT, _SHOVE
        points = [(begin + over, transit, opening), (begin + low, _DIP, opening)]
        if rng.random() < 1 / 3:
            return [*points, (begin + over, _DIP, 0.0), (end + over, slow, 0.0)]
        return [*points, (end + low, slow, opening)]


class Grasp:
    """Over the block, down with open fingers, close, raise; then, with a goal, set it down there.

    Args:
        goal_m: centre (2) of the zone to place on; None only lifts.
    """

    def __init__(self, env: Tabletop, mover: Mover, goal_m: np.ndarray | None = None) -> None:
        self._env, self._mover, self.phase, self._goal_m = env, mover, "over", goal_m
        self._rows = 0
        self._hold = mover.reference
        self._yaw_rad = _square(env.block(env.scene.task.colour)[1])
        self._grip_m = np.zeros(2)

    def aim(self) -> Aim:
        env, mover = self._env, self._mover
        block, yaw = env.block(env.scene.task.colour)
        tip = env.tip()
        if self.phase in ("over", "down"):
            self._yaw_rad = _square(yaw)
        side = np.array([-math.sin(self._yaw_rad), math.cos(self._yaw_rad)])
        at = block[:2] - env.arm.grasp_offset_m * side
        held = bool(np.linalg.norm(block - tip) < 0.045)
        if self.phase == "over" and mover.near(np.array([*at, HOVER_M]), 0.010):
            self.phase = "down"
        elif self.phase == "down" and np.linalg.norm(tip[:2] - at) > 0.02:
            self._again()
        elif self.phase == "down" and tip[2] < _GRASP_HEIGHT_M + 0.006:
            self._hold_at("close", np.array([*at, _GRASP_HEIGHT_M]))
        elif self.phase == "close" and self._rows >= _CLOSE_ROWS:
            self._grip_m = block[:2] - tip[:2]
            self._hold_at("raise", np.array([*tip[:2], _CARRY_M]))
        elif self.phase in ("raise", "carry") and not held:
            self._again()
        elif self.phase == "up" and tip[2] > HOVER_M - 0.012:
            self.phase = "over"
        elif self._goal_m is not None:
            self._deliver(tip, block)
        self._rows += 1
        if self.phase == "over":
            return Aim(np.array([*at, HOVER_M]), _SWIFT, self._yaw_rad, env.arm.grasp_open)
        if self.phase == "down":
            return Aim(np.array([*at, _GRASP_HEIGHT_M]), _DIP, self._yaw_rad, env.arm.grasp_open)
        shut = self.phase in ("close", "raise", "carry", "lower")
        limits = _SWIFT if self.phase == "carry" else _DIP
        return Aim(self._hold, limits, self._yaw_rad, 0.0 if shut else env.arm.grasp_open)

    def _deliver(self, tip: np.ndarray, block: np.ndarray) -> None:
        """Phases after the block is in the air."""
        assert self._goal_m is not None
        over = np.array([*(self._goal_m - self._grip_m), _CARRY_M])
        there = bool(np.linalg.norm(self._goal_m - block[:2]) < ZONED_M - 0.004)
        if self.phase == "raise" and tip[2] > _CARRY_M - 0.02:
            self._hold_at("carry", over)
        elif self.phase == "carry" and self._mover.near(over, 0.010):
            # Down until the block, held where it is held, stands on the table.
            down = max(0.004, BLOCK_HALF_M + 0.002 - (block[2] - tip[2]))
            self._hold_at("lower", over * (1, 1, 0) + (0, 0, down))
        elif self.phase == "lower" and there:
            # A leaning gripper sets it down on an edge; let go, and it lies flat.
            if block[2] < BLOCK_HALF_M + 0.008 or self._mover.near(self._hold, 0.004):
                self._hold_at("open", tip)
        elif self.phase == "open" and self._rows >= _OPEN_ROWS:
            self._hold_at("leave", over)
        elif self.phase == "leave" and not there:
            self._again()

    def _again(self) -> None:
        """The block is not where it should be: go up and come again."""
        self._mover.restart()
        self._hold_at("up", self._mover.reference * (1, 1, 0) + (0, 0, HOVER_M))

    def _hold_at(self, phase: str, point_m: np.ndarray) -> None:
        self.phase, self._hold, self._rows = phase, point_m, 0


def _square(yaw_rad: float) -> float:
    """What is left of a turn after whole quarters."""
    return yaw_rad - round(yaw_rad / (math.pi / 2)) * math.pi / 2
