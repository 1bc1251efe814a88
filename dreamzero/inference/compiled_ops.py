"""A block's parts through torch.compile: what hand-written kernels are measured against."""

from __future__ import annotations

import torch
from torch import Tensor

from .ops import Layout, PlainOps, inverse_rms
from .weights import Layer


class CompiledOps(PlainOps):
    """Inductor's code for everything between the matrix products but attention.

    The rotation is written with real numbers: Inductor makes no code for complex ones.
    """

    def __init__(self, eps: float) -> None:
        super().__init__(eps)
        for name in ("modulate", "residual", "cross", "_turn"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=False))

    def operands(
        self, qkv: Tensor, layer: Layer, at: Layout, keys: Tensor, values: Tensor
    ) -> Tensor:
        """See ``Ops.operands``."""
        new = slice(at.cached, at.cached + at.tokens)
        rope = torch.view_as_real(at.rope)
        return self._turn(qkv, layer.norm_qk, rope, keys[:, new], values[:, new])

    def _turn(
        self, qkv: Tensor, gains: Tensor, rope: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Normalise and rotate q and k; k and v into their places. ``rope [l, head_dim / 2, 2]``."""
        heads, dim = keys.shape[2:]
        width = heads * dim
        qk = qkv[..., : 2 * width].unflatten(-1, (2, width)).float()
        qk = qk * inverse_rms(qk, self.eps) * gains
        real, imaginary = qk.unflatten(-1, (heads, -1, 2)).unbind(-1)
        cos, sin = rope[:, None, None].unbind(-1)
        turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
        q, k = turned.flatten(-2).unbind(2)
        keys.copy_(k)
        values.copy_(qkv[..., 2 * width :].unflatten(-1, (heads, dim)))
        return q.to(qkv.dtype)
