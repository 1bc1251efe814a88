"""What an instruction tells a model: much to the shipped one, nothing to one that cannot hear."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dreamzero import embodiments
from dreamzero.evaluate.grounding import grounding
from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.codecs import to_float
from dreamzero.shipped import find
from dreamzero.sim import rollout_expert, sample_scene

CARD = embodiments.get("tabletop_so101")


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    return WorldActionModel.load(find("tiny_so101"))


@pytest.fixture(scope="module")
def episodes(model: WorldActionModel) -> tuple[Tensor, list[str]]:
    scenes = [sample_scene("seen", 900_000_000 + i) for i in range(8)]
    frames = [rollout_expert("so101", s, rows=9).frames["front"] for s in scenes]
    latents = torch.cat([model.codec.encode(to_float(f).unsqueeze(0)) for f in frames])
    return latents, [CARD.render_prompt(s.instruction) for s in scenes]


def test_the_shipped_model_is_told_something(
    model: WorldActionModel, episodes: tuple[Tensor, list[str]]
) -> None:
    latents, prompts = episodes
    found = grounding(model, latents, prompts, prompts[1:] + prompts[:1])
    assert found.true.shape == found.other.shape == (8,)
    assert found.share.low > 0.05
    # With a block that is all but clean, the picture says it all.
    clearer = grounding(model, latents, prompts, prompts[1:] + prompts[:1], sigma=0.2)
    assert clearer.share.value < found.share.value


def test_same_noise_for_both_and_other_means_other(
    model: WorldActionModel, episodes: tuple[Tensor, list[str]]
) -> None:
    latents, prompts = episodes
    empty = [""] * len(prompts)
    assert (
        grounding(model, latents, prompts, empty).true
        == grounding(model, latents, prompts, prompts[1:] + prompts[:1]).true
    ).all()
    with pytest.raises(ValueError, match="differ"):
        grounding(model, latents, prompts, prompts)
