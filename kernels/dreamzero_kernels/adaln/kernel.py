"""adaln in Triton: a program holds whole rows, reads them once and writes them once."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common import FP8, FP8_MAX, launch, row_tile
from ..rows import normalise, store_rows


@triton.jit
def adaln_kernel(
    x,
    scale,
    shift,
    groups,
    out,
    out_scale,
    rows,
    length,
    x_batch,
    x_row,
    table_batch,
    table_group,
    WIDTH: tl.constexpr,
    EPS: tl.constexpr,
    LIMIT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program a tile of ROWS rows; LIMIT above 0 also quantises, one scale a row."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS).to(tl.int64)
    column = tl.arange(0, BLOCK)
    live = row < rows
    mask = live[:, None] & (column < WIDTH)[None, :]
    batch, token = row // length, row % length
    source = x + (batch * x_batch + token * x_row)[:, None] + column[None, :]
    value = tl.load(source, mask=mask, other=0.0).to(tl.float32)
    group = tl.load(groups + token, mask=live, other=0)
    entry = (batch * table_batch + group * table_group)[:, None] + column[None, :]
    gain = tl.load(scale + entry, mask=mask, other=0.0).to(tl.float32)
    offset = tl.load(shift + entry, mask=mask, other=0.0).to(tl.float32)
    value = normalise(value, mask, WIDTH, EPS) * (1.0 + gain) + offset
    store_rows(out, out_scale, value, row, column, mask, live, WIDTH, LIMIT)


def adaln(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    groups: Tensor,
    eps: float,
    quantized: bool,
    quantized_dtype: torch.dtype = FP8,
) -> tuple[Tensor, ...]:
    """As ``reference.adaln``, which has the shapes.

    ``quantized_dtype`` other than fp8 lets the interpreter, which has no fp8, run the same code.
    """
    batch, length, width = x.shape
    out = torch.empty(x.shape, dtype=quantized_dtype if quantized else x.dtype, device=x.device)
    out_scale = torch.empty(
        (batch, length) if quantized else (1, 1), dtype=torch.float32, device=x.device
    )
    tile = row_tile(width)
    launch(
        adaln_kernel,
        (triton.cdiv(batch * length, tile["ROWS"]),),
        x=x,
        scale=scale,
        shift=shift,
        groups=groups,
        out=out,
        out_scale=out_scale,
        rows=batch * length,
        length=length,
        x_batch=x.stride(0),
        x_row=x.stride(1),
        table_batch=scale.stride(0),
        table_group=scale.stride(1),
        WIDTH=width,
        EPS=eps,
        LIMIT=FP8_MAX if quantized else 0.0,
        **tile,
    )
    return (out, out_scale) if quantized else (out,)
