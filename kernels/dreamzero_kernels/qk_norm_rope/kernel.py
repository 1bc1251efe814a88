"""qk_norm_rope in Triton: a program turns whole rows of q, or of k and v, and puts them in place."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common import launch, row_tile


@triton.jit
def rms_rows(x, weight, start, column, mask, WIDTH: tl.constexpr, EPS: tl.constexpr):
    """RMSNorm of fp32 rows that begin at ``x + start``."""
    value = tl.load(x + start[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(value * value, axis=1) / WIDTH
    gain = tl.load(weight + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    return value * (1.0 / tl.sqrt(mean + EPS))[:, None] * gain[None, :]


@triton.jit
def turn(
    value,
    rope,
    token,
    column,
    mask,
    HEAD_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rotate neighbouring channels; ``rope`` holds (cos, sin) pairs, HEAD_DIM numbers a token."""
    angle = rope + (token * HEAD_DIM)[:, None] + (column % HEAD_DIM)[None, :]
    turns = tl.reshape(tl.load(angle, mask=mask, other=0.0), (ROWS, BLOCK // 2, 2))
    cosine, sine = tl.split(turns)
    even, odd = tl.split(tl.reshape(value, (ROWS, BLOCK // 2, 2)))
    pairs = tl.join(even * cosine - odd * sine, even * sine + odd * cosine)
    return tl.reshape(pairs, (ROWS, BLOCK))


@triton.jit
def qk_norm_rope_kernel(
    q,
    k,
    v,
    weight_q,
    weight_k,
    rope,
    out,
    k_cache,
    v_cache,
    offset,
    rows,
    length,
    capacity,
    in_batch,
    in_row,
    cache_batch,
    cache_row,
    WIDTH: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program whole rows of q, or of k and v, which go into the caches."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS).to(tl.int64)
    column = tl.arange(0, BLOCK)
    live = row < rows
    mask = live[:, None] & (column < WIDTH)[None, :]
    batch, token = row // length, row % length
    start = batch * in_batch + token * in_row
    # Names of one type in both branches: Triton joins them afterwards.
    if tl.program_id(1) == 0:
        query = rms_rows(q, weight_q, start, column, mask, WIDTH, EPS)
        query = turn(query, rope, token, column, mask, HEAD_DIM, ROWS, BLOCK)
        at = out + row[:, None] * WIDTH + column[None, :]
        tl.store(at, query.to(out.dtype.element_ty), mask=mask)
    else:
        place = tl.load(offset) + token
        inside = mask & (place < capacity)[:, None]
        entry = (batch * cache_batch + place * cache_row)[:, None] + column[None, :]
        copied = tl.load(v + start[:, None] + column[None, :], mask=mask, other=0.0)
        tl.store(v_cache + entry, copied.to(v_cache.dtype.element_ty), mask=inside)
        key = rms_rows(k, weight_k, start, column, mask, WIDTH, EPS)
        key = turn(key, rope, token, column, mask, HEAD_DIM, ROWS, BLOCK)
        tl.store(k_cache + entry, key.to(k_cache.dtype.element_ty), mask=inside)


@triton.jit
def rms_norm_kernel(
    x,
    weight,
    out,
    rows,
    length,
    x_batch,
    x_row,
    WIDTH: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program a tile of ROWS rows."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = (row < rows)[:, None] & (column < WIDTH)[None, :]
    start = row // length * x_batch + row % length * x_row
    value = rms_rows(x, weight, start, column, mask, WIDTH, EPS)
    tl.store(
        out + row[:, None] * WIDTH + column[None, :], value.to(out.dtype.element_ty), mask=mask
    )


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight_q: Tensor,
    weight_k: Tensor,
    rope: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    offset: Tensor,
    eps: float,
) -> Tensor:
    """As ``reference.qk_norm_rope``, which has the shapes."""
    batch, length, width = q.shape
    heads, head_dim = k_cache.shape[2:]
    out = torch.empty((batch, length, heads, head_dim), dtype=q.dtype, device=q.device)
    tile = row_tile(width)
    launch(
        qk_norm_rope_kernel,
        (triton.cdiv(batch * length, tile["ROWS"]), 2),
        q=q,
        k=k,
        v=v,
        weight_q=weight_q,
        weight_k=weight_k,
        rope=torch.view_as_real(rope),
        out=out,
        k_cache=k_cache,
        v_cache=v_cache,
        offset=offset,
        rows=batch * length,
        length=length,
        capacity=k_cache.shape[1],
        in_batch=q.stride(0),
        in_row=q.stride(1),
        cache_batch=k_cache.stride(0),
        cache_row=k_cache.stride(1),
        WIDTH=width,
        HEAD_DIM=head_dim,
        EPS=eps,
        **tile,
    )
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm of ``x [b, l, d]`` in its dtype."""
    batch, length, width = x.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    tile = row_tile(width)
    launch(
        rms_norm_kernel,
        (triton.cdiv(batch * length, tile["ROWS"]),),
        x=x,
        weight=weight,
        out=out,
        rows=batch * length,
        length=length,
        x_batch=x.stride(0),
        x_row=x.stride(1),
        WIDTH=width,
        EPS=eps,
        **tile,
    )
    return out
