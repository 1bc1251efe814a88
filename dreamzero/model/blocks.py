"""The Wan transformer block with a timestep per token group, under diffusers' parameter names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from .attention import attend
from .positions import rotate

AttentionFn = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Groups:
    """Which modulation each token takes: consecutive runs of tokens that share one timestep.

    Attributes:
        runs: (number of groups, tokens a group) in sequence order. A sequence of 3 frames of 16
            video tokens and 4 actions, each with a timestep of its own, is ``((3, 16), (4, 1))``.
    """

    runs: tuple[tuple[int, int], ...]

    def spread(self, x: Tensor) -> Tensor:
        """``[b, g, d]`` by group -> ``[b, l, d]`` by token."""
        parts, start = [], 0
        for count, repeat in self.runs:
            part = x[:, start : start + count]
            if repeat != 1:
                part = part.unsqueeze(2).expand(-1, -1, repeat, -1).flatten(1, 2)
            parts.append(part)
            start += count
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def layer_norm(x: Tensor, eps: float) -> Tensor:
    """LayerNorm of ``x [..., d]`` without parameters, in float32, as Wan runs it."""
    return F.layer_norm(x.float(), (x.shape[-1],), eps=eps).to(x.dtype)


def rms_norm(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """RMSNorm of ``x [..., d]`` in float32 whatever weights and activations are stored in."""
    return F.rms_norm(x.float(), (x.shape[-1],), norm.weight.float(), norm.eps).to(x.dtype)


class SelfAttention(nn.Module):
    """q and k are RMS-normalised over the full width, before the split into heads."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.norm_q = nn.RMSNorm(dim, eps=eps)
        self.norm_k = nn.RMSNorm(dim, eps=eps)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Identity()])

    def forward(self, x: Tensor, rope: Tensor, attention: AttentionFn) -> Tensor:
        """``x [b, l, d]``, ``rope [l, head_dim / 2]`` -> ``[b, l, d]``."""
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in self.project(x))
        return self.to_out[0](attention(rotate(q, rope), rotate(k, rope), v).flatten(2))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x [b, l, d]`` -> q, k (both normalised) and v, ``[b, l, d]`` each."""
        q, k = rms_norm(self.norm_q, self.to_q(x)), rms_norm(self.norm_k, self.to_k(x))
        return q, k, self.to_v(x)


@dataclass(frozen=True)
class ContextKV:
    """Keys and values of one block's cross-attention, ``[b, l, heads, head_dim]``; they depend on
    the prompt (and first image) alone, so that the engine computes them once an episode."""

    text: tuple[Tensor, Tensor]
    image: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Context:
    """What cross-attention reads, embedded: every block makes its own keys and values of it.

    Training goes this way: a block's weights are used within the block alone, which is what sharding
    (its weights are only there while it runs) and recomputation need.

    Attributes:
        text: ``[b, l, d]``; image: ``[b, 257, d]``, or None for a model without image tokens.
    """

    text: Tensor
    image: Tensor | None = None


class CrossAttention(nn.Module):
    """Attention over text, plus attention over the image tokens: two softmaxes, summed."""

    def __init__(self, dim: int, heads: int, eps: float, image: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.norm_q = nn.RMSNorm(dim, eps=eps)
        self.norm_k = nn.RMSNorm(dim, eps=eps)
        if image:
            self.add_k_proj = nn.Linear(dim, dim)
            self.add_v_proj = nn.Linear(dim, dim)
            self.norm_added_k = nn.RMSNorm(dim, eps=eps)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Identity()])

    def keys_values(self, text: Tensor, image: Tensor | None) -> ContextKV:
        """``text [b, l, d]``, ``image [b, 257, d]`` (embedded) -> keys and values."""

        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.heads, -1))

        text_kv = split(rms_norm(self.norm_k, self.to_k(text))), split(self.to_v(text))
        if image is None:
            return ContextKV(text_kv)
        key = rms_norm(self.norm_added_k, self.add_k_proj(image))
        return ContextKV(text_kv, (split(key), split(self.add_v_proj(image))))

    def forward(self, x: Tensor, context: ContextKV) -> Tensor:
        """``x [b, l, d]`` -> ``[b, l, d]``."""
        q = rms_norm(self.norm_q, self.to_q(x)).unflatten(-1, (self.heads, -1))
        out = attend(q, *context.text)
        if context.image is not None:
            out = out + attend(q, *context.image)
        return self.to_out[0](out.flatten(2))


class Block(nn.Module):
    """AdaLN self-attention, cross-attention, AdaLN feed-forward.

    ``gradient_checkpointing`` and the function beside it are diffusers' names; see
    ``DreamZeroTransformer.enable_gradient_checkpointing`` and ``train.recompute``.
    """

    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(self, dim: int, ffn_dim: int, heads: int, eps: float, image: bool) -> None:
        super().__init__()
        self.eps = eps
        self.attn1 = SelfAttention(dim, heads, eps)
        self.attn2 = CrossAttention(dim, heads, eps, image)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.ffn = FeedForward(dim, inner_dim=ffn_dim, activation_fn="gelu-approximate")
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        groups: Groups,
        rope: Tensor,
        context: ContextKV | Context,
        attention: AttentionFn,
    ) -> Tensor:
        """``x [b, l, d]``, ``modulation [b, g, 6, d]`` -> ``[b, l, d]``.

        ``attention(q, k, v)`` decides what is seen: the teacher-forcing mask, or a cache.
        """
        given = (x, modulation, groups, rope, context, attention)
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(self._run, *given)
        return self._run(*given)

    def _run(
        self,
        x: Tensor,
        modulation: Tensor,
        groups: Groups,
        rope: Tensor,
        context: ContextKV | Context,
        attention: AttentionFn,
    ) -> Tensor:
        if isinstance(context, Context):
            context = self.attn2.keys_values(context.text, context.image)
        table = (self.scale_shift_table.unsqueeze(1) + modulation).to(x.dtype)
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            groups.spread(part) for part in table.unbind(2)
        )
        y = layer_norm(x, self.eps) * (1 + scale1) + shift1
        x = x + self.attn1(y, rope, attention) * gate1
        x = x + self.attn2(self.norm2(x), context)
        y = layer_norm(x, self.eps) * (1 + scale2) + shift2
        return x + self.ffn(y) * gate2
