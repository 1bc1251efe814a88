"""Episodes of the scripted experts: one, a stream from several processes, or a LeRobot v3.0 dataset."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import embodiments
from ..errors import UserError
from . import arms, world
from .experts import Expert
from .layout import BLOCK_HALF_M
from .skills import HOVER_M
from .splits import Scene, sample_scene
from .tabletop import Tabletop
from .tasks import Task

ROWS = 65
# Disturbances of a noisy episode: how many, where they start (row), how long (rows).
_BUMPS, _BUMP_START, _BUMP_ROWS = (1, 2), (2, 40), (5, 10)
# Starts in the middle of a task: beside the block, or in the air around it.
_BEHIND_M, _BEHIND_Z_M, _ASIDE_M = (0.003, 0.03), (0.014, 0.06), 0.008
_AROUND_M, _AROUND_Z_M = 0.08, (0.03, 0.12)


@dataclass(frozen=True)
class Episode:
    """One demonstration; row t holds frame and state at time t and the action commanded at t.

    Attributes:
        frames: view -> uint8 ``[t, h, w, 3]``.
        state: float32 ``[t, s]``, SI.
        action: float32 ``[t, a]``, SI: what the expert wanted, without the injected noise.
        instruction: the task in words.
        success: whether the task was done at the last row.
        task: what was to be done.
        scene: what it was recorded in.
        seed: of the scene.
        noisy: whether disturbances were injected.
    """

    frames: Mapping[str, np.ndarray]
    state: np.ndarray
    action: np.ndarray
    instruction: str
    success: bool
    task: Task
    scene: Scene
    seed: int
    noisy: bool


def rollout_expert(
    robot: str | Tabletop = "so101",
    scene: Scene | Task | None = None,
    seed: int = 0,
    noise: float = 0.0,
    *,
    suite: str = "seen",
    views: Sequence[str] = ("front",),
    size_px: int = 64,
    rows: int = ROWS,
    midway: float = 0.0,
) -> Episode:
    """One episode of the expert at 15 Hz.

    Args:
        robot: a name, or an environment to use again (``views`` and ``size_px`` are then its own).
        scene: a scene; or a task, whose scene is drawn from (suite, seed); or None for the
            suite's own task.
        seed: of the scene and of the noise.
        noise: probability that the episode is disturbed: smooth bumps are added to the executed
            joint targets, the recorded action stays the expert's answer to the disturbed state.
        rows: length; 65 rows are 4.3 s.
        midway: probability that the arm starts in the middle of the task (behind the block that is
            to be pushed, or in the air around it), as a policy finds itself that went a little wrong.
    """
    for name, share in (("noise", noise), ("midway", midway)):
        if not 0.0 <= share <= 1.0:
            raise UserError(f"{name} is a probability between 0 and 1, got {share}")
    if not isinstance(scene, Scene):
        scene = sample_scene(suite, seed, scene)
    if isinstance(robot, str):
        with closing(Tabletop(robot, views=views, size_px=size_px)) as env:
            return _rollout(env, scene, seed, noise, rows, midway)
    return _rollout(robot, scene, seed, noise, rows, midway)


def record_arrays(
    robot: str = "so101",
    episodes: int = 100,
    seed: int = 0,
    suite: str = "seen",
    views: Sequence[str] = ("front",),
    size_px: int = 64,
    noise: float = 0.5,
    workers: int = 1,
    keep_failures: bool = False,
    tasks: Sequence[Task] | None = None,
    rows: int = ROWS,
    midway: float = 0.0,
) -> Iterator[Episode]:
    """Yields ``episodes`` episodes, in an order that does not depend on the number of workers.

    Scene seeds are ``seed * 1_000_000 + i``; an episode whose expert failed is left out (unless
    ``keep_failures``) and the next seed takes its place. With ``workers`` > 1 each is a spawned
    process with its own GL context. ``tasks`` are taken in turn instead of the suite's own.
    """
    if episodes < 1 or workers < 1:
        raise UserError(f"episodes and workers must be >= 1, got {episodes} and {workers}")
    first = seed * 1_000_000
    jobs = (
        (first + i, None if tasks is None else tasks[i % len(tasks)]) for i in itertools.count()
    )
    settings: dict[str, Any] = {"robot": robot, "views": tuple(views), "size_px": size_px}
    work = partial(_work, suite=suite, noise=noise, rows=rows, midway=midway)
    kept = 0
    if workers == 1:
        with closing(Tabletop(**settings)) as env:
            for job in jobs:
                episode = work(job, env=env)
                if episode.success or keep_failures:
                    yield episode
                    kept += 1
                    if kept == episodes:
                        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (settings,)) as pool:
        # Whole rounds, because a pool would read an endless stream ahead of need.
        while kept < episodes:
            count = max(workers, episodes - kept)
            for episode in pool.imap(work, itertools.islice(jobs, count), chunksize=2):
                if kept < episodes and (episode.success or keep_failures):
                    yield episode
                    kept += 1


def record(
    out: str | Path,
    robot: str = "so101",
    episodes: int = 100,
    seed: int = 0,
    suite: str = "seen",
    views: Sequence[str] = ("front",),
    size_px: int = 64,
    noise: float = 0.5,
    workers: int = 1,
    keep_failures: bool = False,
    tasks: Sequence[Task] | None = None,
    rows: int = ROWS,
    midway: float = 0.0,
    progress: bool = True,
) -> Path:
    """Writes a LeRobot v3.0 dataset of the expert's episodes and returns its folder.

    Arguments as ``record_arrays``. A body without action labels (``hand``) is written as video only.
    UserError if ``out`` exists and is not empty; nothing half-written stays after a failure.
    """
    stream = record_arrays(
        robot,
        episodes,
        seed,
        suite,
        views,
        size_px,
        noise,
        workers,
        keep_failures,
        tasks,
        rows,
        midway,
    )
    return write(out, robot, stream, episodes, views, size_px, suite, progress)


def write(
    out: str | Path,
    robot: str,
    stream: Iterable[Episode],
    episodes: int,
    views: Sequence[str] = ("front",),
    size_px: int = 64,
    suite: str = "seen",
    progress: bool = True,
) -> Path:
    """Writes ``episodes`` episodes of a stream as a LeRobot v3.0 dataset; see ``record``."""
    from tqdm.auto import tqdm

    from ..data.writer import Writer

    root = Path(out)
    card = embodiments.get(f"tabletop_{robot}")
    names = [*arms.get(robot).joints, "gripper"] if card.has_action else None
    sizes = {f"observation.images.{v}": (size_px, size_px) for v in views}
    with Writer(root, world.CONTROL_HZ, robot, sizes, names, names) as writer:
        for episode in tqdm(stream, total=episodes, desc=f"record {robot}", disable=not progress):
            writer.add_episode(
                {f"observation.images.{v}": f for v, f in episode.frames.items()},
                episode.state if names else None,
                episode.action if names else None,
                episode.instruction,
                extras={
                    "suite": suite,
                    "seed": episode.seed,
                    "task_key": episode.task.key,
                    "success": episode.success,
                    "noisy": episode.noisy,
                },
            )
    return root


def _midway(rng: np.random.Generator, scene: Scene, tip_half_m: float) -> Scene:
    """The same scene with the tip somewhere on the way, clear of the blocks."""
    task = scene.task
    if not task.colour:
        return scene
    target = next(b for b in scene.blocks if b.colour == task.colour)
    clear = BLOCK_HALF_M + tip_half_m
    for _ in range(50):
        if task.verb == "push" and rng.random() < 0.5:
            way = np.array(task.direction)
            back = clear + rng.uniform(*_BEHIND_M)
            aside = rng.normal(0.0, _ASIDE_M)
            offset = -way * back + np.array([-way[1], way[0]]) * aside
            height = rng.uniform(*_BEHIND_Z_M)
        else:
            offset, height = rng.uniform(-_AROUND_M, _AROUND_M, 2), rng.uniform(*_AROUND_Z_M)
        x, y = target.x_m + offset[0], target.y_m + offset[1]
        gaps = [max(abs(x - b.x_m), abs(y - b.y_m)) for b in scene.blocks]
        if height > HOVER_M or min(gaps) > clear:
            return replace(scene, start_tip_m=(float(x), float(y), float(height)))
    return scene


def _rollout(
    env: Tabletop, scene: Scene, seed: int, noise: float, rows: int, midway: float = 0.0
) -> Episode:
    start = np.random.default_rng([seed, 104729])
    if start.random() < midway:
        scene = _midway(start, scene, env.arm.tip_half_m)
    env.reset_quietly(scene)
    return demonstrate(env, seed, noise, rows)


def demonstrate(env: Tabletop, seed: int = 0, noise: float = 0.0, rows: int = ROWS) -> Episode:
    """The expert from wherever the environment is now; arguments as ``rollout_expert``."""
    scene, expert = env.scene, Expert(env)
    rng = np.random.default_rng([seed, 7919])
    noisy = bool(rng.random() < noise)
    strength = np.array(env.arm.noise)
    offsets = _bumps(rng, rows, strength) if noisy else np.zeros((rows, len(strength) + 1))
    frames: dict[str, list[np.ndarray]] = {v: [] for v in env.views}
    states, actions = [], []
    for row in range(rows):
        for view, frame in env.render_views().items():
            frames[view].append(frame)
        states.append(env.state())
        actions.append(expert.act())
        if row < rows - 1:
            env.advance(actions[-1] + offsets[row])
    return Episode(
        frames={v: np.stack(f) for v, f in frames.items()},
        state=np.stack(states),
        action=np.stack(actions),
        instruction=scene.instruction,
        success=env.success(),
        task=scene.task,
        scene=scene,
        seed=seed,
        noisy=noisy,
    )


def _bumps(rng: np.random.Generator, rows: int, strength: np.ndarray) -> np.ndarray:
    """Smooth joint disturbances ``[rows, a]``, rad (m), of that standard deviation; 0 on the gripper."""
    offsets = np.zeros((rows, len(strength) + 1))
    for _ in range(rng.integers(_BUMPS[0], _BUMPS[1] + 1)):
        start = int(rng.integers(*_BUMP_START))
        length = int(rng.integers(_BUMP_ROWS[0], _BUMP_ROWS[1] + 1))
        shape = np.sin(np.pi * (np.arange(length) + 0.5) / length)
        push = shape[:, None] * rng.normal(0.0, strength)
        stop = min(start + length, rows)
        if stop > start:
            offsets[start:stop, :-1] += push[: stop - start]
    return offsets


_WORKER: dict[str, Any] = {}


def _start_worker(settings: dict[str, Any]) -> None:
    _WORKER["env"] = Tabletop(**settings)


def _work(
    job: tuple[int, Task | None],
    suite: str,
    noise: float,
    rows: int,
    midway: float,
    env: Tabletop | None = None,
) -> Episode:
    seed, task = job
    scene = sample_scene(suite, seed, task)
    return _rollout(env or _WORKER["env"], scene, seed, noise, rows, midway)
