"""Which tasks and looks are trained on, which are held out, and scenes drawn from them by seed."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace

import numpy as np

from ..errors import UserError
from .looks import TRAIN, UNSEEN, Look, LookRange
from .tasks import DIRECTIONS, TRAIN_COLOURS, Task

SUITES = ("seen", "unseen-combination", "unseen-look")
BLOCK_HALF_M = 0.02
# Block centres at the start, and the box they must still lie in after a push; origin = centre.
SPREAD_M = (0.075, 0.11)
BOUND_M = (0.115, 0.15)
PUSH_M = 0.065
_SPACING_M = 0.068
_YAW_RAD = math.radians(20)

# One direction a colour and one colour a direction: both are seen in other combinations.
HELD_OUT: frozenset[Task] = frozenset(
    (
        Task("push", "red", "away"),
        Task("push", "green", "left"),
        Task("push", "blue", "toward"),
        Task("push", "yellow", "right"),
    )
)


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


@dataclass(frozen=True)
class Scene:
    """Everything a reset needs; the same for every robot and policy.

    Attributes:
        task: what to do.
        look: how it looks.
        blocks: three, the task's first colour among them, in random order.
        zones: the zones on the table (none for reach, push and lift).
        start_tip_m: (x, y, z) of the gripper's tip at the start, above the blocks.
        instruction: the task in words, a paraphrase half of the time.
    """

    task: Task
    look: Look
    blocks: tuple[Block, ...]
    start_tip_m: tuple[float, float, float]
    instruction: str
    zones: tuple[Zone, ...] = ()


def split(name: str) -> tuple[Task, ...]:
    """Tasks of a suite: "seen" (16), "unseen-combination" (4), "unseen-look" (those of "seen")."""
    if name not in SUITES:
        raise UserError(f"unknown suite {name!r}; known: {', '.join(SUITES)}")
    pushes = [Task("push", c, d) for c in TRAIN_COLOURS for d in DIRECTIONS]
    if name == "unseen-combination":
        return tuple(t for t in pushes if t in HELD_OUT)
    reaches = [Task("reach", c) for c in TRAIN_COLOURS]
    return tuple(reaches + [t for t in pushes if t not in HELD_OUT])


def look_range(name: str) -> LookRange:
    """Looks of a suite: the training range, or the held-out one for "unseen-look"."""
    if name not in SUITES:
        raise UserError(f"unknown suite {name!r}; known: {', '.join(SUITES)}")
    return UNSEEN if name == "unseen-look" else TRAIN


def sample_scene(suite: str = "seen", seed: int = 0, task: Task | None = None) -> Scene:
    """The scene of (suite, seed), or of (suite, seed, task) where one task is wanted.

    Args:
        suite: one of ``SUITES``.
        seed: any integer >= 0. Successive seeds walk through the tasks of the suite in turn, so
            that n episodes hold each task n / len(split(suite)) times.
        task: instead of the suite's own.
    """
    if seed < 0:
        raise UserError(f"seed must be >= 0, got {seed}")
    tasks = split(suite)
    rng = np.random.default_rng([zlib.crc32(suite.encode()), seed])
    drawn = tasks[seed % len(tasks)] if task is None else task
    look = look_range(suite).sample(rng)
    start = (rng.uniform(-0.09, -0.02), rng.uniform(-0.07, 0.07), rng.uniform(0.095, 0.135))
    blocks = _blocks(rng, drawn)
    return Scene(
        task=drawn,
        look=look,
        blocks=blocks,
        start_tip_m=(float(start[0]), float(start[1]), float(start[2])),
        instruction=drawn.instruction(rng),
    )


def with_look(scene: Scene, look: Look) -> Scene:
    """The same scene under another look."""
    return replace(scene, look=look)


def _blocks(rng: np.random.Generator, task: Task) -> tuple[Block, ...]:
    others = [c for c in TRAIN_COLOURS if c != task.colour]
    colours = [task.colour, *rng.permutation(others)[:2]]
    while True:
        xy = rng.uniform(-1.0, 1.0, (3, 2)) * SPREAD_M
        if _apart(xy) and (task.verb != "push" or _free(xy, np.array(task.direction))):
            break
    yaws = rng.uniform(-_YAW_RAD, _YAW_RAD, 3)
    order = rng.permutation(3)
    return tuple(
        Block(str(colours[i]), float(xy[i, 0]), float(xy[i, 1]), float(yaws[i])) for i in order
    )


def _apart(xy: np.ndarray) -> bool:
    gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1)[np.triu_indices(3, 1)]
    return bool(gaps.min() > _SPACING_M)


def _free(xy: np.ndarray, direction: np.ndarray) -> bool:
    """Room to come down behind block 0, to push it, and to stay on the table."""
    end = xy[0] + PUSH_M * direction
    if (np.abs(end) > BOUND_M).any():
        return False
    rel = xy[1:] - xy[0]
    along = rel @ direction
    across = np.abs(rel @ np.array([-direction[1], direction[0]]))
    in_the_way = (along > 0) & (along < PUSH_M + 0.055) & (across < 0.055)
    behind = (along < 0) & (along > -0.092) & (across < 0.046)
    return not bool((in_the_way | behind).any())
