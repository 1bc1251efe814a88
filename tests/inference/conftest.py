"""What the tests of the engine and of the policy share."""

from __future__ import annotations

import pytest
import torch

from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.codecs.tiny import TinyCodec
from dreamzero.model.presets import preset
from dreamzero.model.text import WordEncoder
from dreamzero.model.transformer import DreamZeroTransformer

from .toys import CARD, statistics


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    torch.manual_seed(0)
    transformer = DreamZeroTransformer(**preset("tiny"))
    text = WordEncoder.fit([CARD.render_prompt("push the red block")], dim=128)
    codec = TinyCodec(width_half=8, width_quarter=8, width_eighth=8)
    made = WorldActionModel(transformer, codec, text, {CARD.name: (CARD, statistics())})
    for module in (made.transformer, made.text_encoder, codec):
        module.eval().requires_grad_(False)
    return made
