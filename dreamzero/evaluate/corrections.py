"""Demonstrations that begin where a policy got itself to: the expert takes over from there.

A policy cloned from demonstrations meets states that no demonstration shows, because of its own
small errors (Ross, Gordon, Bagnell 2011, "A Reduction of Imitation Learning ... to No-Regret Online
Learning"). Here the policy drives for a while, then the expert goes on to the end; what is recorded
starts at the hand-over, so that video and actions of a recording belong together.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..shipped import find
from .rollout import rollout

if TYPE_CHECKING:
    from ..sim import Episode

# Scenes of corrections: far from those of recordings and of evaluations.
_SCENES = 400_000_000
_PIECE, _PIECES = 10, 8


def record_corrections(
    out: Path | str,
    policy: Path | str,
    episodes: int,
    seed: int = 0,
    suite: str = "seen",
    robot: str = "so101",
    executions: tuple[int, int] = (1, 12),
    execute_steps: int | None = None,
    workers: int = 1,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Writes a LeRobot v3.0 dataset of corrections and returns its folder.

    Scenes in which the policy is done before its time, or the expert cannot mend what it did, are
    left out and the next takes their place.

    Args:
        policy: model folder, or a shipped model.
        seed: decides the scenes and when the expert takes over.
        executions: fewest and most times the policy acts before that, drawn evenly.
        execute_steps: of each chunk, as in ``rollout``.
        options: of ``WorldActionPolicy``.

    Raises:
        UserError: no such policy; ``out`` is not empty; nothing half-written stays.
    """
    from ..sim.recording import write

    if episodes < 1 or workers < 1:
        raise UserError(f"episodes and workers must be >= 1, got {episodes} and {workers}")
    if not 0 <= executions[0] <= executions[1]:
        raise UserError(f"executions must be (fewest, most), got {executions}")
    spec = str(find(policy))
    arguments = (spec, suite, robot, executions, execute_steps, dict(options))
    stream = _corrections(episodes, seed, workers, arguments)
    return write(out, robot, stream, episodes, suite=suite, progress=progress)


def _corrections(
    episodes: int, seed: int, workers: int, arguments: tuple[Any, ...]
) -> Iterator[Episode]:
    """In an order that does not depend on the number of workers."""
    scenes = count(_SCENES + seed * 1_000_000)
    kept = 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        while kept < episodes:
            number = min(_PIECES, 1 + (episodes - kept) // _PIECE)
            pieces = [list(islice(scenes, _PIECE)) for _ in range(number)]
            for done in pool.map(
                _work, pieces, *([argument] * len(pieces) for argument in arguments)
            ):
                for episode in done[: episodes - kept]:
                    yield episode
                    kept += 1


def _work(
    seeds: list[int],
    spec: str,
    suite: str,
    robot: str,
    executions: tuple[int, int],
    execute_steps: int | None,
    options: dict[str, Any],
) -> list[Episode]:
    import torch

    from ..inference import load_policy
    from ..sim import Tabletop, sample_scene
    from ..sim.recording import demonstrate

    torch.set_num_threads(1)
    policy = load_policy(spec, embodiment=f"tabletop_{robot}", **options)
    card = policy.card
    episodes = []
    with closing(Tabletop(robot)) as env:
        for seed in seeds:
            times = int(
                np.random.default_rng([seed, 15485863]).integers(*executions, endpoint=True)
            )
            steps = times * (execute_steps or card.horizon)
            scene = sample_scene(suite, seed)
            driven = rollout(
                env, policy, scene, seed, card, max_steps=steps, execute_steps=execute_steps
            )
            if not driven.success:
                episodes.append(demonstrate(env, seed))
    return [episode for episode in episodes if episode.success]
