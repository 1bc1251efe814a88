"""Episodes on the tabletop: one policy in one scene, or one model in many scenes at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..embodiments import Embodiment
from ..errors import UserError
from ..types import Policy
from .episodes import Episode

if TYPE_CHECKING:
    from ..inference.fleet import Fleet
    from ..sim import Scene, Tabletop

# Twice the length of a demonstration.
MAX_STEPS = 128


def executed(card: Embodiment, execute_steps: int | None) -> tuple[str, int, int]:
    """The simulator's name of the view, actions executed of a chunk, and actions a frame.

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
    return view, execute, every


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
    """
    view, execute, every = executed(card, execute_steps)
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


def rollout_together(
    envs: Sequence[Tabletop],
    fleet: Fleet,
    scenes: Sequence[Scene],
    seeds: Sequence[int],
    noise: int = 0,
    max_steps: int = MAX_STEPS,
    execute_steps: int | None = None,
    keep: int = 0,
) -> list[Episode]:
    """One episode in each scene, all in step: ``rollout`` with one forward pass for all.

    What no one looks at is not drawn: frames between two chunks where a window starts anew with each.

    Args:
        envs: one a scene, or more.
        noise: episode i is that of a policy with seed ``noise + seeds[i]``.
        keep: videos of the first so many are kept; others are not decoded.

    Returns:
        in the order of the scenes; ``seconds`` is the policy's time divided among its rows.
    """
    view, execute, every = executed(fleet.card, execute_steps)
    count, whole = len(scenes), execute == fleet.card.horizon
    for env, scene in zip(envs, scenes, strict=False):
        env.reset_quietly(scene)
    fleet.reset([s.instruction for s in scenes], [noise + seed for seed in seeds])
    seen = [[env.render_views([view])[view]] for env in envs[:count]]
    fresh, dreamed = [list(frames) for frames in seen], [list[np.ndarray]() for _ in scenes]
    chunks, seconds = [0] * count, [0.0] * count
    active = [i for i in range(count) if not envs[i].success()]
    if active and len(active) < count:
        fleet.keep(active)
    while active and chunks[active[0]] * execute < max_steps:
        needed = fleet.frames_needed if whole else 1
        started = time.perf_counter()
        shown = np.stack([np.stack(fresh[i][-needed:]) for i in active])
        fleet.observe(shown, np.stack([envs[i].state() for i in active]))
        actions, videos = fleet.act()
        share = (time.perf_counter() - started) / len(active)
        drawn_from = execute - (fleet.frames_needed if whole else 1) * every
        for row, i in enumerate(active):
            fresh[i] = []
            for step, action in enumerate(actions[row][:execute], start=1):
                envs[i].advance(action)
                if step % every == 0 and (i < keep or step > drawn_from):
                    fresh[i].append(envs[i].render_views([view])[view])
            if i < keep:
                seen[i] += fresh[i]
                if videos is not None:
                    dreamed[i].append(videos[row][: execute // every])
            chunks[i], seconds[i] = chunks[i] + 1, seconds[i] + share
        going = [row for row, i in enumerate(active) if not envs[i].success()]
        if going and len(going) < len(active):
            fleet.keep(going)
        active = [active[row] for row in going]
    return [
        Episode(
            seed=seeds[i],
            task=scene.task.key,
            instruction=scene.instruction,
            success=envs[i].success(),
            progress=envs[i].progress(),
            chunks=chunks[i],
            seconds=seconds[i],
            video=np.stack(seen[i]) if i < keep else None,
            dreamed=np.concatenate(dreamed[i]) if dreamed[i] else None,
        )
        for i, scene in enumerate(scenes)
    ]
