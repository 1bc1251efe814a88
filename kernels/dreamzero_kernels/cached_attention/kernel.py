"""cached_attention in Triton: a program attends for one tile of queries of one head and branch."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common import capability, launch
from ..flash import attend_all, tile

LOG2_E = 1.4426950408889634


@triton.jit
def cached_attention_kernel(
    q,
    k_cache,
    v_cache,
    cached,
    out,
    queries,
    known,
    capacity,
    heads,
    scale,
    q_batch,
    q_row,
    cache_batch,
    cache_row,
    ON_DEVICE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A program a tile of queries, head and branch: all cached tokens, then the new ones."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    head = tl.program_id(1) % heads
    batch = (tl.program_id(1) // heads).to(tl.int64)
    channel = tl.arange(0, HEAD_DIM)
    live = (row < queries)[:, None]
    start = q + batch * q_batch + head * HEAD_DIM
    tokens = tl.load(start + row[:, None] * q_row + channel[None, :], mask=live, other=0.0)
    before = known
    if ON_DEVICE:
        before = tl.load(cached)
    length = tl.minimum(before + queries, capacity)
    base = batch * cache_batch + head * HEAD_DIM
    value = attend_all(
        tokens, k_cache + base, v_cache + base, length, cache_row, cache_row, scale,
        BLOCK_M, HEAD_DIM, BLOCK_N, PRECISION,
    )  # fmt: skip
    place = ((batch * queries + row[:, None]) * heads + head) * HEAD_DIM + channel[None, :]
    tl.store(out + place, value.to(out.dtype.element_ty), mask=live)


def cached_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, cached: Tensor | int) -> Tensor:
    """As ``reference.cached_attention``, which has the shapes."""
    batch, queries, heads, head_dim = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    on_device = isinstance(cached, Tensor)
    options = tile("cached_attention", queries, q.element_size(), capability(q))
    launch(
        cached_attention_kernel,
        (triton.cdiv(queries, options["BLOCK_M"]), batch * heads),
        q=q,
        k_cache=k_cache,
        v_cache=v_cache,
        cached=cached if on_device else q,
        out=out,
        queries=queries,
        known=0 if on_device else cached,
        capacity=k_cache.shape[1],
        heads=heads,
        scale=head_dim**-0.5 * LOG2_E,
        q_batch=q.stride(0),
        q_row=q.stride(1),
        cache_batch=k_cache.stride(0),
        cache_row=k_cache.stride(1),
        ON_DEVICE=on_device,
        HEAD_DIM=head_dim,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        **options,
    )
    return out
