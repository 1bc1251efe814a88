"""What qk_norm_rope computes, in plain PyTorch and float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm of ``[..., d]`` over the whole last axis, float32."""
    return F.rms_norm(x.float(), (x.shape[-1],), weight.float(), eps)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn neighbouring channels of ``x [b, l, heads, head_dim]`` by ``rope [l, head_dim / 2]``."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rope[:, None]).flatten(-2)


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight_q: Tensor,
    weight_k: Tensor,
    rope: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    offset: Tensor,
    eps: float,
) -> Tensor:
    """Rotated q ``[b, l, heads, head_dim]`` of ``q [b, l, d]``; k and v go into the caches.

    Tokens behind the end of the cache are dropped, as in the kernel.
    """
    heads = k_cache.shape[2]
    capacity = k_cache.shape[1]
    # Without reading the offset on the host, so that this can be captured in a graph as well:
    # tokens that do not fit repeat the last one that does.
    place = (offset + torch.arange(q.shape[1], device=q.device)).clamp_max(capacity - 1)
    source = (place - offset).clamp_min(0)
    new_k = rotate(rms_norm(k, weight_k, eps).unflatten(-1, (heads, -1)), rope)
    for cache, new in ((k_cache, new_k), (v_cache, v.unflatten(-1, (heads, -1)))):
        written = new.index_select(1, source).to(cache.dtype)
        cache[:, place] = torch.where(offset < capacity, written, cache[:, place])
    return rotate(rms_norm(q, weight_q, eps).unflatten(-1, (heads, -1)), rope).to(q.dtype)
