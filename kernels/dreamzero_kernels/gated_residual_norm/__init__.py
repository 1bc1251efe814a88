"""The end of one branch and the beginning of the next: gated residual sum, then LayerNorm of it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..autograd import with_reference_backward
from ..common import FLOATS, Backend, check, choose, require, same_strides
from . import reference

_OP = "gated_residual_norm"


def gated_residual_norm(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    gain: Tensor,
    offset: Tensor,
    groups: Tensor | None = None,
    eps: float = 1e-6,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """``t = x + y * gate[groups]`` and the norm of ``t``, both written; differentiable.

    The norm is affine, ``LayerNorm(t) * gain + offset``, where gain and offset are ``[d]`` (before
    cross-attention), and ``LayerNorm(t) * (1 + gain[groups]) + offset[groups]`` where they are
    tables ``[b, g, d]`` (scale and shift, before the feed-forward part or the next block).

    Args:
        x, y: ``[b, l, d]`` of one dtype (float32, float16, bfloat16); rows may be strided.
        gate: ``[b, g, d]``, or None for a plain sum.
        gain, offset: as above; slices of one table will do (same strides).
        groups: int32 ``[l]``, table row of each token; needed by gate and tables.

    Returns:
        t and its norm, ``[b, l, d]``, contiguous, in the dtype of ``x``.

    Raises:
        ValueError: shape, dtype, device or layout is wrong, in one line.
    """
    _check(x, y, gate, gain, offset, groups)

    def plain(x: Tensor, y: Tensor, g: Tensor | None, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return reference.gated_residual_norm(x, y, g, a, b, groups, eps, False)

    if choose(_OP, x, backend) == "reference":
        total, normed = plain(x, y, gate, gain, offset)
        return total, normed
    from .kernel import gated_residual_norm as fused

    def kernel(x: Tensor, y: Tensor, g: Tensor | None, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return fused(x, y, g, a, b, groups, eps, False)

    total, normed = with_reference_backward(kernel, plain, x, y, gate, gain, offset)
    return total, normed


def gated_residual_norm_fp8(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    gain: Tensor,
    offset: Tensor,
    groups: Tensor | None = None,
    eps: float = 1e-6,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``gated_residual_norm``, with the norm as float8_e4m3fn ``[b, l, d]`` and float32 row
    scales ``[b, l]`` for ``fp8_linear``; no gradient."""
    _check(x, y, gate, gain, offset, groups)
    run = reference.gated_residual_norm
    if choose(_OP, x, backend) == "triton":
        from .kernel import gated_residual_norm as fused

        run = fused
    total, normed, row_scale = run(x, y, gate, gain, offset, groups, eps, True)
    return total, normed, row_scale


def _check(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    gain: Tensor,
    offset: Tensor,
    groups: Tensor | None,
) -> None:
    check(_OP, "x", x, (None, None, None), FLOATS)
    batch, length, width = x.shape
    check(_OP, "y", y, (batch, length, width), (x.dtype,), x.device)
    if gain.ndim == 1:
        check(_OP, "gain", gain, (width,), FLOATS, x.device)
    else:
        check(_OP, "gain", gain, (batch, None, width), FLOATS, x.device)
    check(_OP, "offset", offset, tuple(gain.shape), FLOATS, x.device)
    same_strides(_OP, "gain and offset", gain, offset)
    if gate is not None:
        check(_OP, "gate", gate, (batch, None, width), FLOATS, x.device)
    if groups is not None:
        check(_OP, "groups", groups, (length,), (torch.int32,), x.device)
    require(
        groups is not None or (gate is None and gain.ndim == 1),
        f"{_OP}: groups must be given with a gate or a modulated norm",
    )
