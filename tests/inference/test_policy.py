"""The closed-loop policy on an untrained tiny model: order of calls, window, repeatability, limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dreamzero.errors import UserError
from dreamzero.flow import SamplerConfig
from dreamzero.inference import WorldActionPolicy, load_policy
from dreamzero.model.bundle import WorldActionModel
from dreamzero.types import Policy

from .toys import CARD, STATE, VIEW, episode, frames


def test_it_is_a_policy_and_repeats_exactly(model: WorldActionModel) -> None:
    policy = WorldActionPolicy(model)
    assert isinstance(policy, Policy)
    first, second = episode(policy, 3), episode(policy, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0].shape == (CARD.horizon, CARD.action_dim)
    assert first[0].dtype == np.float32
    other = WorldActionPolicy(model, seed=1)
    assert not np.array_equal(episode(other, 1)[0], first[0])


def test_the_window_starts_again_when_full(model: WorldActionModel) -> None:
    policy = WorldActionPolicy(model)
    policy.reset("push the red block")
    policy.observe(frames(1), STATE)
    cached = [policy.act().info["cached_frames"]]
    for i in range(6):
        policy.observe(frames(8, i), STATE)
        cached.append(policy.act().info["cached_frames"])
    assert cached == [1, 3, 5, 7, 1, 3, 5]


@pytest.mark.parametrize(("memory", "cached"), [(0, [1, 1, 1, 1]), (1, [1, 3, 1, 3])])
def test_memory_can_be_shorter_than_the_window(
    model: WorldActionModel, memory: int, cached: list[int]
) -> None:
    policy = WorldActionPolicy(model, memory_blocks=memory)
    policy.reset("push the red block")
    policy.observe(frames(1), STATE)
    found = [policy.act().info["cached_frames"]]
    for i in range(3):
        policy.observe(frames(8, i), STATE)
        found.append(policy.act().info["cached_frames"])
    assert found == cached
    with pytest.raises(UserError, match="room for 0 to 3"):
        WorldActionPolicy(model, memory_blocks=4)


def test_observed_frames_replace_the_dream(model: WorldActionModel) -> None:
    """After the same first chunk, other observed frames lead to another second chunk."""
    policy = WorldActionPolicy(model)
    seconds = []
    for seed in (1, 2):
        policy.reset("push the red block")
        policy.observe(frames(1), STATE)
        policy.act()
        policy.observe(frames(8, seed), STATE)
        seconds.append(policy.act().actions)
    assert not np.array_equal(*seconds)


def test_dream_and_guidance(model: WorldActionModel) -> None:
    plain = WorldActionPolicy(model, dream=True)
    chunk = plain.reset("push the red block") or plain.observe(frames(1), STATE) or plain.act()
    assert chunk.video is not None
    assert chunk.video.shape == (8, 64, 64, 3)
    assert chunk.info["branches"] == 1
    guided = WorldActionPolicy(model, sampler=SamplerConfig(steps=2, guidance=3.0))
    guided.reset("push the red block")
    guided.observe(frames(1), STATE)
    assert guided.act().info["branches"] == 2


def test_mistakes_are_named(model: WorldActionModel) -> None:
    policy = WorldActionPolicy(model)
    with pytest.raises(UserError, match="observe before reset"):
        policy.observe(frames(1), STATE)
    policy.reset("push the red block")
    with pytest.raises(UserError, match="act before observe"):
        policy.act()
    with pytest.raises(UserError, match="lacks view"):
        policy.observe({"observation.images.top": frames(1)[VIEW]}, STATE)
    with pytest.raises(UserError, match="finite numbers"):
        policy.observe(frames(1), STATE * np.nan)
    policy.observe(frames(1), STATE)
    with pytest.raises(UserError, match="8 frames of one chunk"):
        policy.observe(frames(5), STATE)
    with pytest.raises(UserError, match="not trained on 'droid'"):
        WorldActionPolicy(model, embodiment="droid")


def test_folder_round_trip(model: WorldActionModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    actions = episode(load_policy(tmp_path), 2)
    # The codec is stored in half precision, so compare what does not pass through it: the shape,
    # and that a second reading is the first one exactly.
    again = episode(load_policy(tmp_path), 2)
    assert all(np.array_equal(a, b) for a, b in zip(actions, again, strict=True))
    (tmp_path / "embodiment.json").unlink()
    with pytest.raises(UserError, match=r"has no embodiment.json"):
        load_policy(tmp_path)
    with pytest.raises(UserError, match="no such model folder"):
        load_policy(tmp_path / "nowhere")


def test_half_precision_folder_acts_alike(model: WorldActionModel, tmp_path: Path) -> None:
    model.save(tmp_path / "half", dtype=torch.float16)
    model.save(tmp_path / "full")
    sizes = [
        (tmp_path / k / "transformer" / "diffusion_pytorch_model.safetensors").stat().st_size
        for k in ("half", "full")
    ]
    assert sizes[0] < 0.51 * sizes[1]
    half, full = (episode(load_policy(tmp_path / k), 2) for k in ("half", "full"))
    assert np.abs(half[1] - full[1]).max() < 0.05
    assert next(model.transformer.parameters()).dtype == torch.float32


def test_a_checkpoint_of_another_preset_is_refused(model: WorldActionModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    config = tmp_path / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"dim": 192', '"dim": 384'))
    with pytest.raises(UserError, match="do not fit"):
        load_policy(tmp_path)
