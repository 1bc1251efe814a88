"""Kernels in training: the forward pass as given, the backward pass through the reference.

What the backward pass of these operations reads is small next to the linear layers, so that one
formula, checked against the module it replaces, is worth more than a second set of kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]


class _ReferenceBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[..., Outputs],
        reference: Callable[..., Outputs],
        *inputs: Tensor | None,
    ) -> Outputs:
        ctx.reference = reference
        ctx.present = [x is not None for x in inputs]
        ctx.save_for_backward(*(x for x in inputs if x is not None))
        return run(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        inputs = [next(saved) if present else None for present in ctx.present]
        needed = ctx.needs_input_grad[2:]
        with torch.enable_grad():
            again = [
                None if x is None else x.detach().requires_grad_(need)
                for x, need in zip(inputs, needed, strict=True)
            ]
            outputs = ctx.reference(*again)
        leaves = [x for x in again if x is not None and x.requires_grad]
        found = iter(torch.autograd.grad(outputs, leaves, grads, allow_unused=True))
        return (None, None, *(next(found) if need else None for need in needed))


def with_reference_backward(
    run: Callable[..., Outputs], reference: Callable[..., Outputs], *inputs: Tensor | None
) -> Outputs:
    """``run(*inputs)``; where a gradient is asked for, it is that of ``reference(*inputs)``."""
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        outputs: Outputs = _ReferenceBackward.apply(run, reference, *inputs)
        return outputs
    return run(*inputs)
