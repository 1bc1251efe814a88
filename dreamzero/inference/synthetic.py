"""Policies with random weights, made on the device they run on: for measuring without a download.

Text and image encoders of the large presets run once an episode and a window and are not what is
measured: random features of their shapes stand in for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from .. import embodiments
from ..data.normalize import FieldStatistics, Statistics
from ..embodiments import Embodiment
from ..errors import UserError
from ..model.bundle import WorldActionModel
from ..model.codecs.tiny import TinyCodec
from ..model.presets import ENCODERS, PRESETS, preset
from ..model.transformer import DreamZeroTransformer

# A large model's code path at the width of a toy: how the benchmark itself is checked on a CPU.
TOY = "toy-i2v"
_TOY: dict[str, Any] = {
    "dim": 64,
    "ffn_dim": 96,
    "num_layers": 2,
    "num_heads": 4,
    "text_dim": 24,
    "image_dim": 20,
    "in_channels": 36,
    "out_channels": 16,
    "action_dim": 32,
    "state_dim": 64,
    "projector_dim": 32,
    "horizon": 24,
}
# The 5B sees the canvas at half its size (MODEL.md 1).
_CANVAS = {TOY: (32, 64), "wan2.2-5b": (160, 320)}
_TOY_VAE = {"base_dim": 8, "z_dim": 16, "num_res_blocks": 1}


@dataclass(frozen=True)
class RandomFeatures:
    """Stands in for an encoder: seeded random features ``[b, tokens, dim]``, whatever is asked."""

    tokens: int
    dim: int
    device: torch.device
    dtype: torch.dtype

    def encode(self, given: Sequence[str] | Tensor) -> Tensor:
        """One row a prompt or frame."""
        generator = torch.Generator().manual_seed(self.tokens)
        features = torch.randn(len(given), self.tokens, self.dim, generator=generator)
        return features.to(self.device, self.dtype)

    def to(self, device: torch.device | str) -> RandomFeatures:
        """Nothing to move."""
        return self


def random_statistics(card: Embodiment) -> Statistics:
    """Of standard normal states and actions."""
    rng = np.random.default_rng(0)
    state = {f.key: FieldStatistics.of(rng.normal(size=(64, f.width))) for f in card.state}
    action = {f.key: FieldStatistics.of(rng.normal(size=(64, f.width))) for f in card.action}
    return Statistics(state=state, action=action)


def random_model(name: str, device: torch.device | str, dtype: torch.dtype) -> WorldActionModel:
    """A preset with random weights in ``dtype`` on ``device``; nothing passes through main memory.

    Raises:
        UserError: unknown preset.
    """
    device = torch.device(device)
    small = name in PRESETS and not name.startswith("wan")
    sizes = _TOY if name == TOY else preset(name)
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            transformer = DreamZeroTransformer(**sizes)
            codec: Any = TinyCodec() if small else _wan(name)
    finally:
        torch.set_default_dtype(before)
    card = embodiments.get("tabletop_so101" if small else "droid")
    if sizes["horizon"] != card.horizon:
        card = card.with_(horizon=sizes["horizon"])
    if not small:
        card = card.with_(canvas_px=_CANVAS.get(name, card.canvas_px))
    for part in (transformer, codec):
        part.eval().requires_grad_(False)
    text = RandomFeatures(24 if small else 512, sizes["text_dim"], device, dtype)
    image = None
    if sizes.get("image_dim"):
        image = cast(Any, RandomFeatures(257, sizes["image_dim"], device, dtype))
    robots = {card.name: (card, random_statistics(card))}
    return WorldActionModel(transformer, codec, text, robots, image)


def _wan(name: str) -> Any:
    if name not in ENCODERS and name != TOY:
        raise UserError(f"preset {name!r} has no codec to measure with")
    from diffusers import AutoencoderKLWan

    from ..model.codecs.wan import WanCodec

    settings = _TOY_VAE if name == TOY else ENCODERS[name]["vae"]
    return WanCodec(AutoencoderKLWan(**settings))
