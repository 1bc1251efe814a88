"""What adaln computes, in plain PyTorch and float32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..common import FP8, FP8_MAX


def spread(x: Tensor, groups: Tensor) -> Tensor:
    """``[b, g, d]`` by group -> ``[b, l, d]`` by token, float32."""
    return x.float().index_select(1, groups)


def normalise(x: Tensor, eps: float) -> Tensor:
    """LayerNorm of ``[..., d]`` without parameters, float32."""
    return F.layer_norm(x.float(), (x.shape[-1],), eps=eps)


def quantize(y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``[..., d]`` -> (float8_e4m3fn, float32 scales ``[...]``), ``y = value * scale``."""
    scale = (y.abs().amax(-1) / FP8_MAX).clamp_min(1e-12)
    return (y / scale.unsqueeze(-1)).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale


def modulated(x: Tensor, scale: Tensor, shift: Tensor, groups: Tensor, eps: float) -> Tensor:
    """``LayerNorm(x) * (1 + scale) + shift`` of ``x [b, l, d]``, tables ``[b, g, d]``; float32."""
    return normalise(x, eps) * (1 + spread(scale, groups)) + spread(shift, groups)


def adaln(
    x: Tensor, scale: Tensor, shift: Tensor, groups: Tensor, eps: float, quantized: bool
) -> tuple[Tensor, ...]:
    """``[b, l, d]`` in the dtype of ``x``; quantised also its row scales ``[b, l]``."""
    y = modulated(x, scale, shift, groups, eps)
    return quantize(y) if quantized else (y.to(x.dtype),)
