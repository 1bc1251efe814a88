"""Closed-loop evaluation on the tabletop: the same scenes for every policy, counted honestly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embodiments import Embodiment, get, tabletop
from ..errors import UserError
from ..robots.policies import HoldPolicy, ReplayPolicy
from ..serve.policies import is_remote, open_policy
from ..shipped import find
from ..types import Policy
from .statistics import Rate, mean_interval, wilson

if TYPE_CHECKING:
    from ..sim import Scene, Tabletop

# Scenes of evaluations start here; recordings use seeds far below.
SCENE_OFFSET = 900_000_000
# Twice the length of a demonstration.
MAX_STEPS = 128
BASELINES = ("hold", "replay", "expert")


@dataclass(frozen=True)
class Episode:
    """One rollout.

    Attributes:
        seed: scene number; the scene is a function of (suite, seed) alone.
        task: for example "push-red-left"; progress: partial credit in [0, 1] at the end.
        chunks, seconds: chunks executed, and what the policy took for them (wall clock).
        video: observed frames uint8 ``[t, h, w, 3]`` at the card's video rate, if kept.
        dreamed: what the policy predicted for the same instants (from frame 1 on), if it dreams.
    """

    seed: int
    task: str
    instruction: str
    success: bool
    progress: float
    chunks: int
    seconds: float
    video: np.ndarray | None = None
    dreamed: np.ndarray | None = None


@dataclass
class Evaluation:
    """All rollouts of one policy on one suite."""

    policy: str
    suite: str
    episodes: list[Episode] = field(default_factory=list)

    @property
    def success(self) -> Rate:
        return wilson(sum(e.success for e in self.episodes), len(self.episodes))

    @property
    def progress(self) -> Rate:
        return mean_interval([e.progress for e in self.episodes])

    def by_verb(self) -> dict[str, Rate]:
        """Success by the first word of the task."""
        verbs = sorted({e.task.split("-")[0] for e in self.episodes})
        return {
            verb: wilson(sum(e.success for e in group), len(group))
            for verb in verbs
            for group in [[e for e in self.episodes if e.task.split("-")[0] == verb]]
        }

    @property
    def chunk_rate_hz(self) -> float:
        """Chunks a second of policy time."""
        return sum(e.chunks for e in self.episodes) / max(
            sum(e.seconds for e in self.episodes), 1e-9
        )


def baseline(spec: str, card: Embodiment, scene: Scene, suite: str, seed: int) -> Policy:
    """A baseline for one scene: "hold", "replay" (the expert's commands for the same task in
    another scene) or "expert" (its commands for this scene: the ceiling of the task)."""
    from ..sim import rollout_expert, sample_scene

    if spec == "hold":
        return HoldPolicy(card)
    if spec == "replay":
        scene = sample_scene(suite, seed + 500_000, task=scene.task)
    return ReplayPolicy(card, rollout_expert(card.robot, scene).action)


def rollout(
    env: Tabletop,
    policy: Policy,
    scene: Scene,
    seed: int,
    card: Embodiment,
    max_steps: int = MAX_STEPS,
    execute_steps: int | None = None,
    keep_video: bool = False,
) -> Episode:
    """One episode: observe, act, execute, and stop once the task is done.

    Args:
        max_steps: end after so many control steps (15 a second), rounded up to whole executions.
        execute_steps: actions of a chunk that are executed before the next is asked for; None
            executes the whole chunk. After a part the policy sees only the newest frame, and starts
            a window from it; after a whole chunk it sees all its frames, and remembers.

    Raises:
        UserError: ``execute_steps`` is not between 1 and the horizon, or ends between two frames.
    """
    view, every = card.views[0].rsplit(".", 1)[-1], round(card.action_hz / card.video_hz)
    execute = card.horizon if execute_steps is None else execute_steps
    if not 0 < execute <= card.horizon or execute % every:
        raise UserError(
            f"execute_steps={execute} must be a multiple of {every} (whole frames) up to the "
            f"{card.horizon} actions of a chunk"
        )
    env.reset_quietly(scene)
    policy.reset(scene.instruction)
    frames = [env.render_views([view])[view]]
    seen, dreamed, seconds, done, chunks = list(frames), [], 0.0, env.success(), 0
    while chunks * execute < max_steps and not done:
        newest = frames if execute == card.horizon else frames[-1:]
        started = time.perf_counter()
        policy.observe({view: np.stack(newest)}, env.state())
        chunk = policy.act()
        seconds += time.perf_counter() - started
        frames = []
        for i, action in enumerate(chunk.actions[:execute], start=1):
            env.advance(action)
            if i % every == 0:
                frames.append(env.render_views([view])[view])
        seen += frames
        if chunk.video is not None:
            dreamed.append(chunk.video[: execute // every])
        chunks, done = chunks + 1, env.success()
    return Episode(
        seed=seed,
        task=scene.task.key,
        instruction=scene.instruction,
        success=done,
        progress=env.progress(),
        chunks=chunks,
        seconds=seconds,
        video=np.stack(seen) if keep_video else None,
        dreamed=np.concatenate(dreamed) if keep_video and dreamed else None,
    )


def _work(
    spec: str,
    suite: str,
    seeds: list[int],
    robot: str,
    options: dict[str, Any],
    keep: int,
    limits: dict[str, Any],
) -> list[Episode]:
    import torch

    from ..sim import Tabletop, sample_scene

    torch.set_num_threads(1)
    card = get(f"tabletop_{robot}")
    model: Policy | None = None
    if spec not in BASELINES:
        model = open_policy(spec, card, **options)
        card = getattr(model, "card", card)  # the rates and the horizon it was trained with
    env = Tabletop(robot)
    episodes = []
    try:
        for number, seed in enumerate(seeds):
            scene = sample_scene(suite, seed)
            policy = model or baseline(spec, card, scene, suite, seed)
            kept = number < keep
            episodes.append(rollout(env, policy, scene, seed, card, keep_video=kept, **limits))
    finally:
        env.close()
    return episodes


def evaluate(
    policy: Path | str,
    suite: str = "seen",
    episodes: int = 200,
    seed: int = 0,
    robot: str = "so101",
    workers: int = 2,
    keep_videos: int = 0,
    max_steps: int = MAX_STEPS,
    execute_steps: int | None = None,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Roll a policy out in ``episodes`` scenes of a suite.

    Args:
        policy: model folder, address of a policy server, or "hold", "replay", "expert".
        seed: first scene; scenes ``seed .. seed + episodes`` are the same for every policy.
        keep_videos: keep the video of so many episodes of each piece of work.
        max_steps, execute_steps: as in ``rollout``.
        options: of ``WorldActionPolicy`` (sampler, dream, seed), for models.

    Raises:
        UserError: unknown suite, no such policy folder, a model of another robot.
    """
    from tqdm.auto import tqdm

    from ..sim import SUITES

    spec = str(policy)
    if suite not in SUITES:
        raise UserError(f"unknown suite {suite!r}; known: {', '.join(SUITES)}")
    if episodes < 1:
        raise UserError(f"--episodes {episodes}: give at least 1 (200 for a published number)")
    acting = [card.robot for card in tabletop.CARDS if card.has_action]
    if robot not in acting:
        raise UserError(f"--robot {robot}: arms of the tabletop are {', '.join(acting)}")
    if workers < 1:
        raise UserError(f"--workers {workers}: give at least 1")
    if spec not in BASELINES and not is_remote(spec):
        spec = str(find(spec))
    seeds = [SCENE_OFFSET + seed + i for i in range(episodes)]
    piece = max(1, min(10, episodes // max(workers, 1)))
    pieces = [seeds[i : i + piece] for i in range(0, episodes, piece)]
    result = Evaluation(spec, suite)
    bar = tqdm(total=episodes, desc=f"{Path(spec).name} {suite}", disable=not progress)
    limits = {"max_steps": max_steps, "execute_steps": execute_steps}
    with bar:
        for done in _map(spec, suite, pieces, robot, dict(options), keep_videos, limits, workers):
            result.episodes += done
            bar.update(len(done))
            bar.set_postfix(success=f"{100 * result.success.value:.0f} %")
    return result


def _map(
    spec: str,
    suite: str,
    pieces: list[list[int]],
    robot: str,
    options: dict[str, Any],
    keep: int,
    limits: dict[str, Any],
    workers: int,
) -> Iterator[list[Episode]]:
    if workers <= 1 or len(pieces) == 1:
        for piece in pieces:
            yield _work(spec, suite, piece, robot, options, keep, limits)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(_work, spec, suite, p, robot, options, keep, limits) for p in pieces]
        for task in tasks:
            yield task.result()
