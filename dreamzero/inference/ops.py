"""What stands between the matrix products of a block: the contract, and it in plain PyTorch.

``PlainOps`` is written for few calls (a small model on a CPU spends as much on calls as on
arithmetic); ``kernel_ops.KernelOps`` has the same methods on ``dreamzero_kernels``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.attention import attend
from ..model.blocks import ContextKV
from .weights import Activation, Layer


@dataclass(frozen=True)
class Layout:
    """Where the new tokens of one forward stand; fixed for a position of the window.

    Attributes:
        frames, height, width: of the new video, in tokens; actions: action tokens (0 in a write).
        cached: tokens in the cache, also as int32 ``[1]`` on the device (``offset``).
        rope: complex64 ``[l, head_dim / 2]`` of all new tokens.
        groups: int32 ``[l]``, row of the modulation table of each token, where the table has
            ``rows``: one when video and actions share a timestep, else two.
    """

    frames: int
    height: int
    width: int
    actions: int
    cached: int
    offset: Tensor
    rope: Tensor
    groups: Tensor
    rows: int

    @property
    def video(self) -> int:
        """New video tokens."""
        return self.frames * self.height * self.width

    @property
    def tokens(self) -> int:
        """New tokens."""
        return len(self.rope)


class Ops(Protocol):
    """``x [b, l, d]``; ``scale`` and ``shift`` and ``gate`` are ``[b, g, d]``, rows of a modulation
    table whose scales have ``unit`` added; buffers are ``[b, capacity, heads, head_dim]``."""

    unit: float

    def modulate(
        self, x: Tensor, scale: Tensor, shift: Tensor, at: Layout, fp8: bool
    ) -> Activation:
        """LayerNorm without parameters, then scale and shift."""
        ...

    def residual(
        self,
        x: Tensor,
        y: Tensor,
        gate: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        at: Layout,
        fp8: bool,
    ) -> tuple[Tensor, Activation]:
        """``x + gate * y`` and its norm: affine where scale and shift are ``[d]``."""
        ...

    def operands(
        self, qkv: Tensor, layer: Layer, at: Layout, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Normalise and rotate q and k, put k and v behind the cached ones; returns q."""
        ...

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, at: Layout) -> Tensor:
        """Attention over the cached and the new tokens, ``[b, l, heads, head_dim]``."""
        ...

    def cross(self, query: Tensor, layer: Layer, context: ContextKV) -> Tensor:
        """Normalise the query, attend to text and image: ``[b, l, d] -> [b, l, d]``."""
        ...


class PlainOps:
    """Plain PyTorch. A modulation of one row is the LayerNorm's own weight and bias: one call."""

    unit = 1.0

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def modulate(
        self, x: Tensor, scale: Tensor, shift: Tensor, at: Layout, fp8: bool
    ) -> Activation:
        if scale.ndim == 1 or at.rows == 1:
            gain, offset = scale.view(-1), shift.view(-1)
            return F.layer_norm(x, gain.shape, gain, offset, self.eps)
        y = F.layer_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype)
        return torch.addcmul(self._spread(shift, at), y, self._spread(scale, at))

    def residual(
        self,
        x: Tensor,
        y: Tensor,
        gate: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        at: Layout,
        fp8: bool,
    ) -> tuple[Tensor, Activation]:
        total = x + y if gate is None else torch.addcmul(x, y, self._spread(gate, at))
        return total, self.modulate(total, scale, shift, at, fp8)

    def _spread(self, table: Tensor, at: Layout) -> Tensor:
        return table if at.rows == 1 else table.index_select(1, at.groups)

    def operands(
        self, qkv: Tensor, layer: Layer, at: Layout, keys: Tensor, values: Tensor
    ) -> Tensor:
        heads, dim = keys.shape[2:]
        width, end = heads * dim, at.cached + at.tokens
        qk = qkv[..., : 2 * width].unflatten(-1, (2, width)).float()
        qk = qk * inverse_rms(qk, self.eps) * layer.norm_qk
        turned = torch.view_as_complex(qk.unflatten(-1, (heads, -1, 2))) * at.rope[:, None, None]
        q, k = torch.view_as_real(turned).flatten(-2).unbind(2)
        keys[:, at.cached : end] = k
        values[:, at.cached : end] = qkv[..., 2 * width :].unflatten(-1, (heads, dim))
        return q.to(qkv.dtype)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, at: Layout) -> Tensor:
        end = at.cached + at.tokens
        return attend(q, keys[:, :end], values[:, :end])

    def cross(self, query: Tensor, layer: Layer, context: ContextKV) -> Tensor:
        wide = query.float()
        q = (wide * inverse_rms(wide, self.eps) * layer.norm_query).to(query.dtype)
        q = q.unflatten(-1, context.text[0].shape[2:])
        return attend_context(q, context).flatten(2)


def attend_context(q: Tensor, context: ContextKV) -> Tensor:
    """Text and image tokens, two softmaxes: ``[b, l, heads, head_dim]``."""
    out = attend(q, *context.text)
    return out if context.image is None else out + attend(q, *context.image)


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """``[..., 1]``, what RMSNorm multiplies ``x [..., d]`` by."""
    return x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
