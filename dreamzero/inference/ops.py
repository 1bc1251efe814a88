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
from .weights import Activation, Dense, Layer


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


@dataclass(frozen=True)
class Folded:
    """A short prompt with what stands around it multiplied in: two thin products are left.

    Attributes:
        keys: ``[b, d, heads * n]``, each head's under its own channels, gains and scale included.
        values: ``[b, heads * n, d]``, through the output projection.
        heads: for the softmax.
    """

    keys: Tensor
    values: Tensor
    heads: int


Context = ContextKV | Folded


def batch_of(context: list[Context]) -> int:
    """Branches whose prompts these are."""
    first = context[0]
    return len(first.keys if isinstance(first, Folded) else first.text[0])


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

    def prepare(self, layer: Layer, context: ContextKV) -> Context:
        """What ``cross`` reads of a prompt, made once."""
        ...

    def cross(self, query: Tensor, layer: Layer, context: Context) -> Tensor:
        """Normalise the query, attend to text and image, project: ``[b, l, d] -> [b, l, d]``."""
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

    def prepare(self, layer: Layer, context: ContextKV) -> Context:
        keys, values = context.text
        batch, count, heads, dim = keys.shape
        out = layer.cross_out
        # Worth it, and the same numbers, for a small model's few words in full precision.
        short = 2 * count <= dim and keys.device.type == "cpu" and keys.dtype == torch.float32
        if context.image is not None or not short or not isinstance(out, Dense):
            return context
        gained = keys.permute(0, 2, 3, 1) * layer.norm_query.view(heads, dim, 1) * dim**-0.5
        spread = keys.new_zeros(batch, heads, dim, heads, count)
        own = torch.arange(heads)
        spread[:, own, :, own] = gained.transpose(0, 1)
        weight = out.weight.t().unflatten(0, (heads, dim))
        projected = values.transpose(1, 2) @ weight
        return Folded(spread.flatten(3).flatten(1, 2), projected.flatten(1, 2), heads)

    def cross(self, query: Tensor, layer: Layer, context: Context) -> Tensor:
        wide = query.float()
        scale = inverse_rms(wide, self.eps)
        if isinstance(context, Folded):
            scores = (query @ context.keys).mul_(scale).unflatten(-1, (context.heads, -1))
            heard = scores.softmax(-1).flatten(2) @ context.values
            bias = layer.cross_out.bias
            return heard if bias is None else heard.add_(bias)
        q = (wide * scale * layer.norm_query).to(query.dtype)
        q = q.unflatten(-1, context.text[0].shape[2:])
        return layer.cross_out(attend_context(q, context).flatten(2))


def attend_context(q: Tensor, context: ContextKV) -> Tensor:
    """Text and image tokens, two softmaxes: ``[b, l, heads, head_dim]``."""
    out = attend(q, *context.text)
    return out if context.image is None else out + attend(q, *context.image)


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """``[..., 1]``, what RMSNorm multiplies ``x [..., d]`` by."""
    return x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
