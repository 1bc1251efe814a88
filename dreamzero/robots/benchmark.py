"""What the control loop is measured by: punctuality, a pulled cable, and limits under a million commands.

Each function returns plain figures; nothing here is asserted. The first two drive an emulated SO-101 on a
pseudo-terminal, three processes beside each other: the arm, the loop, and the policy in this one.
Other programs on the machine show in the figures, which is why its load stands beside them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import embodiments
from . import open as open_robot
from .emulation import Emulator
from .episode import run_episode
from .runlog import RunLog
from .safety import Guard, Limits
from .workspace import Workspace

_TASK, _SCENE = "push-red-left", 3


@contextmanager
def _arm(policy: str, physics: str) -> Iterator[tuple[Any, Any, Emulator]]:
    """(policy on one thread, arm, emulator)."""
    import torch

    from ..inference import load_policy

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = load_policy(policy)
        with Emulator(physics=physics, task=_TASK, seed=_SCENE) as emulator:
            yield model, open_robot(emulator.uri, model.card), emulator
    finally:
        torch.set_num_threads(threads)


def stream_100hz(
    seconds: float = 60.0,
    hz: float = 100.0,
    policy: str = "tiny_so101",
    physics: str = "tabletop",
) -> dict[str, float]:
    """Stream at ``hz`` while the policy thinks beside it, ``overlapped``.

    Returns:
        ``RunLog.summary()``, ``real_time`` (whether the kernel scheduled it so), ``seconds_asked`` and
        ``load``, the mean number of runnable programs of the minute before.
    """
    load = os.getloadavg()[0]
    with _arm(policy, physics) as (model, arm, emulator):
        log = run_episode(
            arm,
            model,
            emulator.instruction,
            seconds=seconds,
            mode="overlapped",
            stream_hz=hz,
            keep_frames=False,
        )
    log.raise_for_fault()
    given = {"seconds_asked": seconds, "hz": hz, "real_time": float(log.real_time), "load": load}
    return given | log.summary()


def pulled_cable(
    after_s: float = 2.0,
    out_s: float = 1.0,
    policy: str = "tiny_so101",
    physics: str = "tabletop",
) -> dict[str, float]:
    """Pull the cable in the middle of a task, put it back, and see the run through.

    Returns:
        ``noticed_ms`` from the pull to the loop's holding; ``drift_rad``, how far a joint went from 0.3 s
        after the pull (it finishes its last command) until the cable was back; ``back_ms`` from
        then to the open wire, and ``moves_ms`` to the next command of the policy; ``success``.
    """
    times: dict[str, float] = {}
    poses: list[list[float]] = []

    with _arm(policy, physics) as (model, arm, emulator):

        def joints() -> list[float]:
            return list(emulator.state()["joints"].values())

        def cable() -> None:
            emulator.fault("unplug")
            time.sleep(0.3)
            poses.append(joints())
            time.sleep(max(out_s - 0.3, 0.0))
            poses.append(joints())
            times["back"] = time.monotonic()
            emulator.fault("replug")

        thread = threading.Thread(target=cable)

        def pull(figures: Mapping[str, float]) -> None:
            if figures["seconds"] >= after_s and "pull" not in times:
                times["pull"] = time.monotonic()
                thread.start()

        log = run_episode(
            arm,
            model,
            emulator.instruction,
            seconds=after_s + out_s + 3.0,
            mode="overlapped",
            stream_hz=100.0,
            keep_frames=False,
            progress=pull,
        )
        thread.join()
        success = bool(emulator.score()["success"])
    log.raise_for_fault()
    return _outage(log, times) | {
        "drift_rad": float(np.max(np.abs(np.subtract(poses[0], poses[1])))),
        "success": float(success),
    }


def _outage(log: RunLog, times: Mapping[str, float]) -> dict[str, float]:
    fault = log.faults[0]
    assert fault.back_s is not None
    moving = log.sent_s[~log.held & (log.sent_s > fault.back_s)]
    return {
        "noticed_ms": 1e3 * (log.begin_s + fault.time_s - times["pull"]),
        "back_ms": 1e3 * (log.begin_s + fault.back_s - times["back"]),
        "moves_ms": 1e3 * (log.begin_s + float(moving[0]) - times["back"]),
    }


def fuzz_guard(n: int = 1_000_000, seed: int = 0, robot: str = "so101") -> dict[str, float]:
    """Give the limits ``n`` commands of every kind, and count those that should not have passed.

    Streams of 1000 begin in a random pose; steps small and large, NaN and infinities, time that
    stands still, runs backwards or jumps. Half of the streams have a limit on the step, and a tenth
    a workspace (kinematics cost more than all other rules together). What passed is checked here once
    more, in numbers of its own.
    """
    card = embodiments.get(f"tabletop_{robot}")
    rng = np.random.default_rng(seed)
    box = ((0.05, 0.45), (-0.25, 0.25), (0.0, 0.35))
    violations = limited = done = 0
    spent_s = 0.0
    while done < n:
        count = min(1000, n - done)
        stream = done // 1000
        step = 0.05 if stream % 2 else None
        workspace = Workspace.of(card, box if stream % 10 == 9 else None)
        guard = Guard(Limits.from_card(card, 1.0, step), workspace)
        pose, wanted, times_s = _commands(rng, guard.limits, count)
        guard.reset(pose, 0.0)
        begin = time.perf_counter()
        decisions = [guard.check(a, t) for a, t in zip(wanted, times_s, strict=True)]
        spent_s += time.perf_counter() - begin
        sent = np.array([pose, *(d.action for d in decisions)], np.float64)
        violations += _violations(guard, sent, times_s, np.isfinite(wanted).all(axis=1))
        limited += sum(d.clipped for d in decisions)
        done += count
    return {
        "commands": float(n),
        "violations": float(violations),
        "limited": float(limited),
        "us_a_command": 1e6 * spent_s / n,
    }


def _commands(
    rng: np.random.Generator, limits: Limits, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pose ``[a]``, commands ``[count, a]``, times ``[count]`` s)."""
    low, high = np.array(limits.lower), np.array(limits.upper)
    pose = rng.uniform(low, high)
    walk = pose + np.cumsum(rng.normal(0, 0.02, (count, limits.width)), axis=0)
    wild = rng.choice([0.1, 1.0, 1e3, 1e30], count)[:, None] * rng.normal(size=walk.shape)
    wanted = np.where(rng.random(count)[:, None] < 0.95, walk, wild)
    odd = rng.random(wanted.shape) < 0.005
    wanted[odd] = rng.choice([np.nan, np.inf, -np.inf], odd.sum())
    gaps_s = rng.choice([0.01, 1 / 15, 0.0, -0.5, 3.0], count, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    return pose, wanted, np.cumsum(gaps_s)


def _violations(guard: Guard, sent: np.ndarray, times_s: np.ndarray, finite: np.ndarray) -> int:
    """Of the commands after the pose, ``sent[0]``: how many break a rule (float32 rounds by 1e-6)."""
    limits, eps = guard.limits, 2e-6
    moved, now = np.abs(np.diff(sent, axis=0)), sent[1:]
    bad = ~np.isfinite(now).all(axis=1)
    bad |= ((now < np.array(limits.lower) - eps) | (now > np.array(limits.upper) + eps)).any(axis=1)
    # After a command that passed, the time since then counts; else never more than two periods.
    gap_s = np.maximum(np.diff(times_s, prepend=-limits.period_s), 0.0)
    passed = np.concatenate([[True], finite[:-1]]) & (guard.workspace is None)
    forward = times_s >= np.maximum.accumulate(times_s)
    exact = passed & forward & np.concatenate([[True], forward[:-1]])
    span_s = np.where(exact, np.minimum(gap_s, 2 * limits.period_s), 2 * limits.period_s)
    bad |= (moved > np.array(limits.velocity) * span_s[:, None] + eps).any(axis=1)
    bad |= ~finite & (moved > eps).any(axis=1)
    if limits.step:
        bad |= (moved > np.array(limits.step) + eps).any(axis=1)
    if guard.workspace is not None:
        outside = np.array([guard.workspace.outside_m(action) for action in sent])
        bad |= outside[1:] > np.maximum(outside[:-1], 0) + 1e-6
    return int(bad.sum())
