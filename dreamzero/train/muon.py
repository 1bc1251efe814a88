"""Muon: momentum whose every matrix is turned into an (almost) orthogonal one before it is a step.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the same steps as ``torch.optim.Muon``, which
turns one matrix after another and always in bfloat16. Here matrices of one shape are turned together on a
GPU, whose launches cost more than such products, and in float32 where the machine would emulate bfloat16
(``precision.in_bf16``): on a CPU without its instructions most of a training step would go there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .precision import in_bf16

# Of the quintic x -> a x + b x^3 + c x^5, whose slope at zero is as large as it may be.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_EPS = 1e-7


def orthogonalized(matrices: Tensor, steps: int = 5) -> Tensor:
    """One matrix ``[m, n]``, or several ``[k, m, n]``, with all singular values brought near 1.

    A Newton-Schulz iteration, in the dtype of ``matrices``: products alone, no decomposition.
    """
    add: Callable[..., Tensor] = torch.addmm if matrices.ndim == 2 else torch.baddbmm
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_EPS)
    for _ in range(steps):
        gram = x @ x.mT
        x = add(x, add(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Of matrices alone: give everything else to another optimiser.

    Args:
        params: two-dimensional parameters.
        lr: of a matrix that is no taller than wide; a taller one takes sqrt(rows / columns) of it.
        weight_decay: decoupled.
        momentum: Nesterov's.

    Raises:
        ValueError: a parameter is no matrix.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(
                        f"Muon takes matrices, got a parameter of shape {list(p.shape)}"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        found = None
        if closure is not None:
            with torch.enable_grad():
                found = closure()
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    # Sharded, each would be gathered to be stacked; on a CPU one at a time fits its cache.
                    together = p.device.type != "cpu" and type(p.data) is Tensor
                    alone = None if together else p
                    alike.setdefault((p.shape, p.device, p.dtype, id(alone)), []).append(p)
            for some in alike.values():
                self._turn(some, group)
        return found

    def _turn(self, some: list[Tensor], group: dict[str, Any]) -> None:
        """A step of parameters of one shape."""
        momentum, updates = group["momentum"], []
        for p in some:
            assert p.grad is not None
            # In one layout, whatever a gradient's is: a momentum that was stored and read again has this
            # one, and a product rounds by the layout of its factors.
            gradient = p.grad.contiguous()
            kept = self.state[p].setdefault("momentum_buffer", torch.zeros_like(gradient))
            kept.lerp_(gradient, 1 - momentum)
            updates.append(gradient.lerp(kept, momentum))
        half = in_bf16(True, some[0].device)
        dtype = torch.bfloat16 if half else torch.float32
        if len(updates) == 1:
            turned = [orthogonalized(updates[0].to(dtype))]
        else:
            turned = list(orthogonalized(torch.stack(updates).to(dtype)).unbind())
        rows, columns = some[0].shape
        lr = group["lr"]
        for p, update in zip(some, turned, strict=True):
            p.mul_(1 - lr * group["weight_decay"])
            p.add_(update.to(p.dtype), alpha=-lr * math.sqrt(max(1.0, rows / columns)))
