"""Optimisers and the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .config import TrainSettings


def optimizers(
    modules: Iterable[nn.Module], settings: TrainSettings
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside transformer blocks, AdamW for everything else."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            inside = name.startswith("blocks.") and parameter.ndim == 2
            (matrices if inside else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=settings.matrix_lr, weight_decay=settings.weight_decay),
        torch.optim.AdamW(others, lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, settings: TrainSettings) -> float:
    """Factor on the learning rates at a step: linear warm-up, then a cosine to ``final_lr``."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return settings.final_lr + (1 - settings.final_lr) * cosine


class Average:
    """Exponential moving average of parameters; young averages follow faster."""

    def __init__(self, modules: dict[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.weights = {
            f"{key}.{name}": value.detach().clone()
            for key, module in modules.items()
            for name, value in module.state_dict().items()
        }

    @torch.no_grad()
    def update(self, modules: dict[str, nn.Module], step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, module in modules.items():
            for name, value in module.state_dict().items():
                average = self.weights[f"{key}.{name}"]
                average.lerp_(value.to(average.dtype), 1 - decay)

    def of(self, key: str) -> dict[str, Tensor]:
        """The averaged state dict of one module."""
        prefix = key + "."
        return {k[len(prefix) :]: v for k, v in self.weights.items() if k.startswith(prefix)}
