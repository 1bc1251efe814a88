"""A block's parts through torch.compile: what hand-written kernels are measured against."""

from __future__ import annotations

import torch
from torch import Tensor

from .ops import Layout, PlainOps, inverse_rms
from .weights import Layer


class CompiledOps(PlainOps):
    """Inductor's code for everything between the matrix products but attention.

    The rotation is written with real numbers, for which Inductor makes code (it has none for complex
    ones).
    """

    def __init__(self, eps: float) -> None:
        super().__init__(eps)
        for name in ("modulate", "residual", "operands", "cross"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=False))

    def operands(
        self, qkv: Tensor, layer: Layer, at: Layout, keys: Tensor, values: Tensor
    ) -> Tensor:
        """See ``Ops.operands``."""
        heads, dim = keys.shape[2:]
        width, end = heads * dim, at.cached + at.tokens
        qk = qkv[..., : 2 * width].unflatten(-1, (2, width)).float()
        qk = qk * inverse_rms(qk, self.eps) * layer.norm_qk
        real, imaginary = qk.unflatten(-1, (heads, -1, 2)).unbind(-1)
        turn = torch.view_as_real(at.rope)[:, None, None]
        cos, sin = turn[..., 0], turn[..., 1]
        turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
        q, k = turned.flatten(-2).unbind(2)
        keys[:, at.cached : end] = k
        values[:, at.cached : end] = qkv[..., 2 * width :].unflatten(-1, (heads, dim))
        return q.to(qkv.dtype)
