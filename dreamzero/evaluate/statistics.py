"""Intervals for success rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """A share of ``n`` trials with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.value:.0f} % [{low:.0f}, {high:.0f}], n = {self.n}"


def wilson(successes: int, n: int, z: float = _Z95) -> Rate:
    """Wilson score interval of ``successes`` in ``n`` trials (Wilson 1927); stays inside [0, 1]."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"need 0 <= successes <= n and n >= 1, got {successes} of {n}")
    p = successes / n
    scale = 1 + z * z / n
    middle = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Rate(p, max(0.0, middle - half), min(1.0, middle + half), n)


def mean_interval(values: list[float], z: float = _Z95) -> Rate:
    """Mean and normal 95 % interval of measurements (task progress, errors)."""
    n = len(values)
    if n < 1:
        raise ValueError("need at least one measurement")
    mean = sum(values) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(n - 1, 1))
    half = z * spread / math.sqrt(n)
    return Rate(mean, mean - half, mean + half, n)
