"""Every combination of some parameters of a notebook: ``dreamzero sweep 02 -p seed 0,1,2``.

    plan = grid(find("02"), [("seed", "0,1,2"), ("preset", "tiny,small")], {"profile": "quick"})
    with engines.local(jobs=2) as engine:
        result = run(plan, "runs/sweep", engine)
    summary.write(result)

On the disk:

    <out>/02_training/runs/<parameters>-<identity>/           a finished run, like any other report
    <out>/02_training/runs/<parameters>-<identity>.failed/    failure.json, and the executed notebook
    <out>/02_training/sweep-<what varies>-<identity>/         report.md, metrics.json, runs.csv, figure

A run is finished when its folder is whole, and is never run again; a failed one is. Any number of
sweeps may share the folder at the same time: the first that comes to a run locks it, the others
wait for its result.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from ...errors import make_folder
from .. import paths
from ..notebooks import EXECUTED
from .engines import Engine
from .grid import Grid, Run, grid
from .job import FAILURE, Job, Outcome, finished

__all__ = ["Grid", "Result", "Run", "grid", "run"]
_ASK_AGAIN_S = 2.0  # a run that another sweep is at


@dataclass
class Result:
    """What came of a sweep: its grid, where it lies, and name of a run -> why it failed.

    ``kept`` counts the runs that were finished before.
    """

    grid: Grid
    folder: Path
    kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def runs_folder(self) -> Path:
        """Where the runs lie."""
        return self.folder / "runs"

    def executed(self, name: str) -> Path:
        """The executed notebook of a failure, or what stands for it where the process died."""
        failed = self.runs_folder / f"{name}.failed"
        return failed / EXECUTED if (failed / EXECUTED).is_file() else failed / FAILURE


def run(plan: Grid, out: str | Path, engine: Engine, progress: bool = True) -> Result:
    """Run what is not finished yet; returns when every run has ended, well or not.

    Args:
        out: folder of sweeps; this one's runs go below ``out/<notebook>``.
        progress: a bar on stderr, one step a run, and a line for each failure as it happens.

    Raises:
        UserError: ``out`` cannot be made.
        KeyboardInterrupt: after the runs under way were asked to end and have.
    """
    folder = make_folder(Path(out).resolve() / plan.notebook.name)
    result = Result(plan, folder)
    make_folder(result.runs_folder)
    open_runs = [r for r in plan.runs if not finished(result.runs_folder, r.name)]
    result.kept = len(plan.runs) - len(open_runs)
    with _stop_file(folder) as stop:
        jobs = [
            Job(
                notebook=str(plan.notebook.path.resolve()),
                name=one.name,
                parameters=one.parameters,
                folder=str(result.runs_folder),
                directory=str(Path.cwd()),
                stop=str(stop),
            )
            for one in open_runs
        ]
        _work(jobs, result, engine, stop, progress)
    return result


@contextlib.contextmanager
def _stop_file(folder: Path) -> Iterator[Path]:
    stop = folder / f".stop-{uuid4().hex[:12]}"
    try:
        yield stop
    finally:
        stop.unlink(missing_ok=True)


def _work(jobs: list[Job], result: Result, engine: Engine, stop: Path, progress: bool) -> None:
    from tqdm import tqdm

    total = len(result.grid.runs)
    bar = tqdm(
        total=total,
        initial=result.kept,
        desc=result.grid.notebook.name,
        unit="run",
        file=sys.stderr,
        disable=not progress,
    )
    with bar:
        waiting: list[tuple[float, Job]] = []
        running = {engine.executor.submit(engine.call, job): job for job in jobs}
        try:
            while running or waiting:
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    job = running.pop(future)
                    outcome = _outcome(future, job)
                    if outcome.status == "busy":
                        waiting.append((time.monotonic() + _ASK_AGAIN_S, job))
                        continue
                    if outcome.status == "failed":
                        result.failures[job.name] = outcome.why
                        bar.write(f"{job.name}: {outcome.why}", file=sys.stderr)
                        bar.set_postfix(failed=len(result.failures))
                    bar.update()
                now = time.monotonic()
                for item in [item for item in waiting if item[0] <= now]:
                    waiting.remove(item)
                    running[engine.executor.submit(engine.call, item[1])] = item[1]
        except BaseException:
            stop.touch()
            for future in running:
                future.cancel()
            wait([future for future in running if not future.cancelled()], timeout=60)
            raise


def _outcome(future: Future[Outcome], job: Job) -> Outcome:
    """The job's outcome; an exception in the worker, or the worker's death, is a failure of the run."""
    error = CancelledError() if future.cancelled() else future.exception()
    if error is None:
        return future.result()
    text = (str(error).strip() or "no message").splitlines()[0]
    return Outcome(job.name, "failed", f"{type(error).__name__}: {text}")


def default_folder() -> Path:
    """``runs/sweep`` of the checkout: sweeps are not in git."""
    return paths.repository_root() / "runs" / "sweep"
