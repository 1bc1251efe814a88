"""From projections to attention's operands: RMSNorm of q and k, rotation, keys and values in place."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common import FLOATS, Backend, check, choose, require, same_strides
from . import reference

_OP = "qk_norm_rope"


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
    eps: float = 1e-6,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Normalise q and k over the full width, rotate both, write k and v behind the cached tokens.

    Args:
        q, k, v: ``[b, l, d]`` of one dtype and with the same strides: three projections, or slices
            of one.
        weight_q, weight_k: ``[d]``, gains of the two RMSNorms.
        rope: complex64 ``[l, head_dim / 2]``, as ``dreamzero.model.positions`` makes it.
        k_cache, v_cache: ``[b, capacity, heads, head_dim]``, written in place at tokens offset to
            offset + l; what does not fit is dropped (not reported: that would wait for the GPU).
        offset: int32 ``[1]`` on the device, tokens cached so far; a captured graph stays valid.

    Returns:
        rotated q ``[b, l, heads, head_dim]``, contiguous, in the dtype of ``q``.

    Raises:
        ValueError: shape, dtype, device or layout is wrong, in one line.
    """
    check(_OP, "q", q, (None, None, None), FLOATS)
    batch, length, width = q.shape
    check(_OP, "k", k, tuple(q.shape), (q.dtype,), q.device)
    check(_OP, "v", v, tuple(q.shape), (q.dtype,), q.device)
    same_strides(_OP, "q, k and v", q, k, v)
    check(_OP, "weight_q", weight_q, (width,), FLOATS, q.device)
    check(_OP, "weight_k", weight_k, (width,), FLOATS, q.device)
    check(_OP, "k_cache", k_cache, (batch, None, None, None), FLOATS, q.device, contiguous=2)
    check(_OP, "v_cache", v_cache, tuple(k_cache.shape), (k_cache.dtype,), q.device, contiguous=2)
    same_strides(_OP, "k_cache and v_cache", k_cache, v_cache)
    heads, head_dim = k_cache.shape[2:]
    require(
        heads * head_dim == width and head_dim % 2 == 0,
        f"{_OP}: k_cache has {heads} heads of {head_dim}, which is not the width {width} in pairs",
    )
    check(_OP, "rope", rope, (length, head_dim // 2), (torch.complex64,), q.device, contiguous=2)
    check(_OP, "offset", offset, (1,), (torch.int32,), q.device)
    run = reference.qk_norm_rope
    if choose(_OP, q, backend) == "triton":
        from .kernel import qk_norm_rope as fused

        run = fused
    return run(q, k, v, weight_q, weight_k, rope, k_cache, v_cache, offset, eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6, *, backend: Backend = "auto") -> Tensor:
    """RMSNorm of ``x [b, l, d]`` over the full width, in the dtype of ``x``, contiguous: the query
    of cross-attention, which is not rotated. ``weight [d]``."""
    check("rms_norm", "x", x, (None, None, None), FLOATS)
    check("rms_norm", "weight", weight, (x.shape[-1],), FLOATS, x.device)
    if choose("rms_norm", x, backend) == "triton":
        from .kernel import rms_norm as fused

        return fused(x, weight, eps)
    return reference.rms_norm(x, weight, eps).to(x.dtype)
