"""Closed-loop evaluation on the tabletop: the same scenes for every policy, counted honestly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..embodiments import Embodiment, get, tabletop
from ..errors import UserError
from ..inference import FAST, WorldActionPolicy
from ..inference.fleet import Fleet
from ..model.bundle import WorldActionModel
from ..robots.policies import HoldPolicy, ReplayPolicy
from ..serve.policies import is_remote, open_policy
from ..shipped import find
from ..types import Policy
from .episodes import Episode, Evaluation
from .rollout import MAX_STEPS, rollout, rollout_together

if TYPE_CHECKING:
    from ..sim import Scene, Tabletop

# Scenes of evaluations start here; recordings use seeds far below.
SCENE_OFFSET = 900_000_000
BASELINES = ("hold", "replay", "expert")
# Scenes that share a forward pass; each takes an environment, and beyond a few dozen a core gains little.
TOGETHER = 32


def baseline(spec: str, card: Embodiment, scene: Scene, suite: str, seed: int) -> Policy:
    """A baseline for one scene: "hold", "replay" (the expert's commands for the same task in
    another scene) or "expert" (its commands for this scene: the ceiling of the task)."""
    from ..sim import rollout_expert, sample_scene

    if spec == "hold":
        return HoldPolicy(card)
    if spec == "replay":
        scene = sample_scene(suite, seed + 500_000, task=scene.task)
    return ReplayPolicy(card, rollout_expert(card.robot, scene).action)


class Bench:
    """A policy and the environments it is tried in, kept open from one piece of work to the next.

    Args:
        spec, robot, options, limits: as of ``evaluate``.
        together: scenes that share a forward pass.
    """

    def __init__(
        self,
        spec: str,
        suite: str,
        robot: str,
        options: Mapping[str, Any],
        limits: Mapping[str, Any],
        together: int,
    ) -> None:
        import torch

        torch.set_num_threads(1)
        self.spec, self.suite, self.robot = spec, suite, robot
        self.options, self.limits = dict(options), dict(limits)
        self._noise = self.options.pop("seed", 0)
        self.card = get(f"tabletop_{robot}")
        self.envs: list[Tabletop] = []
        self.fleet: Fleet | None = None
        self.policy: Policy | None = None
        if spec in BASELINES:
            return
        if is_remote(spec):
            self.policy = open_policy(spec, self.card)
        else:
            self._load(together)
        # the rates and the horizon it was trained with
        self.card = getattr(self.fleet or self.policy, "card", self.card)

    def _load(self, together: int) -> None:
        """The model, once, and what acts with it."""
        options = dict(self.options)
        model = WorldActionModel.load(self.spec, options.pop("device", "cpu"))
        alone = together == 1 or "engine" in options
        if alone or not Fleet.suits(model, options.get("sampler", FAST)):
            self.policy = WorldActionPolicy(model, self.card.name, **options)
        else:
            self.fleet = Fleet(model, self.card.name, **options)

    def work(self, seeds: Sequence[int], keep: int) -> list[Episode]:
        """One episode in each scene; of the first ``keep`` with video."""
        from ..sim import Tabletop, sample_scene

        scenes = [sample_scene(self.suite, seed) for seed in seeds]
        while len(self.envs) < (len(seeds) if self.fleet else 1):
            self.envs.append(Tabletop(self.robot))
        if self.fleet is not None:
            return rollout_together(
                self.envs, self.fleet, scenes, seeds, self._noise, keep=keep, **self.limits
            )
        return [
            self._alone(scene, seed, number < keep)
            for number, (seed, scene) in enumerate(zip(seeds, scenes, strict=True))
        ]

    def _alone(self, scene: Scene, seed: int, keep: bool) -> Episode:
        policy = self.policy or baseline(self.spec, self.card, scene, self.suite, seed)
        if isinstance(policy, WorldActionPolicy):
            policy.seed = self._noise + seed  # as a row of a fleet
        return rollout(self.envs[0], policy, scene, seed, self.card, keep_video=keep, **self.limits)

    def close(self) -> None:
        """Free the environments' GL contexts."""
        for env in self.envs:
            env.close()


_BENCH: Bench | None = None  # of a worker process


def _open(*arguments: Any) -> None:
    global _BENCH
    _BENCH = Bench(*arguments)


def _work(seeds: Sequence[int], keep: int) -> list[Episode]:
    assert _BENCH is not None
    return _BENCH.work(seeds, keep)


def evaluate(
    policy: Path | str,
    suite: str = "seen",
    episodes: int = 200,
    seed: int = 0,
    robot: str = "so101",
    workers: int = 2,
    together: int = TOGETHER,
    keep_videos: int = 0,
    max_steps: int = MAX_STEPS,
    execute_steps: int | None = None,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Roll a policy out in ``episodes`` scenes of a suite.

    Args:
        policy: model folder, address of a policy server, or "hold", "replay", "expert".
        suite: of ``sim.splits``; "seen:chain,shove" asks for other verbs than the suite's own.
        seed: first scene; scenes ``seed .. seed + episodes`` are the same for every policy.
        workers: processes.
        together: scenes of a process that share a forward pass of a model; 1 acts as a robot has to,
            one chunk at a time, and only then is the chunk rate a robot's.
        keep_videos: keep the video of the first so many episodes.
        max_steps, execute_steps: as in ``rollout``.
        options: of ``WorldActionPolicy`` (sampler, dream, seed), for models.

    Raises:
        UserError: unknown suite, no such policy folder, a model of another robot.
    """
    from tqdm.auto import tqdm

    from ..sim import split

    spec = str(policy)
    split(suite)  # raises for what is no suite, before anything is loaded
    if episodes < 1:
        raise UserError(f"--episodes {episodes}: give at least 1 (200 for a published number)")
    acting = [card.robot for card in tabletop.CARDS if card.has_action]
    if robot not in acting:
        raise UserError(f"--robot {robot}: arms of the tabletop are {', '.join(acting)}")
    if workers < 1:
        raise UserError(f"--workers {workers}: give at least 1")
    if together < 1:
        raise UserError(f"--together {together}: give at least 1")
    if spec not in BASELINES and not is_remote(spec):
        spec = str(find(spec))
    seeds = [SCENE_OFFSET + seed + i for i in range(episodes)]
    piece = max(1, min(together if together > 1 else 10, -(-episodes // workers)))
    pieces = [
        (seeds[i : i + piece], min(max(keep_videos - i, 0), piece))
        for i in range(0, episodes, piece)
    ]
    result = Evaluation(spec, suite)
    limits = {"max_steps": max_steps, "execute_steps": execute_steps}
    given = spec, suite, robot, options, limits, together
    with tqdm(total=episodes, desc=f"{Path(spec).name} {suite}", disable=not progress) as bar:
        for done in _map(pieces, workers, given):
            result.episodes += done
            bar.update(len(done))
            bar.set_postfix(success=f"{100 * result.success.value:.0f} %")
    return result


def _map(
    pieces: Sequence[tuple[list[int], int]], workers: int, given: tuple[Any, ...]
) -> Iterator[list[Episode]]:
    if workers <= 1 or len(pieces) == 1:
        with closing(Bench(*given)) as bench:
            for seeds, keep in pieces:
                yield bench.work(seeds, keep)
        return
    # Spawned: a forked process would share the GL of its parent.
    context = get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(pieces)), context, _open, given) as pool:
        for task in [pool.submit(_work, *piece) for piece in pieces]:
            yield task.result()
