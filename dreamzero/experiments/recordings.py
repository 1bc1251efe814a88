"""What the experiments are trained on: recordings of the tabletop, made when they are first asked for.

Scene seeds are ``seed * 1_000_000 + i``, far from those of evaluations (``evaluate.SCENE_OFFSET``), so
that no scene is both seen and tested. Tasks come in turn, verb by verb, so that the first N episodes of a
recording are as varied as all of them.
"""

from __future__ import annotations

import itertools
import random
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..sim import record
from ..sim.recording import ROWS
from ..sim.splits import tasks_of
from ..sim.tasks import EXTRA_COLOURS, TRAIN_COLOURS, Task, parse
from ..sim.world import CONTROL_HZ


@dataclass(frozen=True)
class Recording:
    """One recording.

    Attributes:
        body: "so101", "ur5e", "franka" or "hand".
        episodes: of ``rows`` each.
        seed: of its scenes.
        verbs: of its tasks, in turn, each in every colour; empty: the tasks of the suite "seen".
        looks: suite whose looks it has, "seen" or "unseen-look".
        noise: share of disturbed episodes; midway: of those that start in the middle of the task.
        only: keys of the tasks, instead of ``verbs`` (repetitive data).
        rows: 65 (4.3 s) are a whole episode; fewer are its beginning, done or not.
    """

    body: str
    episodes: int
    seed: int
    verbs: tuple[str, ...] = ()
    looks: str = "seen"
    noise: float = 0.5
    midway: float = 0.4
    only: tuple[str, ...] = ()
    rows: int = ROWS

    @property
    def minutes(self) -> float:
        """Simulated time."""
        return self.episodes * self.rows / CONTROL_HZ / 60

    def facts(self) -> dict[str, Any]:
        """What decides its content, JSON-ready."""
        found = asdict(self)
        if self.rows == ROWS:
            del found["rows"]  # results that were found before there were beginnings stay valid
        return found

    def tasks(self) -> list[Task] | None:
        """In the order they are recorded; None leaves it to the suite."""
        if self.only:
            return [parse(key) for key in self.only]
        if not self.verbs:
            return None
        colours, rng, turns = TRAIN_COLOURS + EXTRA_COLOURS, random.Random(self.seed), {}
        for verb in dict.fromkeys(self.verbs):
            tasks = tasks_of(verb, colours)
            rng.shuffle(tasks)
            turns[verb] = itertools.cycle(tasks)
        # Enough for one pass, those of experts that failed included.
        return [next(turns[verb]) for _ in range(self.episodes) for verb in self.verbs]


def make(name: str, recording: Recording, folder: Path, progress: bool = True) -> Path:
    """``folder / name``, recorded if it is not there.

    Raises:
        UserError: another process is at it, or one that was killed was.
    """
    path = folder / name
    if path.is_dir():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{name}.partial"
    if partial.exists():
        raise UserError(f"{partial} is being recorded by another process, or was left by one: wait, "
                        "or remove it")  # fmt: skip
    try:
        record(
            partial,
            recording.body,
            recording.episodes,
            recording.seed,
            recording.looks,
            noise=recording.noise,
            midway=recording.midway,
            rows=recording.rows,
            keep_failures=recording.rows < ROWS,
            tasks=recording.tasks(),
            progress=progress,
        )
        partial.rename(path)
    finally:
        if partial.exists():
            shutil.rmtree(partial)
    return path
