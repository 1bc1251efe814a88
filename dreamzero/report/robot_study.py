"""What notebook 04 does with an arm: scenes one after the other, and what may go wrong meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dreamzero.embodiments import Embodiment
from dreamzero.evaluate.statistics import Rate, wilson
from dreamzero.robots import Robot, RunLog, run_episode
from dreamzero.types import Policy


class World(Protocol):
    """What sets scenes and knows the score: an ``Emulator``, or a simulated arm."""

    @property
    def instruction(self) -> str: ...

    def reset(self, seed: int) -> Any: ...

    def score(self) -> Any: ...


@dataclass(frozen=True)
class Run:
    """One episode on an arm; ``success`` is None where nobody keeps the score."""

    seed: int
    instruction: str
    log: RunLog
    success: bool | None


def run_scenes(
    arm: Robot,
    policy: Policy,
    seeds: Sequence[int],
    world: World | None = None,
    instruction: str = "",
    max_chunks: int = 16,
    **options: Any,
) -> list[Run]:
    """One episode a seed, each until the task is done or ``max_chunks`` were executed.

    Args:
        arm: connected.
        world: sets each seed's scene and scores it; None on hardware, where ``instruction`` is
            given, a person sets the scene, and seeds only count.
        options: of ``dreamzero.robots.run_episode`` (mode, stream_hz ...).
    """
    runs = []
    for seed in seeds:
        if world is not None:
            world.reset(seed=seed)
            instruction = world.instruction
        until = None if world is None else lambda: bool(world.score()["success"])
        log = run_episode(arm, policy, instruction, max_chunks=max_chunks, until=until, **options)
        success = None if world is None else bool(world.score()["success"])
        runs.append(Run(seed, instruction, log, success))
    return runs


def success_rate(runs: Sequence[Run]) -> Rate | None:
    """Success with its Wilson interval; None without a score."""
    scored = [run.success for run in runs if run.success is not None]
    return wilson(sum(scored), len(scored)) if scored else None


@dataclass(frozen=True)
class Motion:
    """An episode without its pauses: row i is the i-th command that moved the arm.

    Attributes:
        time_s: float ``[n]`` at the command rate.
        command: float ``[n, a]`` as sent.
        measured: float ``[n, s]``, where the arm was when the command left.
    """

    time_s: np.ndarray
    command: np.ndarray
    measured: np.ndarray


def motion(log: RunLog) -> Motion:
    """Commands and positions of a run with the moments cut out in which it only held still."""
    moving = ~log.held
    sent_s = log.sent_s[moving]
    measured = np.stack([np.interp(sent_s, log.state_s, column) for column in log.state.T], axis=1)
    return Motion(np.arange(len(sent_s)) / log.stream_hz, log.sent[moving], measured)


def first_chunk_difference_rad(a: Motion, b: Motion, card: Embodiment) -> float:
    """Root mean square distance of the joints' positions in two runs during the first chunk.

    Later chunks start from observations of their own, so that small differences grow.
    """
    joints = [f for f in card.action if f.unit == "rad"]
    n = min(card.horizon, len(a.time_s), len(b.time_s))
    width = sum(f.width for f in joints)
    return float(np.sqrt(np.mean((a.measured[:n, :width] - b.measured[:n, :width]) ** 2)))


def table(ways: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
    """One row a scene: what was asked, and how each way of driving ended it."""
    first = next(iter(ways.values()))
    rows = []
    for number, asked in enumerate(first):
        row: dict[str, Any] = {"scene": str(asked.seed), "instruction": asked.instruction}
        for way, runs in ways.items():
            row[way] = _outcome(runs[number]) if number < len(runs) else "-"
        rows.append(row)
    return rows


def _outcome(run: Run) -> str:
    word = {True: "done", False: "not done", None: "not scored"}[run.success]
    return f"{word}, {len(run.log.chunks)} chunks"


@dataclass(frozen=True)
class Timing:
    """Commands of several runs taken together; times in ms."""

    lateness_ms: np.ndarray
    jitter_ms: np.ndarray
    think_ms: np.ndarray
    age_ms: np.ndarray
    missed: int
    commands: int
    held_share: float

    def row(self, mode: str) -> dict[str, Any]:
        """A row of the table of notebook 04."""

        def ms(values: np.ndarray, share: float) -> str:
            return f"{np.percentile(values, share):.2f}" if len(values) else "-"

        return {
            "mode": mode,
            "commands": self.commands,
            "deadlines missed": self.missed,
            "jitter p50 (ms)": ms(self.jitter_ms, 50),
            "p99 (ms)": ms(self.jitter_ms, 99),
            "max (ms)": ms(self.jitter_ms, 100),
            "thinking p50 (ms)": ms(self.think_ms, 50),
            "observation age p50 (ms)": ms(self.age_ms, 50),
            "holding": f"{100 * self.held_share:.0f} %",
        }


def timing(runs: Sequence[Run]) -> Timing:
    """How well the loop kept time in some runs."""
    logs = [run.log for run in runs]
    chunks = [chunk for log in logs for chunk in log.chunks]
    return Timing(
        lateness_ms=1e3 * np.concatenate([log.lateness_s for log in logs]),
        jitter_ms=1e3 * np.concatenate([log.jitter_s for log in logs]),
        think_ms=1e3 * np.array([chunk.think_s for chunk in chunks]),
        age_ms=1e3 * np.array([chunk.ready_s - chunk.observed_s for chunk in chunks]),
        missed=sum(log.missed for log in logs),
        commands=sum(len(log.sent_s) for log in logs),
        held_share=float(np.mean(np.concatenate([log.held for log in logs]))),
    )


@dataclass(frozen=True)
class Incident:
    """Something that went wrong on purpose while an arm was driven.

    Attributes:
        what: for the table.
        log: the run's; its faults say what was noticed, and when the arm was reached again.
        happened_s: when it happened, on the log's clock.
        mended_s: when it was put right, None if it was not.
    """

    what: str
    log: RunLog
    happened_s: float
    mended_s: float | None = None

    @property
    def noticed_ms(self) -> float | None:
        """From then until the loop knew; None if it never did."""
        return 1e3 * (self.log.faults[0].time_s - self.happened_s) if self.log.faults else None

    @property
    def back_ms(self) -> float | None:
        """From the mending until the policy's commands went out again."""
        if self.mended_s is None:
            return None
        moving = self.log.sent_s[~self.log.held & (self.log.sent_s > self.mended_s)]
        return 1e3 * float(moving[0] - self.mended_s) if len(moving) else None

    def row(self) -> dict[str, Any]:
        """A row of the table of notebook 04."""
        said = self.log.fault or (self.log.faults[0].text if self.log.faults else "")

        def ms(value: float | None) -> str:
            return "-" if value is None else f"{value:.0f} ms"

        return {
            "what": self.what,
            "noticed after": ms(self.noticed_ms),
            "moves again after": ms(self.back_ms),
            "the run": self.log.ended,
            "in words": said,
        }


