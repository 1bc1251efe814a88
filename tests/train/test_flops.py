"""Counted arithmetic is the arithmetic that is done."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dreamzero.model.attention import TeacherForcing, dense_mask
from dreamzero.model.presets import preset
from dreamzero.model.transformer import DreamZeroTransformer
from dreamzero.train.flops import arithmetic, layout_of, peak_flops, seen_pairs

LAYOUTS = [
    TeacherForcing(frame=4, blocks=3, frames_per_block=2, actions=5, states=1),
    TeacherForcing(frame=4, blocks=1, frames_per_block=2, actions=5, states=1, noisy_first=False),
    TeacherForcing(frame=4, blocks=3, frames_per_block=2, actions=0, states=0, noisy_first=False),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_are_those_of_the_mask(layout: TeacherForcing) -> None:
    assert seen_pairs(layout) == dense_mask(layout).sum()


@pytest.mark.parametrize("blocks", [1, 3])
def test_counted_is_what_is_done(blocks: int) -> None:
    """Products to a percent; attention computes nothing that the mask drops."""
    torch.manual_seed(0)
    config: dict[str, Any] = preset("tiny")
    transformer = DreamZeroTransformer(**config)
    layout = layout_of(config, (8, 8), blocks)
    counted = arithmetic(config, layout, text=7, image=0)
    clean = torch.randn(1, 24, 1 + 2 * blocks, 8, 8)
    action = torch.randn(1, 8 * blocks, 8)
    with FlopCounterMode(display=False) as counter:
        context = transformer.embed_context(torch.randn(1, 7, 128))
        transformer(
            clean[:, :, 1:], clean, torch.full((1, 2 * blocks), 500.0), context, action,
            torch.full((1, 8 * blocks), 500.0), torch.randn(1, blocks, 8),
        )  # fmt: skip
    found = {str(k): v for k, v in counter.get_flop_counts()["Global"].items()}
    attention = found.pop("aten.bmm")
    # A state's answer to itself is its own value: no product is computed for it.
    states = 4 * config["dim"] * config["num_layers"] * blocks
    assert attention == pytest.approx(counted.attention - states, rel=1e-9)
    # The rest counts time embeddings and coders too, which are few.
    assert sum(found.values()) == pytest.approx(counted.products, rel=0.12)
    assert counted.products < sum(found.values())


def test_attention_of_the_released_model_is_useful() -> None:
    config = preset("wan2.1-14b-droid")
    layout = layout_of(config, (44, 80), 4)
    one = arithmetic(config, layout)
    useful = seen_pairs(layout) / layout.length**2
    assert one.tokens == 7 * 880 + 8 * 880 + 4 * 25
    assert useful < 0.4  # what a dense mask would waste
    assert one.attention < 0.5 * one.dense_attention
    assert 30e12 < one.products / one.tokens * 1785 < 45e12  # MODEL.md 5: 43 TFLOP a forward


def test_a_peak_says_where_it_is_from() -> None:
    flops, origin = peak_flops(torch.device("cpu"), False)
    assert flops > 1e9 and origin.startswith("measured")
