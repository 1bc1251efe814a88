"""Policies of the same network that dream nothing: they learn, act, and are stored as what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamzero.data.mixture import Feed
from dreamzero.errors import UserError
from dreamzero.flow import SamplerConfig, noisy_actions, sample_block
from dreamzero.flow.objectives import DDPM_STEPS
from dreamzero.model.bundle import WorldActionModel
from dreamzero.train.config import TrainSettings
from dreamzero.train.loop import Trainer
from dreamzero.train.run import configured

from .toys import QUICK, losses, model, windows

RIVALS: dict[str, dict[str, Any]] = {
    "action-only": {"dream": "none"},
    "apart": {"dream": "apart"},
    "regression": {"dream": "none", "objective": "regression"},
    "diffusion": {"dream": "none", "objective": "diffusion"},
}


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_learns_what_is_always_done(name: str, tmp_path: Path) -> None:
    """Every window has the same actions; the loss falls, and the folder says what it holds."""
    given = windows()
    given.action[:] = torch.linspace(-0.8, 0.8, given.action[0].numel()).view(given.action[0].shape)
    settings = replace(
        QUICK, steps=40, lr=5e-3, chunks=0, ema=0.9, evaluate_every=1000, **RIVALS[name]
    )
    net = model(0)
    net.transformer = configured(net.transformer, settings)
    assert net.transformer.config.dream == settings.dream
    run = Trainer(net, [Feed(settings.full, given)], settings, tmp_path)
    run.run(progress=False)
    stored = WorldActionModel.load(tmp_path).transformer.config
    assert (stored.dream, stored.objective) == (settings.dream, settings.objective or "flow")
    batch = given.batch(torch.tensor([0, 1]))
    latents, found = run.objective.imagine(batch, 0, SamplerConfig(steps=4, guidance=1.0))
    assert latents.shape[2] == 0 and found.isfinite().all()
    log = losses(tmp_path)
    assert log[-1][2] < 0.6 * log[0][2]


def test_regression_is_one_call_from_no_noise() -> None:
    action, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    given, target, times = noisy_actions("regression", action, noise, torch.rand(2, 3), 5.0)
    assert not given.any() and torch.equal(target, -action) and (times == 1000).all()
    calls = []

    def network(video: torch.Tensor, x: torch.Tensor, tv: int, ta: int) -> Any:
        calls.append((tv, ta))
        return video, -action

    _, found = sample_block(
        "regression", network, torch.zeros(2, 1, 0, 4, 4), noise, SamplerConfig(16)
    )
    assert calls == [(1000, 1000)] and torch.equal(found, action)


def test_diffusion_undoes_its_own_noise() -> None:
    """A network that knows the noise exactly is led back to the actions by DDIM."""
    action, noise = torch.rand(2, 3, 4) - 0.5, torch.randn(2, 3, 4)
    sigma = torch.linspace(0.01, 1.0, 6).view(2, 3)
    given, target, times = noisy_actions("diffusion", action, noise, sigma, 1.0)
    assert torch.equal(target, noise)
    assert times.min() >= 0 and times.max() == 1000 * (DDPM_STEPS - 1) / DDPM_STEPS
    assert (given - action).abs()[0, 0].max() < (given - action).abs()[1, 2].max()

    def network(video: torch.Tensor, x: torch.Tensor, tv: int, ta: int) -> Any:
        from dreamzero.flow.objectives import ddpm

        kept = ddpm().alphas_cumprod[round(tv * DDPM_STEPS / 1000)]
        return video, (x - kept.sqrt() * action) / (1 - kept).sqrt()

    _, found = sample_block(
        "diffusion", network, torch.zeros(2, 1, 0, 4, 4), noise, SamplerConfig(10)
    )
    torch.testing.assert_close(found, action, atol=0.02, rtol=0)


def test_a_rival_s_settings_must_fit() -> None:
    with pytest.raises(UserError, match="dream=none"):
        TrainSettings(objective="regression")


def test_independent_timesteps() -> None:
    from dreamzero.flow import CoupledNoise

    noise = CoupledNoise(independent=True).sample(400, 1, 2, 4, torch.Generator().manual_seed(0))
    levels = torch.stack([noise.video[:, 1], noise.action[:, 0]])
    assert torch.corrcoef(levels)[0, 1].abs() < 0.2
    assert torch.equal(noise.action[:, 0], noise.action[:, 3])
