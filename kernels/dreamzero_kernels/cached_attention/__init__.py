"""Attention of the new tokens over everything cached and themselves, in static buffers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common import FLOATS, Backend, check, choose, require, same_strides
from . import reference

_OP = "cached_attention"
HEAD_DIMS = (16, 32, 64, 128)


def cached_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    cached: Tensor | int,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Softmax attention over the first ``cached + l`` tokens of the buffers; all see all.

    The new tokens' keys and values are in the buffers already (``qk_norm_rope`` writes them there).

    Args:
        q: ``[b, l, heads, head_dim]``, head_dim 16, 32, 64 or 128; rows may be strided.
        k_cache, v_cache: ``[b, capacity, heads, head_dim]`` in the dtype of ``q``, same strides;
            nothing behind the valid tokens is read, NaN included.
        cached: tokens before the new ones, the same in all branches: int32 ``[1]`` on the device
            (read by the kernel: a captured graph stays valid), or an int.
        backend: "library" is ``scaled_dot_product_attention`` on a slice; it needs an int.

    Returns:
        ``[b, l, heads, head_dim]``, contiguous, in the dtype of ``q``.

    Raises:
        ValueError: shape, dtype, device or layout is wrong, in one line.
    """
    check(_OP, "q", q, (None, None, None, None), FLOATS, contiguous=2)
    batch, queries, heads, head_dim = q.shape
    require(
        head_dim in HEAD_DIMS,
        f"{_OP}: head_dim must be one of {HEAD_DIMS}, got {head_dim}",
    )
    check(
        _OP, "k_cache", k_cache, (batch, None, heads, head_dim), (q.dtype,), q.device, contiguous=2
    )
    check(_OP, "v_cache", v_cache, tuple(k_cache.shape), (q.dtype,), q.device, contiguous=2)
    same_strides(_OP, "k_cache and v_cache", k_cache, v_cache)
    capacity = k_cache.shape[1]
    known = cached if isinstance(cached, int) else 0
    require(
        0 <= known <= capacity - queries,
        f"{_OP}: {known} cached and {queries} new tokens do not fit a buffer of {capacity}",
    )
    chosen = choose(_OP, q, backend, library=True)
    if chosen == "library":
        if not isinstance(cached, int):
            # The automatic choice falls back; a caller who asks by name is told.
            require(backend == "auto", f"{_OP}: backend 'library' needs cached as an int")
            chosen = "triton" if q.is_cuda else "reference"
        else:
            total = cached + queries
            keys, values = k_cache[:, :total], v_cache[:, :total]
            return library_attention(q, keys, values).contiguous()
    if isinstance(cached, Tensor):
        check(_OP, "cached", cached, (1,), (torch.int32,), q.device)
    if chosen == "triton":
        from .kernel import cached_attention as fused

        return fused(q, k_cache, v_cache, cached)
    return reference.cached_attention(q, k_cache, v_cache, cached)


def library_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's fused attention on ``[b, l, heads, head_dim]``."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)
