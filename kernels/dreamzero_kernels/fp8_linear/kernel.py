"""fp8_linear in Triton: a tiled product whose epilogue scales, adds, bends, gates and sums."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common import FP8, FP8_MAX, capability, launch, power_of_two, row_tile
from ..rows import store_rows
from ..tiles import Tile, big, pick


@triton.jit
def fp8_linear_kernel(
    x,
    weight,
    x_scale,
    weight_scale,
    bias,
    gate,
    groups,
    residual,
    out,
    rows,
    columns,
    length,
    gate_batch,
    gate_group,
    INNER: tl.constexpr,
    BIAS: tl.constexpr,
    GELU: tl.constexpr,
    GATED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    IMPRECISE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BAND: tl.constexpr,
):
    """A program a tile of the output; scales, bias, GELU, gate and residual in its epilogue."""
    # Programs walk down bands of BAND row tiles, so that neighbours share tiles in the L2 cache.
    across = tl.cdiv(columns, BLOCK_N)
    down = tl.cdiv(rows, BLOCK_M)
    band = tl.program_id(0) // (BAND * across)
    height = tl.minimum(down - band * BAND, BAND)
    inside = tl.program_id(0) % (BAND * across)
    row = (band * BAND + inside % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = inside // height * BLOCK_N + tl.arange(0, BLOCK_N)
    step = tl.arange(0, BLOCK_K)
    live_row, live_column = row < rows, column < columns
    # Rows and columns beyond the edge read the first one; nothing of them is written.
    a_at = x + tl.where(live_row, row, 0).to(tl.int64)[:, None] * INNER + step[None, :]
    b_at = weight + tl.where(live_column, column, 0).to(tl.int64)[None, :] * INNER + step[:, None]
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, INNER, BLOCK_K):
        if INNER % BLOCK_K == 0:
            a = tl.load(a_at)
            b = tl.load(b_at)
        else:
            a = tl.load(a_at, mask=(start + step < INNER)[None, :], other=0.0)
            b = tl.load(b_at, mask=(start + step < INNER)[:, None], other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION, max_num_imprecise_acc=IMPRECISE)
        a_at += BLOCK_K
        b_at += BLOCK_K
    acc = acc * tl.load(x_scale + row, mask=live_row, other=0.0)[:, None]
    acc = acc * tl.load(weight_scale + column, mask=live_column, other=0.0)[None, :]
    if BIAS:
        add = tl.load(bias + column, mask=live_column, other=0.0).to(tl.float32)
        acc = acc + add[None, :]
    if GELU:
        # 0.5 (1 + tanh(u)) = 1 / (1 + exp(-2 u)), which the bound keeps finite.
        bend = 1.5957691216057308 * (acc + 0.044715 * acc * acc * acc)
        acc = acc / (1.0 + tl.exp(tl.minimum(-bend, 80.0)))
    mask = live_row[:, None] & live_column[None, :]
    if GATED:
        group = tl.load(groups + row % length, mask=live_row, other=0)
        entry = ((row // length).to(tl.int64) * gate_batch + group * gate_group)[:, None]
        acc = acc * tl.load(gate + entry + column[None, :], mask=mask, other=0.0).to(tl.float32)
    place = row.to(tl.int64)[:, None] * columns + column[None, :]
    if RESIDUAL:
        acc = acc + tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + place, acc.to(out.dtype.element_ty), mask=mask)


@triton.jit
def quantize_rows_kernel(
    x,
    out,
    out_scale,
    rows,
    x_row,
    WIDTH: tl.constexpr,
    LIMIT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program a tile of ROWS rows: their maxima, scales and 8-bit values."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS).to(tl.int64)
    column = tl.arange(0, BLOCK)
    live = row < rows
    mask = live[:, None] & (column < WIDTH)[None, :]
    value = tl.load(x + (row * x_row)[:, None] + column[None, :], mask=mask, other=0.0)
    store_rows(out, out_scale, value.to(tl.float32), row, column, mask, live, WIDTH, LIMIT)


def quantize_rows(x: Tensor, quantized_dtype: torch.dtype = FP8) -> tuple[Tensor, Tensor]:
    """``x [m, k]``; another dtype than fp8 lets the interpreter, which has none, run the same code."""
    out = torch.empty(x.shape, dtype=quantized_dtype, device=x.device)
    out_scale = torch.empty(x.shape[:1], dtype=torch.float32, device=x.device)
    tile = row_tile(x.shape[1])
    launch(
        quantize_rows_kernel,
        (triton.cdiv(len(x), tile["ROWS"]),),
        x=x,
        out=out,
        out_scale=out_scale,
        rows=len(x),
        x_row=x.stride(0),
        WIDTH=x.shape[1],
        LIMIT=FP8_MAX,
        **tile,
    )
    return out, out_scale


def _tile(rows: int, bytes_each: int, compute_capability: int, heavy: bool) -> Tile:
    """``heavy``: an epilogue with gate or residual, which a wider tile would have spill."""
    if bytes_each > 1:
        block = {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32, "num_warps": 4, "num_stages": 2}
    elif rows <= 64:
        block = {"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_K": 128, "num_warps": 4, "num_stages": 4}
    else:
        block = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 128, "num_warps": 8, "num_stages": 4}
        if compute_capability == 90 and not heavy:
            block |= {"BLOCK_N": 256, "num_stages": 3}
        elif not big(compute_capability):
            block |= {"BLOCK_K": 64, "num_stages": 3}
        name = "fp8_linear_gated" if heavy else "fp8_linear"
        block = pick(name, compute_capability, block)
    block["BLOCK_M"] = min(block["BLOCK_M"], max(16, power_of_two(rows)))
    return block


def fp8_linear(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    gelu: bool,
    gate: Tensor | None,
    groups: Tensor | None,
    residual: Tensor | None,
    out_dtype: torch.dtype,
    fast_accumulation: bool,
) -> Tensor:
    """As ``reference.fp8_linear``, in ``out_dtype``."""
    batch, length, inner = x.shape
    rows, columns = batch * length, len(weight)
    out = torch.empty((batch, length, columns), dtype=out_dtype, device=x.device)
    heavy = gate is not None or residual is not None
    block = _tile(rows, x.element_size(), capability(x), heavy)
    launch(
        fp8_linear_kernel,
        (triton.cdiv(rows, block["BLOCK_M"]) * triton.cdiv(columns, block["BLOCK_N"]),),
        x=x,
        weight=weight,
        x_scale=x_scale,
        weight_scale=weight_scale,
        bias=out if bias is None else bias,
        gate=out if gate is None else gate,
        groups=out if groups is None else groups,
        residual=out if residual is None else residual,
        out=out,
        rows=rows,
        columns=columns,
        length=length,
        gate_batch=0 if gate is None else gate.stride(0),
        gate_group=0 if gate is None else gate.stride(1),
        INNER=inner,
        BIAS=bias is not None,
        GELU=gelu,
        GATED=gate is not None,
        RESIDUAL=residual is not None,
        # Hopper's tensor cores keep about 14 bits of a sum of fp8 products; the other way
        # adds to float32 twice a tile.
        IMPRECISE=None if fast_accumulation else block["BLOCK_K"] // 2,
        PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        BAND=8,
        **block,
    )
    return out
