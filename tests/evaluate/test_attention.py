"""Where actions look: the weights are those of the model's own attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamzero.evaluate.attention import gaze
from dreamzero.inference import WorldActionPolicy, load_policy
from dreamzero.model.codecs import to_float
from dreamzero.sim import rollout_expert, sample_scene


@pytest.fixture(scope="module")
def policy() -> WorldActionPolicy:
    return load_policy("tiny_so101")


def test_all_attention_is_accounted_for(policy: WorldActionPolicy) -> None:
    scene = sample_scene("seen", 900_000_005)
    episode = rollout_expert("so101", scene, rows=9)
    policy.reset(scene.instruction)
    latents = policy.model.codec.encode(to_float(episode.frames["front"]).unsqueeze(0))
    found = gaze(policy, latents, episode.state[0])
    layers = policy.model.transformer.config.num_layers
    assert found.observed.shape == (layers, 8, 1, 4, 4)
    assert found.dreamed.shape == (layers, 8, 2, 4, 4)
    total = found.observed.sum((2, 3, 4)) + found.dreamed.sum((2, 3, 4)) + found.rest
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert sum(found.share().values()) == pytest.approx(1, abs=1e-5)
    # It matters where the video is: another first frame draws other looks.
    other = gaze(policy, latents.flip(-1), episode.state[0])
    assert np.abs(other.observed - found.observed).max() > 0.01
    # And nothing stays wrapped.
    assert all("forward" not in vars(block.attn1) for block in policy.model.transformer.blocks)


def test_a_policy_without_dream_looks_at_what_it_saw(policy: WorldActionPolicy) -> None:
    model = policy.model.transformer.with_(dream="none")
    policy_alone = load_policy("tiny_so101")
    policy_alone.model.transformer = model
    policy_alone.reset("touch the red block")
    latents = torch.randn(1, model.config.out_channels, 3, 8, 8)
    found = gaze(policy_alone, latents, np.zeros(6, np.float32))
    assert found.dreamed.shape[2] == 0 and found.share()["dreamed"] == 0
