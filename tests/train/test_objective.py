"""What chance decides about a sample, and that nothing else does."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from dreamzero.flow import SamplerConfig
from dreamzero.train.config import Source, TrainSettings
from dreamzero.train.objective import Drawn, draw, generators

from .toys import CARD, QUICK, rows, trainer, windows


def drawn(settings: TrainSettings, step: int, places: list[int], count: int = 400) -> Drawn:
    batch = windows(count).batch(torch.tensor(places))
    return draw(batch, settings, 2, generators(settings.seed, step, places))


def test_a_sample_s_chance_is_its_own() -> None:
    """Whoever computes it, and whatever else is in the piece."""
    whole, part = drawn(QUICK, 3, [0, 1, 2, 3]), drawn(QUICK, 3, [2, 3])
    for item in fields(Drawn):
        a, b = getattr(whole, item.name)[2:], getattr(part, item.name)
        assert torch.equal(a, b), item.name
    assert not torch.equal(whole.video[0], whole.video[1])
    assert not torch.equal(whole.video, drawn(QUICK, 4, [0, 1, 2, 3]).video)
    assert not torch.equal(whole.video, drawn(replace(QUICK, seed=1), 3, [0, 1, 2, 3]).video)


def test_chance_is_normal_and_prompts_are_dropped() -> None:
    found = drawn(replace(QUICK, prompt_dropout=0.25), 0, list(range(400)))
    assert found.video.mean().abs() < 0.01 and found.video.std() == pytest.approx(1, abs=0.01)
    assert found.dropped.float().mean().item() == pytest.approx(0.25, abs=0.07)
    assert torch.equal(found.video_weight, torch.ones_like(found.video_sigma))
    bell = drawn(replace(QUICK, weighting="bell"), 0, list(range(400)))
    assert bell.video_weight.std() > 0.3


def test_the_flash_stage_draws_video_and_actions_apart() -> None:
    coupled = drawn(QUICK, 0, list(range(400)))
    assert torch.equal(coupled.action_sigma[:, 0], coupled.video_sigma[:, 1])
    found = drawn(replace(QUICK, stage="flash"), 0, list(range(400)))
    assert (1 - found.video_sigma).mean().item() == pytest.approx(0.125, abs=0.01)
    assert found.action_sigma.mean().item() == pytest.approx(0.5, abs=0.05)
    levels = torch.stack([found.action_sigma[:, 0], found.video_sigma[:, 1]])
    assert torch.corrcoef(levels)[0, 1].abs() < 0.15


def test_a_flash_training_is_judged_by_one_step(tmp_path: Path) -> None:
    settings = replace(
        QUICK, stage="flash", steps=4, evaluate_every=4, chunks=4, dreams=0, validation=0.25
    )
    run = trainer(tmp_path, settings)
    assert run.early.sampler == SamplerConfig.flash()
    run.run(progress=False)
    assert rows(tmp_path)[-1]["open_loop"] > 0


def test_what_is_imagined_does_not_depend_on_the_company(tmp_path: Path) -> None:
    """Of the same windows two at a time, one at a time, and with observed blocks before them."""
    run = trainer(tmp_path, replace(QUICK, full=Source(blocks=2, batch=4)))
    batch = windows().batch(torch.tensor([4, 5]))
    sampler = SamplerConfig(steps=2, guidance=1.0)
    for observed in (0, 1):
        latents, action = run.objective.imagine(batch, observed, sampler)
        assert latents.shape == (2, 3, 2, 4, 4) and action.shape == (2, CARD.horizon, 6)
        alone = windows().batch(torch.tensor([5]))
        one = run.objective.imagine(alone, observed, sampler, first=1)
        torch.testing.assert_close(one[0], latents[1:], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one[1], action[1:], atol=1e-5, rtol=1e-4)
    other = run.objective.imagine(batch, 0, sampler)
    assert not torch.allclose(other[1], action)
