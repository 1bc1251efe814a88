"""Linear layers on 8-bit floats: one scale a row of activations, one a row of weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common import FLOATS, FP8, Backend, capability, check, choose, require
from . import reference

_OP = "fp8_linear"
# Two operand types beside fp8: Triton's interpreter has no fp8, and its tests run the same kernel.
_OPERANDS = (FP8, torch.float16, torch.float32)


def quantize_rows(x: Tensor, *, backend: Backend = "auto") -> tuple[Tensor, Tensor]:
    """``x [..., k]`` -> float8_e4m3fn of that shape and float32 scales ``[...]``; the largest element
    of every row becomes 448. For weights ``[n, k]`` (once) and for activations that no kernel
    before them quantised. Raises ValueError on integers."""
    check("quantize_rows", "x", x, (None,) * x.ndim, FLOATS)
    chosen = choose("quantize_rows", x, backend)
    if chosen == "reference" or not _has_fp8(x):
        from ..adaln.reference import quantize

        return quantize(x.float())
    from .kernel import quantize_rows as fused

    value, scale = fused(x.reshape(-1, x.shape[-1]))
    return value.view(x.shape), scale.view(x.shape[:-1])


def fp8_linear(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    *,
    gelu: bool = False,
    gate: Tensor | None = None,
    groups: Tensor | None = None,
    residual: Tensor | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
    fast_accumulation: bool = True,
    backend: Backend = "auto",
) -> Tensor:
    """``residual + gate[groups] * gelu((x * x_scale) @ (weight * weight_scale).T + bias)``, each part
    where it is given.

    Args:
        x: float8_e4m3fn ``[b, l, k]``, contiguous; x_scale: float32 ``[b, l]``.
        weight: float8_e4m3fn ``[n, k]``, contiguous; weight_scale: float32 ``[n]``.
        bias: ``[n]``.
        gelu: the tanh form, before gate and residual.
        gate: ``[b, g, n]`` with ``groups`` int32 ``[l]``; residual: ``[b, l, n]``, contiguous.
        fast_accumulation: sum inside the tensor cores, as ``torch._scaled_mm`` calls it.
        backend: "library" is ``torch._scaled_mm`` and the rest in PyTorch. Where that is faster,
            leave gate and residual to ``gated_residual_norm``, which fuses the next norm too.

    Returns:
        ``[b, l, n]`` in ``out_dtype``.

    Raises:
        ValueError: shape, dtype, device or layout is wrong, or no fp8 on this GPU (below sm_89).
    """
    check(_OP, "x", x, (None, None, None), _OPERANDS, contiguous=3)
    batch, length, inner = x.shape
    check(_OP, "weight", weight, (None, inner), (x.dtype,), x.device, contiguous=2)
    columns = len(weight)
    check(_OP, "x_scale", x_scale, (batch, length), (torch.float32,), x.device, contiguous=2)
    check(_OP, "weight_scale", weight_scale, (columns,), (torch.float32,), x.device)
    if bias is not None:
        check(_OP, "bias", bias, (columns,), FLOATS, x.device)
    if gate is not None:
        check(_OP, "gate", gate, (batch, None, columns), FLOATS, x.device)
        require(groups is not None, f"{_OP}: groups must be given with a gate")
    if groups is not None:
        check(_OP, "groups", groups, (length,), (torch.int32,), x.device)
    if residual is not None:
        shape = (batch, length, columns)
        check(_OP, "residual", residual, shape, FLOATS, x.device, contiguous=3)
    require(out_dtype in FLOATS, f"{_OP}: out_dtype must be a float, got {out_dtype}")
    chosen = choose(_OP, x, backend, library=True)
    if chosen != "reference" and x.dtype == FP8 and not _has_fp8(x):
        have = f"sm_{capability(x)}"
        require(backend == "auto", f"{_OP}: fp8 needs compute capability 8.9 or later, got {have}")
        chosen = "reference"
    if chosen == "triton":
        from .kernel import fp8_linear as fused

        return fused(
            x, x_scale, weight, weight_scale, bias, gelu, gate, groups, residual, out_dtype,
            fast_accumulation,
        )  # fmt: skip
    if chosen == "library":
        require(
            inner % 16 == 0 and columns % 16 == 0,
            f"{_OP}: backend 'library' takes multiples of 16, got k={inner} and n={columns}",
        )
        product = torch._scaled_mm(
            x.flatten(0, 1),
            weight.t(),
            scale_a=x_scale.reshape(-1, 1),
            scale_b=weight_scale.reshape(1, -1),
            bias=None if bias is None else bias.to(torch.bfloat16),
            out_dtype=torch.bfloat16,
            use_fast_accum=fast_accumulation,
        ).view(batch, length, columns)
        if gate is None and residual is None:
            # One pass over it at most, in the dtype it has.
            return (F.gelu(product, approximate="tanh") if gelu else product).to(out_dtype)
        return reference.finish(product, gelu, gate, groups, residual).to(out_dtype)
    out = reference.fp8_linear(x, x_scale, weight, weight_scale, bias, gelu, gate, groups, residual)
    return out.to(out_dtype)


def _has_fp8(x: Tensor) -> bool:
    return x.device.type == "cpu" or capability(x) >= 89
