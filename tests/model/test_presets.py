"""Parameter counts of the full-size presets, to the last digit, without memory for them."""

from __future__ import annotations

import inspect
import json
import math
from collections import Counter

import pytest
import torch
from torch import nn

from dreamzero.model.checkpoints.configs import empty_module
from dreamzero.model.checkpoints.names import split
from dreamzero.model.presets import (
    CLIP_VIT_H14,
    ENCODERS,
    PRESETS,
    UMT5_XXL,
    WAN21_VAE,
    WAN22_VAE,
    preset,
)
from dreamzero.model.transformer import DreamZeroTransformer

from .test_names import LIST, needs_list

CODERS = ("state_encoder", "action_encoder", "action_decoder")


def count(module: nn.Module, *parts: str) -> int:
    return sum(
        parameter.numel()
        for name, parameter in module.named_parameters()
        if not parts or name.split(".")[0] in parts
    )


# Without the coders: what Wan-AI publishes for I2V-14B, T2V-1.3B and, less the CLIP part that
# DreamZero adds, TI2V-5B.
@pytest.mark.parametrize(
    ("name", "whole", "coders", "clip"),
    [
        ("wan2.1-14b-droid", 16_484_292_448, 89_413_664, None),
        ("wan2.1-14b-agibot", 16_484_292_448, 89_413_664, None),
        ("wan2.1-1.3b", 1_418_996_800 + 10_379_296, 10_379_296, 0),
        ("wan2.2-5b", 4_999_787_712 + 34_813_984 + 572_091_136, 34_813_984, 572_091_136),
    ],
)
def test_transformers(name: str, whole: int, coders: int, clip: int | None) -> None:
    module = empty_module("transformer", preset(name))
    assert count(module) == whole
    assert count(module, *CODERS) == coders
    if clip is not None:
        without = empty_module("transformer", {**preset(name), "image_dim": None})
        assert count(module) - count(without) == clip


def test_agibot_differs_in_its_horizon_alone() -> None:
    droid, agibot = preset("wan2.1-14b-droid"), preset("wan2.1-14b-agibot")
    assert {key for key in droid if droid[key] != agibot[key]} == {"horizon"}
    assert agibot["horizon"] == 48


def test_encoders_of_the_release() -> None:
    """Ours hold all but CLIP's two contrastive ends: a 1280 x 1024 head and a scalar."""
    modules = {c: empty_module(c, config) for c, config in ENCODERS["wan2.1-14b-droid"].items()}
    counts = {component: count(module) for component, module in modules.items()}
    assert counts == {
        "text_encoder": 5_680_910_336,
        "image_encoder": 630_766_080,
        "vae": 126_892_531,
    }
    assert sum(counts.values()) + 1280 * 1024 + 1 == 6_439_879_668


@needs_list
def test_encoders_against_the_list() -> None:
    listed = json.loads(LIST.read_text())
    counts: Counter[str] = Counter()
    for name, shape in listed["shapes"].items():
        counts[split(name)[0]] += math.prod(shape)
    assert counts == {
        "transformer": 16_484_292_448,
        "text_encoder": 5_680_910_336,
        "image_encoder": 630_766_080 + 1280 * 1024 + 1,
        "vae": 126_892_531,
    }
    assert counts.total() == listed["n_params"] == 22_924_172_116


def test_encoders_of_other_presets() -> None:
    assert ENCODERS.keys() == {name for name in PRESETS if name.startswith("wan")}
    assert ENCODERS["wan2.2-5b"]["vae"] is WAN22_VAE
    assert ENCODERS["wan2.1-1.3b"]["vae"] is WAN21_VAE
    assert "image_encoder" not in ENCODERS["wan2.1-1.3b"]
    assert count(empty_module("vae", WAN22_VAE)) == 704_688_668


@pytest.mark.parametrize("name", ENCODERS)
def test_parts_of_a_preset_fit_each_other(name: str) -> None:
    """Text and image widths, latent channels: what one part gives is what the other takes."""
    sizes, parts = preset(name), ENCODERS[name]
    assert sizes["text_dim"] == parts["text_encoder"]["d_model"]
    latents = parts["vae"]["z_dim"]
    assert sizes["out_channels"] == latents
    # The latent alone, or with four mask channels and the first frame's latent.
    assert sizes["in_channels"] in (latents, latents + 4 + latents)
    if sizes["image_dim"] is None:
        assert "image_encoder" not in parts
    else:
        assert sizes["image_dim"] == parts["image_encoder"]["hidden_size"]
    for key in ("latents_mean", "latents_std"):
        assert len(parts["vae"].get(key, [0.0] * latents)) == latents


def test_presets_build_without_memory() -> None:
    with torch.device("meta"):
        module = DreamZeroTransformer(**preset("wan2.1-14b-droid"))
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}
    assert len(list(module.parameters())) == 1317


def test_the_libraries_know_every_setting() -> None:
    """A misspelt key would otherwise be carried along and change nothing."""
    from diffusers import AutoencoderKLWan
    from transformers import CLIPVisionConfig, UMT5Config

    for vae in (WAN21_VAE, WAN22_VAE):
        assert vae.keys() <= inspect.signature(AutoencoderKLWan.__init__).parameters.keys()
    assert UMT5_XXL.keys() <= UMT5Config().to_dict().keys() | {"feed_forward_proj"}
    assert CLIP_VIT_H14.keys() <= CLIPVisionConfig().to_dict().keys()
