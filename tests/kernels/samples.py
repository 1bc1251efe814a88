"""Odd sizes, and a transformer block put together from the operations."""

from __future__ import annotations

import torch
from dreamzero_kernels.adaln import adaln
from dreamzero_kernels.cached_attention import cached_attention
from dreamzero_kernels.common import Backend, group_index
from dreamzero_kernels.cross_attention import cross_attention
from dreamzero_kernels.gated_residual_norm import gated_residual_norm
from dreamzero_kernels.problems import Sizes
from dreamzero_kernels.qk_norm_rope import qk_norm_rope, rms_norm
from torch import Tensor, nn

from dreamzero.model.blocks import AttentionFn, Block, ContextKV, Groups

# No size is a multiple of a tile: two branches with image tokens, many keys and no image tokens,
# the first frame of an episode (nothing cached), and rows that fill a program each.
ODD = {
    "branches": Sizes(
        batch=2, frames=2, frame=5, actions=3, dim=96, heads=3, ffn=112, cached=13, capacity=40,
        text=19, image=7, latent=(3, 2, 5, 7),
    ),
    "long": Sizes(
        batch=1, frames=1, frame=21, actions=4, dim=128, heads=1, ffn=80, cached=70, capacity=100,
        text=66, image=0, latent=(5, 2, 13, 17),
    ),
    "empty": Sizes(
        batch=1, frames=1, frame=3, actions=2, dim=128, heads=2, ffn=33, cached=0, capacity=9,
        text=1, image=5, latent=(1, 1, 1, 3),
    ),
    "wide": Sizes(
        batch=1, frames=1, frame=2, actions=1, dim=1088, heads=17, ffn=48, cached=3, capacity=8,
        text=2, image=3, latent=(1, 1, 1, 1),
    ),
}  # fmt: skip


def cached_block(
    block: Block,
    x: Tensor,
    modulation: Tensor,
    groups: Groups,
    rope: Tensor,
    context: ContextKV,
    buffers: tuple[Tensor, Tensor],
    cached: Tensor,
    backend: Backend,
) -> Tensor:
    """``Block.forward`` against a cache, every step between the linear layers an operation.

    ``buffers`` are ``[b, capacity, heads, head_dim]``, ``cached`` int32 ``[1]``.
    """
    index = group_index(groups.runs, x.device)
    table = (block.scale_shift_table.unsqueeze(1) + modulation).to(x.dtype)
    shift1, scale1, gate1, shift2, scale2, gate2 = table.unbind(2)
    one, two = block.attn1, block.attn2

    y = adaln(x, scale1, shift1, index, block.eps, backend=backend)
    q = qk_norm_rope(
        one.to_q(y), one.to_k(y), one.to_v(y), _weight(one.norm_q), _weight(one.norm_k), rope,
        *buffers, cached, block.eps, backend=backend,
    )  # fmt: skip
    y = one.to_out[0](cached_attention(q, *buffers, cached, backend=backend).flatten(2))
    x, y = gated_residual_norm(
        x, y, gate1, block.norm2.weight, block.norm2.bias, index, block.norm2.eps, backend=backend
    )
    q = rms_norm(two.to_q(y), _weight(two.norm_q), block.eps, backend=backend)
    q = q.unflatten(-1, (two.heads, -1))
    y = cross_attention(q, context.text, context.image, backend=backend)
    y = two.to_out[0](y.flatten(2))
    x, y = gated_residual_norm(x, y, None, scale2, shift2, index, block.eps, backend=backend)
    total, _ = gated_residual_norm(
        x, block.ffn(y), gate2, scale1, shift1, index, block.eps, backend=backend
    )
    return total


def trained_block(
    self: Block,
    x: Tensor,
    modulation: Tensor,
    groups: Groups,
    rope: Tensor,
    context: ContextKV,
    attention: AttentionFn,
    backend: Backend,
) -> Tensor:
    """``Block.forward`` for training: what has a gradient is an operation."""
    index = group_index(groups.runs, x.device)
    table = (self.scale_shift_table.unsqueeze(1) + modulation).to(x.dtype)
    shift1, scale1, gate1, shift2, scale2, gate2 = table.unbind(2)
    y = adaln(x, scale1, shift1, index, self.eps, backend=backend)
    y = self.attn1(y, rope, attention)
    x, y = gated_residual_norm(
        x, y, gate1, self.norm2.weight, self.norm2.bias, index, self.norm2.eps, backend=backend
    )
    x, y = gated_residual_norm(
        x, self.attn2(y, context), None, scale2, shift2, index, self.eps, backend=backend
    )
    return x + self.ffn(y) * groups.spread(gate2)


def _weight(norm: nn.RMSNorm) -> Tensor:
    assert norm.weight is not None
    return norm.weight


def block_inputs(
    dtype: torch.dtype, device: str, dim: int = 96, heads: int = 3
) -> dict[str, object]:
    """A block with random weights and what its forward takes; 13 tokens are cached before 14 new."""
    from dreamzero.model.positions import sequence_rope, video_rope

    torch.manual_seed(1)
    batch, cached, head_dim = 2, 13, dim // heads
    groups = Groups(((2, 5), (3, 1), (1, 1)))
    block = Block(dim, 2 * dim, heads, 1e-6, image=True)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.2)
    block = block.to(device, dtype).requires_grad_(False)
    rope = torch.cat(
        [
            video_rope(torch.arange(2, 4), 1, 5, head_dim),
            sequence_rope(torch.arange(3, 6), head_dim),
            sequence_rope(torch.arange(1, 2), head_dim),
        ]
    ).to(device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape).to(device, dtype)

    context = block.attn2.keys_values(normal(batch, 19, dim), normal(batch, 7, dim))
    return {
        "block": block,
        "x": normal(batch, 14, dim),
        "modulation": normal(batch, 6, 6, dim) * 0.3,
        "groups": groups,
        "rope": rope,
        "context": context,
        "buffer": normal(1, 2, batch, 40, heads, head_dim),
        "cached": cached,
    }


def compare_block(dtype: torch.dtype, device: str, backend: Backend) -> float:
    """Relative error of ``cached_block`` against ``Block.forward`` with a ``KVCache``: the larger one
    of the result and of the buffer, whose rest is NaN in ours."""
    from dreamzero_kernels.problems import relative_error

    from dreamzero.model.attention import attend
    from dreamzero.model.cache import KVCache

    inputs = block_inputs(dtype, device)
    block, x, modulation, groups, rope, context, buffer, cached = inputs.values()
    cache = KVCache(1, len(x), buffer.shape[3], *buffer.shape[4:], device=device, dtype=dtype)
    cache.buffer.copy_(buffer)
    cache.length = cached

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, *cache.join(0, k.to(q.dtype), v.to(q.dtype)))

    wanted = block(x, modulation, groups, rope, context, attention)
    end = cached + x.shape[1]
    buffer[:, :, :, cached:] = float("nan")
    count = torch.full((1,), cached, dtype=torch.int32, device=device)
    found = cached_block(
        block, x, modulation, groups, rope, context, (buffer[0, 0], buffer[0, 1]), count, backend
    )
    if not bool(buffer[:, :, :, end:].isnan().all()):
        return float("inf")
    written = relative_error(buffer[:, :, :, :end], cache.buffer[:, :, :, :end])
    return max(relative_error(found, wanted), written)
