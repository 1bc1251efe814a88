"""What a forward has to do, and what this machine was measured to do at best."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .ops import Layout

if TYPE_CHECKING:
    from .engine import Engine
    from .session import Session


@dataclass(frozen=True)
class Work:
    """Multiply-adds (2 each) and bytes that have to move at least once."""

    flops: float
    bytes: float

    @classmethod
    def of(cls, engine: Engine, session: Session, at: Layout) -> Work:
        """One forward of all branches at ``at``: products, attention; weights and window read once."""
        config, layers = engine.transformer.config, engine.network.layers
        dim, seen = config.dim, at.cached + at.tokens
        read = session.branches[0].context[0]
        text = read.text[0].shape[1] + (0 if read.image is None else read.image[0].shape[1])
        token = 2 * (6 * dim * dim + 2 * dim * config.ffn_dim) + 4 * dim * (seen + text)
        branches = len(session.branches)
        weights = 0
        for layer in layers:
            for part in (layer.qkv, layer.out, layer.query, layer.cross_out, layer.up, layer.down):
                weights += part.weight.numel() * part.weight.element_size()
        kept = 2 * len(layers) * branches * (seen + text) * dim * engine.dtype.itemsize
        return cls(float(len(layers) * branches * at.tokens * token), float(weights + kept))


@dataclass(frozen=True)
class Ceilings:
    """Measured on large operands: products in the engine's dtype, and a copy's reads and writes."""

    flops: float
    bytes: float

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype) -> Ceilings:
        """The best of a few tries; about a second."""
        n, mib = (8192, 1024) if device.type == "cuda" else (1024, 64)
        a = torch.randn(n, n, device=device, dtype=dtype)
        source = torch.empty(mib * 2**20, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return cls(
            2 * n**3 / _best(lambda: a @ a, device),
            2 * source.numel() / _best(lambda: target.copy_(source), device),
        )

    def percent(self, work: Work, seconds: float) -> tuple[float, float]:
        """Of the two ceilings, when ``work`` took so long."""
        return (
            100 * work.flops / seconds / self.flops,
            100 * work.bytes / seconds / self.bytes,
        )


def _best(call: Callable[[], Any], device: torch.device) -> float:
    times = []
    for _ in range(20):  # the best of many: others may use the machine
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times)
