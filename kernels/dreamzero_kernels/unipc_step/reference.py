"""What unipc_step computes, in plain PyTorch and float32."""

from __future__ import annotations

import torch
from torch import Tensor

from .state import SolverState


def unipc_step(
    state: SolverState,
    conditional: Tensor,
    unconditional: Tensor | None,
    guidance: float,
    step: Tensor,
) -> Tensor:
    """Advances ``state`` in place; ``state.sums``, float32 ``[4]``, is returned.

    Velocities have the shape of the sample; ``step`` is int32 ``[1]``, a row of the table.
    """
    row = state.table.index_select(0, step).unbind(1)
    velocity = conditional.float()
    if unconditional is not None:
        velocity = unconditional.float() + guidance * (velocity - unconditional.float())
    flat, before = velocity.reshape(-1), state.velocity.view(-1)
    dot, new, old = (flat * before).sum(), (flat * flat).sum(), (before * before).sum()
    state.sums.copy_(torch.stack([dot / (new * old).sqrt().clamp_min(1e-30), dot, new, old]))
    sample, history = state.sample.view(-1), state.history
    sigma, corrector, predictor = row[0], row[1:6], row[6:9]

    def combine(weights: tuple[Tensor, ...], *vectors: Tensor) -> Tensor:
        """Zero weights hide what an earlier chunk left, not finite perhaps."""
        total = torch.zeros_like(sample)
        for weight, vector in zip(weights, vectors, strict=True):
            total += weight * torch.where(weight == 0, 0.0, vector)
        return total

    data = sample - sigma * flat
    current = combine(corrector, sample, *history, data)
    following = combine(predictor, current, history[2], data)
    state.history.copy_(torch.stack([current, history[2], data]))
    state.velocity.copy_(velocity.reshape(state.velocity.shape))
    sample.copy_(following)
    return state.sums
