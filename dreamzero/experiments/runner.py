"""Runs the cells of a grid that are missing, several at a time, each on one thread.

    DIR/recordings/NAME      LeRobot datasets
    DIR/latents/             their windows through the codec
    DIR/models/CELL/         model folders
    DIR/cells/CELL.json      what a cell found: every episode's outcome

A cell is found again by a digest of all it depends on, so that a killed run goes on where it was and a
changed cell is done anew.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

from ..errors import UserError
from ..shipped import find
from .cells import Cell, digest
from .grid import Grid
from .recordings import make
from .results import by_name

FORMAT = 1
BASELINES = ("hold",)  # policies that a cell may evaluate and that are no cell


class Runner:
    """The work folder of a grid.

    Args:
        grid: cells and recordings.
        folder: where everything is kept.
        kept: folder of an earlier run's results (``results.join``) and models, which count as done.
    """

    def __init__(self, grid: Grid, folder: Path, kept: Path | None = None) -> None:
        self.grid, self.folder, self.kept = grid, folder, kept
        self._digests: dict[str, str] = {}
        self._earlier = {} if kept is None else by_name(kept)

    def result_path(self, name: str) -> Path:
        return self.folder / "cells" / f"{name}.json"

    def model_path(self, name: str) -> Path:
        """Of the cell itself, of the one that it evaluates, or of a shipped model."""
        if name not in self.grid.cells:
            return find(name)
        cell = self.grid.cells[name]
        if not cell.uses:
            return self.model_path(cell.start)
        own = self.folder / "models" / name
        if self.kept is None or (own.is_dir() and self._own(name) is not None):
            return own
        kept = self.kept / "models" / name
        return kept if kept.is_dir() and self._matches(name, self._earlier.get(name)) else own

    def digest(self, name: str) -> str:
        """Of everything that a cell's result depends on."""
        if name not in self._digests:
            cell = self.grid.cells[name]
            made_of = {u.recording: self.grid.recordings[u.recording].facts() for u in cell.uses}
            facts = {"format": FORMAT, "cell": cell.facts(), "recordings": made_of}
            before = self.digest(cell.start) if cell.start in self.grid.cells else ""
            self._digests[name] = digest(facts, before)
        return self._digests[name]

    def result(self, name: str) -> dict[str, Any] | None:
        """What a cell found; None if it is missing or of another grid."""
        return self._own(name) or self._matches(name, self._earlier.get(name))

    def _own(self, name: str) -> dict[str, Any] | None:
        """Of the work folder alone."""
        try:
            found = json.loads(self.result_path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return self._matches(name, found)

    def _matches(self, name: str, found: dict[str, Any] | None) -> dict[str, Any] | None:
        """A result, if it is of the cell as it is in this grid."""
        return found if found and found.get("digest") == self.digest(name) else None

    def missing(self, names: Iterable[str]) -> list[str]:
        """Cells to run for these, in order, with those that they start from before them."""
        todo: list[str] = []

        def add(name: str) -> None:
            if name in todo:
                return
            start = self.grid.cells[name].start
            # A model may be thrown away once nothing else is to start from it.
            if start in self.grid.cells and not (self.result(start) and _has_model(self, start)):
                add(start)
            todo.append(name)

        for name in names:
            if name not in self.grid.cells:
                raise UserError(f"no cell {name!r}; `dreamzero experiment list` names them")
            if self.result(name) is None:
                add(name)
        return todo

    def record(self, names: Iterable[str], progress: bool = True) -> None:
        """Make the recordings that these cells need."""
        needed = {use.recording for name in names for use in self.grid.cells[name].uses}
        for recording in sorted(needed):
            make(recording, self.grid.recordings[recording], self.folder / "recordings", progress)

    def run(self, names: Iterable[str], workers: int = 1, progress: bool = True) -> list[str]:
        """Run what is missing; returns the names of cells that failed.

        Args:
            workers: cells at a time, each in a process of its own; 1 runs them in this one.
        """
        from tqdm.auto import tqdm

        todo = self.missing(names)
        self.record(todo, progress)
        failed: list[str] = []
        with tqdm(total=len(todo), desc="cells", disable=not progress) as bar:
            for name, line, ended_well in self._outcomes(todo, workers):
                if not ended_well:
                    failed.append(name)
                if progress:
                    tqdm.write(f"{name}: {line}")
                bar.update()
        return failed

    def _outcomes(self, todo: Sequence[str], workers: int) -> Iterator[tuple[str, str, bool]]:
        """(name, a line about it, whether it ended well) of each cell as it ends."""
        waiting, failed = list(todo), set[str]()
        running: dict[Future[str], str] = {}
        pool: Any = Here() if workers == 1 else _processes(workers)
        with pool:
            while waiting or running:
                for name in list(waiting):
                    start = self.grid.cells[name].start
                    if start in failed:
                        failed.add(name)
                        waiting.remove(name)
                        yield name, f"not run, because {start} failed", False
                    elif len(running) < workers and start not in (*running.values(), *waiting):
                        running[pool.submit(_one, self.grid, self.folder, self.kept, name)] = name
                        waiting.remove(name)
                done = wait(running, return_when=FIRST_COMPLETED).done if running else set()
                for future in done:
                    name, error = running.pop(future), future.exception()
                    if error is None:
                        yield name, future.result(), True
                    else:
                        failed.add(name)
                        yield name, str(error) or type(error).__name__, False


class Here:
    """An executor that does what it is given at once, in this process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, call: Callable[..., str], *arguments: Any) -> Future[str]:
        future: Future[str] = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:  # noqa: BLE001 (a future keeps whatever it was)
            future.set_exception(error)
        return future


# Of glibc: memory that was used once stays with the process. A training step allocates and frees the same
# megabytes over and over, and every page that is new again costs a fault (a tenth of the time).
_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(10**11),
    "MALLOC_TOP_PAD_": str(2**28),
}


def _processes(workers: int) -> ProcessPoolExecutor:
    # A process a cell: what one leaves in memory is gone with it.
    for name, value in _ALLOCATOR.items():
        os.environ.setdefault(name, value)
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1)


def _has_model(runner: Runner, name: str) -> bool:
    return (runner.model_path(name) / "transformer").is_dir()


def _one(grid: Grid, folder: Path, kept: Path | None, name: str) -> str:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run_cell(Runner(grid, folder, kept), name)
    finally:
        torch.set_num_threads(threads)


def run_cell(runner: Runner, name: str, progress: bool = False) -> str:
    """Train and evaluate one cell; returns a line about it."""
    from .training import train_cell

    cell, folder = runner.grid.cells[name], runner.folder
    facts: dict[str, Any] = {}
    model = cell.start if cell.start in BASELINES else runner.model_path(name)
    if cell.uses:
        model = folder / "models" / name
        staging = model.with_name(f".{model.name}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        paths = {use.recording: folder / "recordings" / use.recording for use in cell.uses}
        start = runner.model_path(cell.start) if cell.start else None
        words = runner.grid.words()
        facts = train_cell(cell, paths, start, staging, folder / "latents", words, progress)
        shutil.rmtree(staging / "checkpoints", ignore_errors=True)
        shutil.rmtree(model, ignore_errors=True)
        model.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(model)
    began = time.monotonic()
    outcomes = roll_out(cell, model, progress)
    facts["evaluation_seconds"] = round(time.monotonic() - began, 1)
    found = {"digest": runner.digest(name), "cell": cell.facts(), **facts, "outcomes": outcomes}
    path = runner.result_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    rates = [f"{where} {100 * sum(o['success']) / len(o['success']):.0f} %"
             for where, o in outcomes.items()]  # fmt: skip
    return ", ".join(rates) or "trained"


def roll_out(
    cell: Cell, model: Path | str, progress: bool = False
) -> dict[str, dict[str, list[Any]]]:
    """Success and progress of every episode, by "robot/suite"."""
    from ..evaluate import evaluate
    from ..inference.config import FAST

    sampler = _sampler(FAST, cell.sampler)
    found: dict[str, dict[str, list[Any]]] = {}
    for robot in cell.robots:
        for suite in cell.suites:
            result = evaluate(
                model, suite, cell.scenes, robot=robot, workers=1, progress=progress,
                execute_steps=cell.execute_steps or None, seed=1000 * cell.seed,
                sampler=sampler, memory_blocks=cell.memory_blocks,
            )  # fmt: skip
            found[f"{robot}/{suite}"] = {
                "success": [int(e.success) for e in result.episodes],
                "progress": [round(e.progress, 3) for e in result.episodes],
                "task": [e.task for e in result.episodes],
            }
    return found


def _sampler(plain: Any, changes: Mapping[str, Any]) -> Any:
    from dataclasses import replace

    from ..flow import SamplerConfig
    from ..flow.samplers import STEP_MASKS

    given = dict(changes)
    if given.pop("flash", False):
        return SamplerConfig.flash(**given)
    if "mask" in given:
        given["step_mask"] = STEP_MASKS[given.pop("mask")]
    return replace(plain, **given)
