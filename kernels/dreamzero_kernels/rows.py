"""Pieces of kernels that hold whole rows in registers."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl


@triton.jit
def normalise(x, mask, width, eps):
    """LayerNorm without parameters of fp32 rows ``[rows, block]``; masked columns give 0."""
    mean = tl.sum(x, axis=1) / width
    centred = tl.where(mask, x - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, axis=1) / width
    return centred * (1.0 / tl.sqrt(variance + eps))[:, None]


@triton.jit
def store_rows(
    out,
    out_scale,
    value,
    row,
    column,
    mask,
    live,
    width,
    LIMIT: tl.constexpr,
):
    """Write fp32 rows as they are (LIMIT 0), or divided by a scale a row so that the largest element
    becomes LIMIT, and the scales beside them. ``out`` is contiguous."""
    if LIMIT != 0:
        largest = tl.max(tl.where(mask, tl.abs(value), 0.0), axis=1)
        scale = tl.maximum(largest / LIMIT, 1e-12)
        value = value / scale[:, None]
        tl.store(out_scale + row, scale, mask=live)
    target = out + row[:, None] * width + column[None, :]
    tl.store(target, value.to(out.dtype.element_ty), mask=mask)
