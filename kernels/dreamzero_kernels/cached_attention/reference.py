"""What cached_attention computes, in plain PyTorch and float32."""

from __future__ import annotations

import torch
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """Softmax attention on ``[b, l, heads, head_dim]`` in float32; keys where ``seen [n]`` is false
    are left out, whatever is stored there."""
    score = torch.einsum("blhd,bnhd->bhln", q.float() * q.shape[-1] ** -0.5, k.float())
    value = v.float()
    if seen is not None:
        score = score.masked_fill(~seen, float("-inf"))
        value = value.masked_fill(~seen[:, None, None], 0.0)
    return torch.einsum("bhln,bnhd->blhd", score.softmax(-1), value)


def cached_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, cached: Tensor | int) -> Tensor:
    """``q [b, l, heads, head_dim]`` over the first ``cached + l`` tokens of caches
    ``[b, capacity, heads, head_dim]``; in the shape and dtype of ``q``.
    """
    # A mask over the whole buffer, not a slice: nothing here waits for the device.
    seen = torch.arange(k_cache.shape[1], device=q.device) < cached + q.shape[1]
    return attend(q, k_cache, v_cache, seen).to(q.dtype)
