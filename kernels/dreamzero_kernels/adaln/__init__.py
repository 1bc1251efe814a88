"""LayerNorm without parameters, modulated by a table with a row a timestep group."""

from __future__ import annotations

import torch
from torch import Tensor

from ..autograd import with_reference_backward
from ..common import FLOATS, Backend, check, choose, same_strides
from . import reference


def adaln(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    groups: Tensor,
    eps: float = 1e-6,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """``LayerNorm(x) * (1 + scale[groups]) + shift[groups]``, float32 inside; differentiable.

    Args:
        x: ``[b, l, d]`` float32, float16 or bfloat16; rows may be strided.
        scale, shift: ``[b, g, d]``, float; slices of one table will do (same strides).
        groups: int32 ``[l]``, the table row of each token, all below g (not checked on a GPU: that
            would wait for it); see ``common.group_index``.

    Returns:
        ``[b, l, d]``, contiguous, in the dtype of ``x``.

    Raises:
        ValueError: shape, dtype, device or layout is wrong, in one line.
    """
    _check(x, scale, shift, groups)

    def plain(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
        return reference.adaln(x, scale, shift, groups, eps, False)

    if choose("adaln", x, backend) == "reference":
        return plain(x, scale, shift)[0]
    from .kernel import adaln as fused

    def kernel(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
        return fused(x, scale, shift, groups, eps, False)

    return with_reference_backward(kernel, plain, x, scale, shift)[0]


def adaln_fp8(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    groups: Tensor,
    eps: float = 1e-6,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """``adaln`` as float8_e4m3fn ``[b, l, d]`` and float32 row scales ``[b, l]``: ready for
    ``fp8_linear``. Arguments and errors as in ``adaln``; no gradient."""
    _check(x, scale, shift, groups)
    run = reference.adaln
    if choose("adaln", x, backend) == "triton":
        from .kernel import adaln as fused

        run = fused
    out, row_scale = run(x, scale, shift, groups, eps, True)
    return out, row_scale


def _check(x: Tensor, scale: Tensor, shift: Tensor, groups: Tensor) -> None:
    check("adaln", "x", x, (None, None, None), FLOATS)
    batch, length, width = x.shape
    check("adaln", "scale", scale, (batch, None, width), FLOATS, x.device)
    check("adaln", "shift", shift, tuple(scale.shape), (scale.dtype,), x.device)
    check("adaln", "groups", groups, (length,), (torch.int32,), x.device)
    same_strides("adaln", "scale and shift", scale, shift)
