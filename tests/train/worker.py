"""Trainings in a process of their own: what several processes do together, and what is killed."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dreamzero.data.mixture import Feed, Mixture
from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.checkpoints.adapters import Base
from dreamzero.train.config import Source, TrainSettings
from dreamzero.train.latents import LatentWindows
from dreamzero.train.loop import Trainer
from dreamzero.train.monitor import Stopped
from dreamzero.train.shares import Share
from tests.train.readings import reading
from tests.train.toys import QUICK, load, trainer, windows


def hand(blocks: int) -> LatentWindows:
    """Seen on video only."""
    found = windows(16, blocks, "tabletop_hand")
    found.has_action[:] = False
    return found


def mixed(seed: int = 0) -> Mixture:
    """A robot, and twice as often another one that is seen on video only."""
    feeds = [
        Feed(Source(blocks=2, batch=4), windows(), 0.25),
        Feed(Source(blocks=2, batch=3), hand(2), 0.25),
        Feed(Source(blocks=1, batch=6), windows(16, 1), 0.25),
        Feed(Source(blocks=1, batch=5), hand(1), 0.25),
    ]
    return Mixture(feeds, seed, weights=[1, 2, 1, 2])


def tuning(folder: Path, latents: Path, settings: TrainSettings, out: Path) -> Trainer:
    """A part of an imported checkpoint, on windows encoded before."""
    feed = Feed(settings.full, load(latents))
    model = WorldActionModel.load(folder)
    return Trainer(model, [feed], settings, out, base=Base.open(folder))


def disturb(run: Trainer, slow: float, stop: int | None) -> None:
    """Seconds a step, so that there is time to kill it; a step in which one process is told to stop."""
    step = run.one_step

    def disturbed(share: Share, told: bool = False) -> Any:
        time.sleep(slow)
        return step(share, told or (run.step + 1 == stop and run.processes.rank == 1))

    run.one_step = disturbed  # type: ignore[method-assign]


def main() -> None:
    torch.set_num_threads(1)
    for job in json.loads(sys.argv[1]):
        changes = job.get("settings", {})
        for kind in ("full", "first"):
            if kind in changes:
                changes[kind] = Source(**changes[kind])
        settings = replace(QUICK, **changes)
        if "imported" in job:
            run = tuning(Path(job["imported"]), Path(job["latents"]), settings, Path(job["out"]))
        elif "recording" in job:
            folders = (Path(job[name]) for name in ("recording", "codec", "features"))
            run = reading(Path(job["out"]), settings, *folders)
        else:
            source = mixed() if job.get("mixture") else None
            run = trainer(Path(job["out"]), settings, source=source)
        disturb(run, job.get("slow", 0.0), job.get("stop"))
        with suppress(Stopped):
            run.run(resume=job.get("resume", False), progress=False)


if __name__ == "__main__":
    main()
