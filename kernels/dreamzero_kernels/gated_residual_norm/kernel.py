"""gated_residual_norm in Triton: sum, store, normalise and store again without leaving registers."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common import FP8, FP8_MAX, launch, row_tile
from ..rows import normalise, store_rows


@triton.jit
def gated_residual_norm_kernel(
    x,
    y,
    gate,
    gain,
    offset,
    groups,
    total,
    out,
    out_scale,
    rows,
    length,
    x_batch,
    x_row,
    y_batch,
    y_row,
    gate_batch,
    gate_group,
    table_batch,
    table_group,
    GATED: tl.constexpr,
    MODULATED: tl.constexpr,
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
    inside = column < WIDTH
    mask = live[:, None] & inside[None, :]
    batch, token = row // length, row % length
    branch = tl.load(
        y + (batch * y_batch + token * y_row)[:, None] + column[None, :], mask=mask, other=0.0
    ).to(tl.float32)
    if GATED or MODULATED:
        group = tl.load(groups + token, mask=live, other=0)
    if GATED:
        entry = (batch * gate_batch + group * gate_group)[:, None] + column[None, :]
        branch = branch * tl.load(gate + entry, mask=mask, other=0.0).to(tl.float32)
    source = x + (batch * x_batch + token * x_row)[:, None] + column[None, :]
    value = tl.load(source, mask=mask, other=0.0).to(tl.float32) + branch
    stored = value.to(total.dtype.element_ty)
    tl.store(total + row[:, None] * WIDTH + column[None, :], stored, mask=mask)
    value = normalise(stored.to(tl.float32), mask, WIDTH, EPS)
    if MODULATED:
        place = (batch * table_batch + group * table_group)[:, None] + column[None, :]
        up = tl.load(gain + place, mask=mask, other=0.0).to(tl.float32)
        add = tl.load(offset + place, mask=mask, other=0.0).to(tl.float32)
        value = value * (1.0 + up) + add
    else:
        up = tl.load(gain + column, mask=inside, other=0.0).to(tl.float32)
        add = tl.load(offset + column, mask=inside, other=0.0).to(tl.float32)
        value = value * up[None, :] + add[None, :]
    store_rows(out, out_scale, value, row, column, mask, live, WIDTH, LIMIT)


def gated_residual_norm(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    gain: Tensor,
    offset: Tensor,
    groups: Tensor | None,
    eps: float,
    quantized: bool,
    quantized_dtype: torch.dtype = FP8,
) -> tuple[Tensor, ...]:
    """As ``reference.gated_residual_norm``, which has the shapes."""
    batch, length, width = x.shape
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    out = torch.empty(x.shape, dtype=quantized_dtype if quantized else x.dtype, device=x.device)
    out_scale = torch.empty(
        (batch, length) if quantized else (1, 1), dtype=torch.float32, device=x.device
    )
    modulated = gain.ndim == 3
    tile = row_tile(width)
    launch(
        gated_residual_norm_kernel,
        (triton.cdiv(batch * length, tile["ROWS"]),),
        x=x,
        y=y,
        gate=x if gate is None else gate,
        gain=gain,
        offset=offset,
        groups=x if groups is None else groups,
        total=total,
        out=out,
        out_scale=out_scale,
        rows=batch * length,
        length=length,
        x_batch=x.stride(0),
        x_row=x.stride(1),
        y_batch=y.stride(0),
        y_row=y.stride(1),
        gate_batch=0 if gate is None else gate.stride(0),
        gate_group=0 if gate is None else gate.stride(1),
        table_batch=gain.stride(0) if modulated else 0,
        table_group=gain.stride(1) if modulated else 0,
        GATED=gate is not None,
        MODULATED=modulated,
        WIDTH=width,
        EPS=eps,
        LIMIT=FP8_MAX if quantized else 0.0,
        **tile,
    )
    return (total, out, out_scale) if quantized else (total, out)
