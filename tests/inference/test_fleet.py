"""Many places at once act as one after the other would."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamzero.errors import UserError
from dreamzero.evaluate import evaluate
from dreamzero.flow import Reuse, SamplerConfig
from dreamzero.inference import WorldActionPolicy
from dreamzero.inference.fleet import Fleet
from dreamzero.model.bundle import WorldActionModel
from dreamzero.shipped import find
from dreamzero.sim import sample_scene

PROMPTS = ["touch the red block", "push the blue cube to the left", "reach for the green block"]
SEEDS = [5, 17, 3]


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    return WorldActionModel.load(find("tiny_so101"))


def seen(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames ``[3, t, 64, 64, 3]`` and states ``[3, 6]``."""
    pictures = rng.integers(0, 256, (3, frames, 64, 64, 3), dtype=np.uint8)
    return pictures, rng.uniform(-0.5, 0.5, (3, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("memory", "sampler"),
    [
        (0, SamplerConfig(steps=4, guidance=1.0)),
        (3, SamplerConfig(steps=2, guidance=1.0)),
        (2, SamplerConfig(steps=3, guidance=2.0, guidance_interval=(0.0, 0.9))),
        (0, SamplerConfig.flash()),
    ],
)
def test_rows_are_policies(model: WorldActionModel, memory: int, sampler: SamplerConfig) -> None:
    """Five chunks, with a window that starts anew within them; the middle row leaves after two."""
    fleet = Fleet(model, sampler=sampler, dream=True, memory_blocks=memory)
    fleet.reset(PROMPTS, SEEDS)
    policies = [
        WorldActionPolicy(model, sampler=sampler, dream=True, memory_blocks=memory, seed=seed)
        for seed in SEEDS
    ]
    for policy, prompt in zip(policies, PROMPTS, strict=True):
        policy.reset(prompt)
    rng, rows = np.random.default_rng(0), [0, 1, 2]
    for chunk in range(5):
        if chunk == 2:
            fleet.keep([0, 2])
            rows = [0, 2]
        needed = fleet.frames_needed
        assert needed == (8 if 0 < chunk % (memory + 1) else 1)
        pictures, states = seen(rng, 8 if chunk else 1)
        fleet.observe(pictures[rows], states[rows])
        actions, videos = fleet.act()
        assert videos is not None
        for at, row in enumerate(rows):
            policies[row].observe({"front": pictures[row]}, states[row])
            alone = policies[row].act()
            np.testing.assert_allclose(actions[at], alone.actions, atol=2e-4)
            assert alone.video is not None
            difference = videos[at].astype(int) - alone.video
            assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("execute_steps", [None, 4])
def test_evaluations_agree(execute_steps: int | None) -> None:
    """The same scenes and noise: outcomes, chunks and what is kept of them."""
    options = {"workers": 1, "progress": False, "execute_steps": execute_steps, "seed": 40}
    together = evaluate("tiny_so101", "unseen-verb", 3, keep_videos=2, max_steps=24, **options)  # type: ignore[arg-type]
    assert [e.task for e in together.episodes] == [
        sample_scene("unseen-verb", 900_000_040 + i).task.key for i in range(3)
    ]
    chunks = 3 if execute_steps is None else 6
    assert all(e.success or e.chunks == chunks for e in together.episodes)
    first, _, last = together.episodes
    assert first.video is not None
    assert first.video.shape == (1 + first.chunks * (execute_steps or 8), 64, 64, 3)
    assert last.video is None
    from contextlib import closing

    from dreamzero.evaluate import rollout
    from dreamzero.sim import Tabletop

    model = WorldActionModel.load(find("tiny_so101"))
    with closing(Tabletop("so101")) as env:
        for episode in together.episodes:
            policy = WorldActionPolicy(model, seed=episode.seed)
            scene = sample_scene("unseen-verb", episode.seed)
            alone = rollout(
                env, policy, scene, episode.seed, policy.card, 24, execute_steps, keep_video=True
            )
            assert (alone.success, alone.chunks) == (episode.success, episode.chunks)
            assert alone.progress == pytest.approx(episode.progress, abs=0.02)
            if episode.video is not None and alone.video is not None:
                assert np.abs(alone.video.astype(int) - episode.video).mean() < 1


def test_an_evaluation_dreams() -> None:
    found = evaluate(
        "tiny_so101", episodes=2, workers=1, keep_videos=1, dream=True, progress=False, max_steps=8
    )
    assert found.episodes[0].dreamed is not None
    assert found.episodes[0].dreamed.shape == (8, 64, 64, 3)
    assert found.episodes[1].dreamed is None


def test_what_a_fleet_cannot_do(model: WorldActionModel) -> None:
    with pytest.raises(UserError, match="dynamic reuse"):
        Fleet(model, sampler=SamplerConfig(reuse=Reuse(), guidance=1.0))
    with pytest.raises(UserError, match="room for 0 to 3"):
        Fleet(model, memory_blocks=4)
    sampler = SamplerConfig(reuse=Reuse(), guidance=1.0)
    found = evaluate(
        "tiny_so101", episodes=1, workers=1, sampler=sampler, progress=False, max_steps=8
    )
    assert found.episodes[0].chunks == 1  # one policy at a time


def test_rows_do_not_depend_on_their_neighbours(model: WorldActionModel) -> None:
    rng = np.random.default_rng(1)
    pictures, states = seen(rng, 1)
    fleet = Fleet(model)
    fleet.reset(PROMPTS, SEEDS)
    fleet.observe(pictures, states)
    together, _ = fleet.act()
    fleet.reset(PROMPTS[1:2], SEEDS[1:2])
    fleet.observe(pictures[1:2], states[1:2])
    alone, _ = fleet.act()
    torch.testing.assert_close(together[1:2], alone, atol=2e-4, rtol=0)
