"""One solver step in one launch: guidance, UniPC update, and the cosine the step cache asks for."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common import FLOATS, Backend, check, choose
from . import reference
from .state import SolverState, solver_state
from .table import unipc_table

__all__ = ["SolverState", "solver_state", "unipc_step", "unipc_table"]

_OP = "unipc_step"


def unipc_step(
    state: SolverState,
    conditional: Tensor,
    unconditional: Tensor | None,
    step: Tensor,
    guidance: float = 1.0,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Advance ``state`` in place by the velocity ``u + guidance * (c - u)``, or c without u.

    Args:
        state: from ``solver_state``; its sample goes from one sigma to the next.
        conditional, unconditional: velocities in the shape of the sample, contiguous, float. At a
            step without evaluation give ``state.velocity`` and None: it is used again.
        step: int32 ``[1]`` on the device, the row of the table (not checked on a GPU).

    Returns:
        ``state.sums``, float32 ``[4]``: cosine with the velocity before, inner product, squared
        norms of the new and of the old one. Valid until the next step.

    Raises:
        ValueError: shape, dtype, device or layout is wrong, in one line.
    """
    x = state.sample
    shape, axes = tuple(x.shape), x.ndim
    check(_OP, "conditional", conditional, shape, FLOATS, x.device, contiguous=axes)
    if unconditional is not None:
        dtype = (conditional.dtype,)
        check(_OP, "unconditional", unconditional, shape, dtype, x.device, contiguous=axes)
    check(_OP, "step", step, (1,), (torch.int32,), x.device)
    run = reference.unipc_step
    if choose(_OP, x, backend) == "triton":
        from .kernel import unipc_step as fused

        run = fused
    return run(state, conditional, unconditional, guidance, step)
