"""What the experiments are trained on: recordings of the tabletop, made when they are first asked for.

Scene seeds are ``seed * 1_000_000 + i``, far from those of evaluations (``evaluate.SCENE_OFFSET``), so
that no scene is both seen and tested. Tasks are shuffled once, so that the first N episodes of a
recording are as varied as all of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..sim.tasks import EXTRA_COLOURS, TRAIN_COLOURS, Task

ROW_S = 1 / 15
ROWS = 65


@dataclass(frozen=True)
class Recording:
    """One recording.

    Attributes:
        body: "so101", "ur5e", "franka" or "hand".
        episodes: of 65 rows (4.3 s) each.
        seed: of its scenes.
        verbs: of its tasks, in every colour; empty: the tasks of the suite "seen".
        looks: suite whose looks it has, "seen" or "unseen-look".
        noise: share of disturbed episodes.
        only: keys of the tasks, instead of ``verbs`` (repetitive data).
    """

    body: str
    episodes: int
    seed: int
    verbs: tuple[str, ...] = ()
    looks: str = "seen"
    noise: float = 0.5
    only: tuple[str, ...] = ()

    @property
    def minutes(self) -> float:
        """Simulated time."""
        return self.episodes * ROWS * ROW_S / 60

    def tasks(self) -> list[Task] | None:
        """In the order they are recorded; None leaves it to the suite."""
        from ..sim import tasks as grammar
        from ..sim.splits import tasks_of

        if self.only:
            return [grammar.parse(key) for key in self.only]
        if not self.verbs:
            return None
        colours = TRAIN_COLOURS + EXTRA_COLOURS
        found = [task for verb in self.verbs for task in tasks_of(verb, colours)]
        random.Random(self.seed).shuffle(found)
        return found


def make(name: str, recording: Recording, folder: Path, progress: bool = True) -> Path:
    """``folder / name``, recorded if it is not there; a killed recording leaves nothing."""
    from ..sim import record

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
            tasks=recording.tasks(),
            progress=progress,
        )
        partial.rename(path)
    finally:
        if partial.exists():
            import shutil

            shutil.rmtree(partial)
    return path
