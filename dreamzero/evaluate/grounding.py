"""How much of a dream its instruction decides.

From almost pure noise a model guesses the clean block after a first frame, once told what is done there and
once told another task. What the wrong instruction costs is what the model knows of instructions; a model
that overhears them guesses as well with either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..model.bundle import WorldActionModel
from .statistics import Rate, mean_interval


@dataclass(frozen=True)
class Grounding:
    """Mean squared errors of the guessed latents, float32 ``[n]``, with the true and another instruction."""

    true: np.ndarray
    other: np.ndarray

    @property
    def share(self) -> Rate:
        """Of the error with another instruction, what the true one takes away; interval over episodes."""
        return mean_interval(((self.other - self.true) / self.other.mean()).tolist())


@torch.inference_mode()
def grounding(
    model: WorldActionModel,
    latents: Tensor,
    prompts: Sequence[str],
    others: Sequence[str],
    sigma: float = 0.97,
    seed: int = 0,
) -> Grounding:
    """Guess the block after the first frame of each episode with either instruction.

    Args:
        model: of a small model (no first-frame channels) on the CPU.
        latents: float32 ``[n, c, 1 + K, h, w]``: first frames, and the blocks that followed.
        prompts: what is done there, as the card renders it (``Embodiment.render_prompt``); others: of
            another task each.
        sigma: noise level of the block; at 1 nothing of it is left.
        seed: of the noise, which both guesses share.

    Raises:
        ValueError: a prompt of ``others`` is the true one.
    """
    if any(a == b for a, b in zip(prompts, others, strict=True)):
        raise ValueError("others: every instruction must differ from the true one")
    transformer, count = model.transformer.eval(), len(latents)
    clean = latents[:, :, 1:]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    noisy = (1 - sigma) * clean + sigma * noise
    times = torch.full((count, clean.shape[2]), 1000 * sigma)
    height, width = latents.shape[-2:]

    def errors(words: Sequence[str]) -> np.ndarray:
        context = transformer.embed_context(model.text_encoder.encode(list(words)))
        cache = transformer.new_cache((height, width), count)
        transformer.step(latents[:, :, :1], torch.zeros(count, 1), context, cache)
        velocity = transformer.step(noisy, times, context, cache)[0]
        found: np.ndarray = (noisy - sigma * velocity - clean).square().mean((1, 2, 3, 4)).numpy()
        return found

    return Grounding(errors(prompts), errors(others))
