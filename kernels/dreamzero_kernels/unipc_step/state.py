"""What a solver remembers between steps, in buffers that never move (graphs capture their address)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .table import unipc_table

BLOCK = 1024
"""Elements a program of the kernel takes; the partial sums are laid out by it."""


@dataclass(frozen=True)
class SolverState:
    """One latent (video or action) on its way from noise to data; all float32.

    Attributes:
        table: ``[steps, 9]``, see ``unipc_table``.
        sample: the latent, any shape; the model is evaluated on it.
        velocity: guided velocity of the last step, shape of ``sample``.
        history: ``[3, n]``: the corrected sample before the last step, and the data predictions
            before the last one and of the last one.
        sums: ``[4]`` of the last step: cosine between its velocity and the one before (0 at the
            first step of all), their inner product, and their squared norms.
        partial, tickets: working memory of the kernel.
    """

    table: Tensor
    sample: Tensor
    velocity: Tensor
    history: Tensor
    sums: Tensor
    partial: Tensor
    tickets: Tensor

    def start(self, noise: Tensor) -> None:
        """Begin again from ``noise`` (the shape of ``sample``)."""
        self.sample.copy_(noise)


def solver_state(noise: Tensor, sigmas: Tensor) -> SolverState:
    """A state that begins at ``noise`` and takes a step a sigma, ``sigmas [steps + 1]``."""
    device, n = noise.device, noise.numel()

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return SolverState(
        table=unipc_table(sigmas, device=device),
        sample=noise.detach().float().clone(memory_format=torch.contiguous_format),
        velocity=zeros(*noise.shape),
        history=zeros(3, n),
        sums=zeros(4),
        partial=zeros((n + BLOCK - 1) // BLOCK, 3),
        tickets=zeros(1, dtype=torch.int32),
    )
