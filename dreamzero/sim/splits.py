"""Which tasks and looks are trained on, which are held out, and scenes drawn from them by seed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import UserError
from .layout import ZONE_COLOURS, Block, Zone, place
from .looks import TRAIN, UNSEEN, Look, LookRange
from .tasks import DIRECTIONS, EXTRA_COLOURS, TRAIN_COLOURS, VERBS, Task

SUITES = ("seen", "unseen-combination", "unseen-object", "unseen-verb", "unseen-look")
BASIC = ("reach", "push")
# What no recording with actions shows: a push whose end the picture says, not the sentence.
UNSEEN_VERBS = ("zone",)
# One direction (zone) a colour: colours and directions are all seen in other combinations.
HELD_OUT: frozenset[Task] = frozenset(
    (
        Task("push", "red", "away"),
        Task("push", "green", "left"),
        Task("push", "blue", "toward"),
        Task("push", "yellow", "right"),
        Task("zone", "red", "cyan"),
        Task("zone", "blue", "purple"),
        Task("place", "green", "purple"),
        Task("place", "yellow", "cyan"),
    )
)


@dataclass(frozen=True)
class Scene:
    """Everything a reset needs; the same for every robot and policy.

    Attributes:
        task: what to do.
        look: how it looks.
        blocks: three (two beside zones), the task's colour among them, in random order.
        zones: two for the verbs "zone", "place" and "chain", else none.
        start_tip_m: (x, y, z) of the gripper's tip at the start, above the blocks.
        instruction: the task in words, a paraphrase half of the time.
    """

    task: Task
    look: Look
    blocks: tuple[Block, ...]
    start_tip_m: tuple[float, float, float]
    instruction: str
    zones: tuple[Zone, ...] = ()


def parse_suite(name: str) -> tuple[str, tuple[str, ...] | None]:
    """A suite and the verbs that its name asks for: "seen", or "seen:chain" or "seen:chain,shove".

    Raises UserError for an unknown suite or verb.
    """
    suite, _, listed = name.partition(":")
    if suite not in SUITES:
        raise UserError(f"unknown suite {suite!r}; known: {', '.join(SUITES)}")
    if not listed:
        return suite, None
    verbs = tuple(listed.split(","))
    for verb in verbs:
        if verb not in VERBS:
            raise UserError(f"suite {name!r}: no verb {verb!r}; known: {', '.join(VERBS)}")
    return suite, verbs


def split(name: str, verbs: Sequence[str] | None = None) -> tuple[Task, ...]:
    """Tasks of a suite, of the verbs that its name asks for (``parse_suite``), or these.

    Left to their own verbs: "seen" (16: four reaches, twelve pushes), "unseen-combination" (four
    pushes), "unseen-object" (reaches and pushes of blocks in two more colours), "unseen-verb" (blocks
    pushed onto zones), "unseen-look" (those of "seen"). Raises UserError for an unknown suite or
    verb, and where a suite has no task of these verbs.
    """
    name, asked = parse_suite(name)
    if verbs is None:
        verbs = asked or (UNSEEN_VERBS if name == "unseen-verb" else BASIC)
    colours = EXTRA_COLOURS if name == "unseen-object" else TRAIN_COLOURS
    tasks = [task for verb in verbs for task in tasks_of(verb, colours)]
    if name == "unseen-verb":
        chosen = tuple(tasks)
    else:
        chosen = tuple(t for t in tasks if (t in HELD_OUT) == (name == "unseen-combination"))
    if not chosen:
        raise UserError(f"suite {name!r} has no task of the verbs {', '.join(verbs)}")
    return chosen


def tasks_of(verb: str, colours: Sequence[str] = TRAIN_COLOURS) -> list[Task]:
    """Every task of a verb with blocks of these colours, held out or not."""
    if verb == "play":
        return [Task(verb)]
    if verb in ("reach", "lift", "shove"):
        return [Task(verb, c) for c in colours]
    targets = tuple(DIRECTIONS) if verb == "push" else ZONE_COLOURS
    found = [(c, target) for c in colours for target in targets if c != target]
    if verb == "chain":
        return [Task(verb, c, z, then) for c, z in found for then in colours if then != c]
    return [Task(verb, c, target) for c, target in found]


def look_range(name: str) -> LookRange:
    """Looks of a suite: the training range, or the held-out one for "unseen-look"."""
    return UNSEEN if parse_suite(name)[0] == "unseen-look" else TRAIN


def sample_scene(
    suite: str = "seen",
    seed: int = 0,
    task: Task | None = None,
    verbs: Sequence[str] | None = None,
) -> Scene:
    """The scene of (suite, seed), or of (suite, seed, task) where one task is wanted.

    Args:
        suite: one of ``SUITES``.
        seed: any integer >= 0. Successive seeds walk through the tasks of the suite in turn, so
            that n episodes hold each task n / len(split(suite)) times.
        task: instead of the suite's own.
        verbs: of the suite's tasks, see ``split``.
    """
    if seed < 0:
        raise UserError(f"seed must be >= 0, got {seed}")
    tasks = split(suite, verbs)
    rng = np.random.default_rng([zlib.crc32(suite.encode()), seed])
    drawn = tasks[seed % len(tasks)] if task is None else task
    look = look_range(suite).sample(rng)
    start = (rng.uniform(-0.09, -0.02), rng.uniform(-0.07, 0.07), rng.uniform(0.095, 0.135))
    blocks, zones = place(rng, drawn)
    return Scene(
        task=drawn,
        look=look,
        blocks=blocks,
        start_tip_m=(float(start[0]), float(start[1]), float(start[2])),
        instruction=drawn.instruction(rng),
        zones=zones,
    )


def with_look(scene: Scene, look: Look) -> Scene:
    """The same scene under another look."""
    return replace(scene, look=look)
