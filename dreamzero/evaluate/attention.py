"""Where a chunk's actions look: attention from action tokens to the video tokens of their window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..inference import WorldActionPolicy
from ..model.blocks import AttentionFn
from ..model.cache import KVCache
from .probe import wrap


@dataclass(frozen=True)
class Gaze:
    """Attention of the actions of one evaluation, averaged over heads.

    Attributes:
        observed: float32 ``[layers, k, f, h, w]``: to the observed latent frames' tokens (patches).
        dreamed: the same to the frames that are being denoised; f is 0 for a policy without dream.
        rest: ``[layers, k]``: what goes to actions and state. All of a row sums to 1.
    """

    observed: np.ndarray
    dreamed: np.ndarray
    rest: np.ndarray

    def share(self) -> dict[str, float]:
        """Of all attention, averaged over layers and actions."""
        parts = {"observed": self.observed.sum((2, 3, 4)), "dreamed": self.dreamed.sum((2, 3, 4))}
        return {n: float(x.mean()) for n, x in (parts | {"actions and state": self.rest}).items()}


@torch.inference_mode()
def gaze(
    policy: WorldActionPolicy, latents: Tensor, state: np.ndarray, sigma: float = 0.5, seed: int = 0
) -> Gaze:
    """One evaluation with the true next block, noised to ``sigma``, in place of a dream.

    Args:
        policy: of a small model (no first-frame channels) on the CPU, after ``reset`` (its prompt).
        latents: ``[1, c, 1 + K, h, w]``: the first frame and the block that followed.
        state: float32 ``[s]``, SI, at the first frame.
    """
    model = policy.model.transformer
    config, per_block = model.config, model.dream_frames
    context = model.encode_context(policy.session.texts[0])
    cache = model.new_cache((latents.shape[3], latents.shape[4]))
    model.step(latents[:, :, :1], torch.zeros(1, 1), context, cache)
    generator = torch.Generator().manual_seed(seed)

    def noised(x: Tensor) -> Tensor:
        return (1 - sigma) * x + sigma * torch.randn(x.shape, generator=generator)

    video = noised(latents[:, :, 1 : 1 + per_block])
    action = torch.randn(1, policy.card.horizon, config.action_dim, generator=generator)
    normal = policy.normalizer.state(np.asarray(state, np.float32))
    given = torch.zeros(1, 1, config.state_dim)
    given[0, 0, : len(normal)] = torch.from_numpy(normal)
    time = 1000 * sigma
    with _queries(model) as queries:
        model.step(
            video, torch.full((1, per_block), time), context, cache, action,
            torch.full(action.shape[:2], time), given,
        )  # fmt: skip
    height, width = (n // p for n, p in zip(latents.shape[3:], config.patch_size[1:], strict=True))
    return _split(queries, cache, per_block, action.shape[1], (height, width))


def _split(
    queries: list[Tensor], cache: KVCache, dreamed: int, actions: int, grid: tuple[int, int]
) -> Gaze:
    frame, seen = grid[0] * grid[1], cache.length
    first = dreamed * frame  # of the new tokens, those of the video come before the actions
    total = seen + first + actions + 1
    layers = []
    for layer, query in enumerate(queries):
        key = cache.buffer[layer, 0, :, :total].float()
        scores = torch.einsum("bqhd,bkhd->bhqk", query[:, first : first + actions].float(), key)
        layers.append((scores / query.shape[-1] ** 0.5).softmax(-1).mean(1)[0])
    weights = torch.stack(layers).numpy()  # [layers, k, tokens]
    shape = (*weights.shape[:2], -1, *grid)
    return Gaze(
        weights[..., :seen].reshape(shape),
        weights[..., seen : seen + first].reshape(*weights.shape[:2], dreamed, *grid),
        weights[..., seen + first :].sum(-1),
    )


@contextmanager
def _queries(model: Any) -> Iterator[list[Tensor]]:
    """Rotated queries ``[b, l, heads, head_dim]`` of every block, in order, while the block lasts."""
    found: list[Tensor] = []

    def watched(
        forward: Callable[..., Tensor], x: Tensor, rope: Tensor, attention: AttentionFn
    ) -> Tensor:
        def noting(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            found.append(q)
            return attention(q, k, v)

        return forward(x, rope, noting)

    restore = [wrap(block.attn1, "forward", watched) for block in model.blocks]
    try:
        yield found
    finally:
        for undo in restore:
            undo()