def incident(
    what: str,
    arm: Robot,
    policy: Policy,
    instruction: str,
    happen: Callable[[], Any],
    mend: Callable[[], Any] | None = None,
    after_s: float = 1.5,
    out_s: float = 1.0,
    **options: Any,
) -> Incident:
    """Run an episode, let something happen ``after_s``, and mend it ``out_s`` later.

    Args:
        happen, mend: called from a thread of their own; without ``mend`` the run ends by itself.
        options: of ``dreamzero.robots.run_episode``.
    """
    times: list[float] = []

    def story() -> None:
        times.append(time.monotonic())  # before it is asked for: the loop may be quicker
        happen()
        if mend is not None:
            time.sleep(out_s)
            times.append(time.monotonic())
            mend()

    thread = threading.Thread(target=story)

    def watch(figures: Mapping[str, float]) -> None:
        if figures["seconds"] >= after_s and not times and not thread.is_alive():
            thread.start()

    seconds = after_s + (out_s + 2.0 if mend is not None else 10.0)
    log = run_episode(arm, policy, instruction, seconds=seconds, progress=watch, **options)
    thread.join()
    happened, *mended = [t - log.begin_s for t in times]
    return Incident(what, log, happened, mended[0] if mended else None)


def press_stop(uri: str) -> None:
    """``dreamzero robot stop``, in another process, for the arm at an address."""
    command = [sys.executable, "-m", "dreamzero", "robot", "stop", "--robot", uri]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
