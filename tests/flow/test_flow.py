"""Schedules, the objective, and the sampler on flows whose solution is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamzero.errors import UserError
from dreamzero.flow import (
    CoupledNoise,
    FlashNoise,
    SamplerConfig,
    add_noise,
    flow_loss,
    sample,
    sampling_sigmas,
    train_sigmas,
    train_weights,
    velocity_target,
    weight_at,
)


@given(st.integers(1, 64), st.floats(1.0, 10.0), st.floats(0.0, 0.9))
def test_sampling_sigmas_fall_to_the_end(steps: int, shift: float, final: float) -> None:
    sigmas = sampling_sigmas(steps, shift, final)
    assert len(sigmas) == steps + 1
    assert (sigmas.diff() < 0).all()
    assert sigmas[0] > 0.99
    assert sigmas[-1].item() == pytest.approx(final, abs=1e-6)


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 8))
def test_noise_is_shared_by_a_block(batch: int, blocks: int, frames: int, horizon: int) -> None:
    noise = CoupledNoise().sample(
        batch, blocks, frames, horizon, torch.Generator().manual_seed(batch)
    )
    assert noise.video.shape == (batch, 1 + blocks * frames)
    assert noise.action.shape == (batch, blocks * horizon)
    video = noise.video[:, 1:].view(batch, blocks, frames)
    action = noise.action.view(batch, blocks, horizon)
    assert torch.equal(video, video[:, :, :1].expand_as(video))
    assert torch.equal(action, video[:, :, :1].expand_as(action))
    assert torch.equal(
        noise.video_weight[:, 1:], noise.video_weight[:, 1::frames].repeat_interleave(frames, 1)
    )


def test_a_share_of_blocks_is_drawn_at_pure_noise() -> None:
    def nearly(pure: float) -> float:
        noise = CoupledNoise(pure=pure).sample(4000, 2, 2, 3, torch.Generator().manual_seed(0))
        assert torch.equal(noise.video[:, 1::2], noise.action[:, ::3])
        return (noise.action > 0.998).float().mean().item()

    # Of uniform noise at shift 5, 1 in 100 lies there anyway.
    assert nearly(0.0) == pytest.approx(0.01, abs=0.005)
    assert nearly(0.5) == pytest.approx(0.505, abs=0.02)
    assert nearly(1.0) == 1.0


def test_flash_noise_is_the_published_distribution() -> None:
    """Clean share 1 - Beta(7, 1): mean 1/8; actions uniform, and nothing to do with the video."""
    noise = FlashNoise().sample(20_000, 2, 2, 3, torch.Generator().manual_seed(0))
    clean = 1 - noise.video[:, 1::2]
    # The mean of n draws of Beta(7, 1) has the standard deviation sqrt(7 / 576 / n).
    assert clean.mean().item() == pytest.approx(0.125, abs=5 * (7 / 576 / clean.numel()) ** 0.5)
    for share in (0.02, 0.1, 0.3):  # P(clean < x) = 1 - (1 - x) ** 7
        assert (clean < share).float().mean().item() == pytest.approx(
            1 - (1 - share) ** 7, abs=0.02
        )
    level = noise.action[:, ::3]
    assert torch.histc(level, 10, 0, 1).div(level.numel()).sub(0.1).abs().max() < 0.01
    both = torch.stack([level.flatten(), clean.flatten()])
    assert torch.corrcoef(both)[0, 1].abs() < 0.02
    assert torch.equal(noise.video[:, 1::2], noise.video[:, 2::2])
    assert torch.equal(noise.action[:, ::3], noise.action[:, 2::3])
    assert not torch.equal(noise.action[:, 0], noise.action[:, 3])


def test_weight_at_a_training_sigma_is_the_table() -> None:
    torch.testing.assert_close(weight_at(train_sigmas()), train_weights())
    assert (weight_at(torch.linspace(0, 1, 50)) >= 0).all()


def test_weights_have_mean_one_and_vanish_at_pure_noise() -> None:
    weights = train_weights()
    assert weights.mean().item() == pytest.approx(1.0, abs=1e-5)
    assert weights[0] == 0
    assert 450 < 1000 * train_sigmas()[weights.argmax()] < 550


@given(st.floats(0, 1))
def test_noise_and_velocity_belong_together(sigma: float) -> None:
    g = torch.Generator().manual_seed(0)
    x, n = torch.randn(2, 4, 3, generator=g)
    s = torch.tensor(sigma)
    point, v = add_noise(x, n, s), velocity_target(x, n)
    torch.testing.assert_close(point - s * v, x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(point + (1 - s) * v, n, atol=1e-5, rtol=1e-5)


def test_masked_actions_cost_nothing() -> None:
    video = torch.zeros(2, 1, 3, 2, 2)
    action, target = torch.zeros(2, 4, 3), torch.ones(2, 4, 3)
    mask = torch.zeros(2, 4, 3, dtype=torch.bool)
    mask[..., :2] = True
    target[..., 2] = 100.0  # padding
    target[1] = 50.0  # a sample without labels
    loss = flow_loss(
        video, video, torch.ones(2, 3), action, target, torch.ones(2, 4), mask,
        torch.tensor([True, False]),
    )  # fmt: skip
    assert loss.action.item() == pytest.approx(1.0)
    assert loss.video.item() == 0
    none = flow_loss(
        video, video, torch.ones(2, 3), action, target, torch.ones(2, 4), mask,
        torch.tensor([False, False]),
    )  # fmt: skip
    assert none.total.item() == 0


@pytest.mark.parametrize("steps", [1, 2, 4, 16])
def test_a_straight_flow_is_solved_exactly(steps: int) -> None:
    """With the true velocity noise - x the sampler lands on x from pure noise."""
    g = torch.Generator().manual_seed(3)
    x, a = torch.randn(1, 2, 2, 4, 4, generator=g), torch.randn(1, 8, 3, generator=g)
    nx, na = torch.randn(x.shape, generator=g), torch.randn(a.shape, generator=g)
    top = sampling_sigmas(steps)[0]

    def velocity(video: Tensor, action: Tensor, tv: int, ta: int) -> tuple[Tensor, Tensor]:
        return nx - x, na - a

    start = add_noise(x, nx, top), add_noise(a, na, top)
    video, action = sample(velocity, *start, SamplerConfig(steps=steps))
    torch.testing.assert_close(video, x, atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(action, a, atol=2e-4, rtol=2e-4)


def test_masked_steps_are_not_evaluated() -> None:
    calls = []

    def velocity(video: Tensor, action: Tensor, tv: int, ta: int) -> tuple[Tensor, Tensor]:
        calls.append((tv, ta))
        return torch.zeros_like(video), torch.zeros_like(action)

    config = SamplerConfig(steps=4, step_mask=(True, False, True, False), video_final_noise=0.8)
    sample(velocity, torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 4, 2), config)
    assert config.evaluations == 2
    assert calls == [(999, 999), (966, 833)]


def test_bad_masks_are_refused() -> None:
    with pytest.raises(UserError, match="3 entries and steps is 4: give one for each"):
        SamplerConfig(steps=4, step_mask=(True, True, False))
    with pytest.raises(UserError, match="first step"):
        SamplerConfig(steps=2, step_mask=(False, True))
