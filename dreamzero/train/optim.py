"""Optimisers and the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .config import TrainSettings
from .muon import Muon


def optimizers(
    parameters: Mapping[str, nn.Parameter], settings: TrainSettings
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside transformer blocks, AdamW for everything else (or for all).

    The two halves of a low-rank pair are no matrices in Muon's sense: AdamW takes them.

    Args:
        parameters: "network.name" -> parameter.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in parameters.items():
        inside = ".blocks." in name and parameter.ndim == 2 and ".lora_" not in name
        (matrices if inside else others).append(parameter)
    found: list[torch.optim.Optimizer] = []
    groups: list[dict[str, Any]] = [{"params": others, "weight_decay": 0.0}]
    decay = settings.weight_decay
    if matrices and settings.optimizer == "muon":
        found.append(Muon(matrices, lr=settings.matrix_lr, weight_decay=decay))
    elif matrices:
        groups.append({"params": matrices, "weight_decay": decay})
    found.append(torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.95)))
    return found


def set_rate(
    optimizers: Iterable[torch.optim.Optimizer], factor: float, settings: TrainSettings
) -> None:
    """Put every optimiser at this factor of its peak rate."""
    for optimizer in optimizers:
        muon = isinstance(optimizer, Muon)
        for group in optimizer.param_groups:
            group["lr"] = factor * (settings.matrix_lr if muon else settings.lr)


def rate(step: int, settings: TrainSettings) -> float:
    """Factor on the learning rates at a step: linear warm-up, then a cosine to ``final_lr``."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return settings.final_lr + (1 - settings.final_lr) * cosine


class Average:
    """Exponential moving average of parameters; young averages follow faster."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.parameters = parameters
        self.weights = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the parameters as they are after ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.parameters.items():
            self.weights[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def exchange(self) -> None:
        """Averages into the parameters, and what was there here; a second call undoes it."""
        for name, value in self.parameters.items():
            trained = value.detach().clone()
            value.copy_(self.weights[name])
            self.weights[name].copy_(trained)

    @contextmanager
    def exchanged(self) -> Iterator[None]:
        """The averages in place of the parameters, for as long as the block lasts."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()


def optimizer_tensors(
    optimizers: Iterable[torch.optim.Optimizer], parameters: Mapping[str, nn.Parameter]
) -> dict[str, torch.Tensor]:
    """The optimisers' memory as "parameter/what" -> tensor."""
    found: dict[str, torch.Tensor] = {}
    names: dict[torch.Tensor, str] = {value: name for name, value in parameters.items()}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                found[f"{names[parameter]}/{key}"] = value
    return found


def restore_optimizers(
    optimizers: Iterable[torch.optim.Optimizer],
    parameters: Mapping[str, nn.Parameter],
    keys: Iterable[str],
    read: Callable[[str, torch.Tensor], torch.Tensor],
) -> None:
    """Give the optimisers the memory that ``optimizer_tensors`` named.

    Args:
        keys: the names that there are; read: (name, parameter) -> tensor of its shape, sharded as
            that is.
    """
    memory: dict[str, list[str]] = {}
    for key in keys:
        name, _, what = key.rpartition("/")
        memory.setdefault(name, []).append(what)
    for optimizer in optimizers:
        own = {p for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in parameters.items():
            if parameter in own and name in memory:
                optimizer.state[parameter] = {
                    what: read(f"{name}/{what}", parameter) for what in memory[name]
                }
