"""Arithmetic of a training step, as the mask allows it, and what devices can do at best.

Multiply-adds count as 2. Counted are products and attention; norms, modulation and the like are not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from ..model.attention import TeacherForcing

# Dense bf16 tensor-core peaks without sparsity, FLOP/s, of the manufacturer's data sheets (SXM parts).
PEAKS = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "GB200": 2500e12,
    "B300": 2250e12,
}


@dataclass(frozen=True)
class Arithmetic:
    """Of one window, forward: products, attention as the mask allows it, and attention without a mask.

    Attributes:
        tokens: in the sequence.
    """

    products: float
    attention: float
    dense_attention: float
    tokens: int

    @property
    def forward(self) -> float:
        """FLOPs of a forward pass."""
        return self.products + self.attention

    @property
    def step(self) -> float:
        """Forward and backward, nothing recomputed: what model FLOPs utilisation counts."""
        return 3 * self.forward


def layout_of(
    config: Mapping[str, Any],
    latent_size: tuple[int, int],
    blocks: int,
    actions: bool = True,
    first_frame: bool = False,
) -> TeacherForcing:
    """The training sequence of a window.

    Args:
        config: of the transformer; latent_size: (height, width) of a latent frame.
        first_frame: whether the noisy first frame is trained on (``TrainSettings.first_frame``).
    """
    patch = config.get("patch_size", (1, 2, 2))
    return TeacherForcing(
        frame=(latent_size[0] // patch[1]) * (latent_size[1] // patch[2]),
        blocks=blocks,
        frames_per_block=config.get("frames_per_block", 2),
        actions=config["horizon"] if actions else 0,
        states=1 if actions else 0,
        noisy_first=first_frame,
    )


def seen_pairs(layout: TeacherForcing) -> int:
    """Pairs of query and key that the mask allows (``dense_mask(layout).sum()``, not built)."""
    pairs = sum(
        (own.stop - own.start) * own.stop
        for own in (layout.clean(i) for i in range(-1, layout.clean_blocks))
    )
    first = layout.noisy(-1)
    pairs += (first.stop - first.start) ** 2
    for i in range(layout.blocks):
        queries = layout.block + layout.actions
        pairs += queries * (layout.past(i).stop + queries + layout.states)
        pairs += layout.states**2
    return pairs


def arithmetic(
    config: Mapping[str, Any], layout: TeacherForcing, text: int = 512, image: int = 257
) -> Arithmetic:
    """Of one window through the transformer.

    Args:
        text, image: tokens that cross-attention reads; image counts where the model has that branch.
    """
    dim, ffn, layers = config["dim"], config["ffn_dim"], config["num_layers"]
    tokens = layout.length
    image = image if config.get("image_dim") else 0
    # q k v o, the cross-attention's q and o, and both ffn matrices: every token.
    products = 2.0 * tokens * (6 * dim * dim + 2 * dim * ffn) * layers
    products += 2.0 * (text + image) * 2 * dim * dim * layers
    patch = math.prod(config.get("patch_size", (1, 2, 2)))
    products += (
        2.0
        * dim
        * patch
        * (
            layout.clean_video * config["in_channels"]
            + layout.noisy_video * (config["in_channels"] + config["out_channels"])
        )
    )
    scale = 4.0 * dim * layers  # two products of q, k and v over all heads
    cross = scale * tokens * (text + image)
    return Arithmetic(
        products,
        scale * seen_pairs(layout) + cross,
        scale * tokens**2 + cross,
        tokens,
    )


@lru_cache
def peak_flops(device: torch.device, bf16: bool) -> tuple[float, str]:
    """FLOP/s this device can do, and where that is from: a data sheet, or measured in a second."""
    if device.type == "cuda":
        name = torch.cuda.get_device_properties(device).name
        for kind, peak in sorted(PEAKS.items(), key=lambda item: -len(item[0])):
            if re.search(rf"\b{kind}\b", name) and bf16:
                return peak, f"data sheet, {kind}, bf16"
    from ..inference.ceilings import Ceilings

    found = Ceilings.measure(device, torch.bfloat16 if bf16 else torch.float32)
    return found.flops, "measured, the best of 20 products"
