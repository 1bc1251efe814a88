"""Where blocks and zones lie: drawn at random until there is room for the task."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .tasks import DIRECTIONS, TRAIN_COLOURS, Task

BLOCK_HALF_M = 0.02
ZONE_HALF_M = 0.035
# A block lies on a zone when their centres are nearer than this.
ZONED_M = 0.025
ZONE_COLOURS = ("purple", "cyan")
# Block centres at the start, and the box they must still lie in after a push; origin = centre.
SPREAD_M = (0.075, 0.11)
BOUND_M = (0.115, 0.15)
PUSH_M = 0.065
_SPACING_M = 0.068
_GRASP_SPACING_M = 0.09
_YAW_RAD = math.radians(20)
_ZONE_SPREAD_M = (0.08, 0.115)
# The tip comes down this far behind a block, and that must be where the shortest arm reaches.
_BEHIND_M, _REACH_X_M = 0.05, 0.10
# Pushes onto a zone: how far, and how far off an axis of the table they may point.
_ZONE_PUSH_M = (0.08, 0.13)
_ZONE_ANGLE_RAD = math.radians(20)


@dataclass(frozen=True)
class Block:
    """A block of 4 cm: colour, centre on the table (m, world), yaw (rad)."""

    colour: str
    x_m: float
    y_m: float
    yaw_rad: float


@dataclass(frozen=True)
class Zone:
    """A coloured square on the table, 7 cm wide: colour and centre (m, world)."""

    colour: str
    x_m: float
    y_m: float


def place(rng: np.random.Generator, task: Task) -> tuple[tuple[Block, ...], tuple[Zone, ...]]:
    """Blocks and zones for a task; three blocks, or two and two zones."""
    zoned = task.verb in ("zone", "place", "chain")
    count = 2 if zoned else 3
    fixed = [c for c in (task.colour, task.then) if c]
    others = [c for c in TRAIN_COLOURS if c not in fixed]
    colours = [*fixed, *rng.permutation(others)[: count - len(fixed)]]
    spots = np.zeros((0, 2))
    while True:
        xy = rng.uniform(-1.0, 1.0, (count, 2)) * SPREAD_M
        if zoned:
            spots = rng.uniform(-1.0, 1.0, (2, 2)) * _ZONE_SPREAD_M
        if _suits(task, xy, spots):
            break
    yaws = rng.uniform(-_YAW_RAD, _YAW_RAD, count)
    order = rng.permutation(count)
    blocks = tuple(
        Block(str(colours[i]), float(xy[i, 0]), float(xy[i, 1]), float(yaws[i])) for i in order
    )
    if not zoned:
        return blocks, ()
    # The first spot is the task's own.
    names = (task.target, next(c for c in ZONE_COLOURS if c != task.target))
    zones = [Zone(str(c), float(x), float(y)) for c, (x, y) in zip(names, spots, strict=True)]
    return blocks, tuple(zones[i] for i in rng.permutation(2))


def _suits(task: Task, xy: np.ndarray, spots: np.ndarray) -> bool:
    if task.verb in ("reach", "play"):
        return _apart(xy, _SPACING_M)
    if task.verb == "shove":
        return _apart(xy, _SPACING_M) and len(free_ways(xy)) > 1
    if task.verb == "push":
        return _apart(xy, _SPACING_M) and _free(xy, np.array(task.direction), PUSH_M)
    if not _apart(xy, _SPACING_M if task.verb in ("zone", "chain") else _GRASP_SPACING_M):
        return False
    if task.verb == "lift":
        return True
    # Zones beside each other and beside the blocks.
    gaps = np.linalg.norm(xy[:, None] - spots[None], axis=-1)
    if np.abs(spots[0] - spots[1]).max() < 2 * ZONE_HALF_M + 0.004 or gaps.min() < 0.06:
        return False
    if task.verb == "place":
        return bool(gaps[1, 0] > _GRASP_SPACING_M)
    way = spots[0] - xy[0]
    distance = float(np.linalg.norm(way))
    angle = math.atan2(way[1], way[0])
    off_axis = abs(angle - round(angle / (math.pi / 2)) * math.pi / 2)
    if not _ZONE_PUSH_M[0] < distance < _ZONE_PUSH_M[1] or off_axis > _ZONE_ANGLE_RAD:
        return False
    behind = xy[0] - way / distance * _BEHIND_M
    return behind[0] < _REACH_X_M and _free(xy, way / distance, distance)


def free_ways(xy: np.ndarray) -> list[str]:
    """Directions in which block 0 of ``xy [n, 2]`` can be pushed."""
    return [name for name, way in DIRECTIONS.items() if _free(xy, np.array(way), PUSH_M)]


def _apart(xy: np.ndarray, spacing_m: float) -> bool:
    gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1)[np.triu_indices(len(xy), 1)]
    return bool(gaps.min() > spacing_m)


def _free(xy: np.ndarray, direction: np.ndarray, distance_m: float) -> bool:
    """Room to come down behind block 0, to push it, and to stay on the table."""
    end = xy[0] + distance_m * direction
    if (np.abs(end) > BOUND_M).any():
        return False
    rel = xy[1:] - xy[0]
    along = rel @ direction
    across = np.abs(rel @ np.array([-direction[1], direction[0]]))
    in_the_way = (along > 0) & (along < distance_m + 0.055) & (across < 0.055)
    behind = (along < 0) & (along > -0.092) & (across < 0.046)
    return not bool((in_the_way | behind).any())
