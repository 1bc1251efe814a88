"""Wrong dream, or wrong arm? The two halves of a world action model scored apart, in centimetres.

Of one chunk, from a state that the policy brought itself to:

    plan      how far the tip of the dream's last frame is from where an expert would bring it
    reading   how far the tip that the actions bring about is from that of the dream
    both      how far the executed tip is from the expert's
    still     how far the expert moves: the error of a robot that stays where it is

A dream that is wrong and faithfully executed has a large plan error and a small reading error; a dream
that is right and not followed the other way round. Where a dream holds the tip is read by ``MotionReader``,
whose own error on real frames is given beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .rollout import executed
from .statistics import Rate, mean_interval

if TYPE_CHECKING:
    from ..inference import WorldActionPolicy
    from ..sim import Scene, Tabletop
    from .reader import MotionReader


@dataclass(frozen=True)
class Parts:
    """Errors of one chunk in each scene, float64 ``[n]``, m; what they mean is said above.

    Attributes:
        success: whether the episode, gone on with, ended well; bool ``[n]``.
    """

    plan: np.ndarray
    reading: np.ndarray
    both: np.ndarray
    still: np.ndarray
    success: np.ndarray

    def mean_cm(self, name: str, succeeded: bool | None = None) -> Rate:
        """Mean with its interval, of all episodes or of those that ended well or ill."""
        values = getattr(self, name)
        if succeeded is not None:
            values = values[self.success == succeeded]
        return mean_interval((100 * values).tolist())


def parts(
    policy: WorldActionPolicy,
    env: Tabletop,
    reader: MotionReader,
    scenes: Sequence[Scene],
    after: int = 0,
    max_steps: int = 128,
) -> Parts:
    """Score a policy's dream and its actions apart in each scene.

    Args:
        policy: with ``dream=True``, of the environment's arm; whole chunks are executed.
        after: chunks that the policy drives itself before the one that is scored.
        max_steps: of the episode, whose end decides ``success``; more than ``after`` chunks.

    Raises:
        ValueError: the policy does not dream, or the episode ends before the chunk is scored.
    """
    if after * policy.card.horizon >= max_steps:
        raise ValueError(f"after={after} chunks an episode of max_steps={max_steps} is over")
    found = np.array([_errors(policy, env, reader, s, after, max_steps) for s in scenes])
    plan, reading, both, still, success = found.T
    return Parts(plan, reading, both, still, success > 0)


def _errors(
    policy: WorldActionPolicy,
    env: Tabletop,
    reader: MotionReader,
    scene: Scene,
    after: int,
    max_steps: int,
) -> tuple[float, float, float, float, bool]:
    """Plan, reading, both, still, and whether the episode ended well."""
    from ..sim.recording import demonstrate

    view, horizon, every = executed(policy.card, None)
    env.reset_quietly(scene)
    policy.reset(scene.instruction)
    frames, sent, count = [env.render_views([view])[view]], list[np.ndarray](), 0
    while count * horizon < max_steps and not (count > after and env.success()):
        policy.observe({view: np.stack(frames)}, env.state())
        chunk, before, seen, frames = policy.act(), env.tip(), frames[-1], []
        for i, action in enumerate(chunk.actions, start=1):
            env.advance(action)
            if i % every == 0:
                frames.append(env.render_views([view])[view])
        if count == after:
            if chunk.video is None:
                raise ValueError("this policy did not dream: build it with dream=True")
            history, started, driven = list(sent), before, env.tip()
            dreamed = reader.read(policy.model.codec, seen[None], chunk.video[-1:], before[None])[0]
        sent += list(chunk.actions)
        count += 1
    success = env.success()
    # To the same state again, from which the expert goes on.
    env.reset_quietly(scene)
    for action in history:
        env.advance(action)
    demonstrate(env, rows=horizon + 1)
    wanted = env.tip()

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(a - b))

    return (
        apart(dreamed, wanted),
        apart(driven, dreamed),
        apart(driven, wanted),
        apart(started, wanted),
        success,
    )
