"""Intervals for success rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

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


def mean_interval(
    values: list[float], bounds: tuple[float, float] = (-math.inf, math.inf), z: float = _Z95
) -> Rate:
    """Mean and normal 95 % interval of measurements (task progress, errors), cut to what they may be."""
    n = len(values)
    if n < 1:
        raise ValueError("need at least one measurement")
    mean = sum(values) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(n - 1, 1))
    half = z * spread / math.sqrt(n)
    low, high = bounds
    return Rate(mean, max(mean - half, low), min(mean + half, high), n)


@dataclass(frozen=True)
class Contrast:
    """Two policies in the same scenes.

    Attributes:
        difference: mean of a minus mean of b; ratio: mean of a over mean of b. ``n`` is scenes times
            training seeds. The ratio's upper end is infinite where b may never have succeeded.
    """

    difference: Rate
    ratio: Rate


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, draws: int = 4000, seed: int = 0, level: float = 0.95
) -> Contrast:
    """How much better a is than b, from outcomes in the same scenes.

    Row i of both is what their i-th training did in the scenes of row i. Rows are drawn with
    replacement, and within each the scenes, both for a and b together (a bootstrap in two stages:
    Davison, Hinkley 1997, 3.8; the pairs share what makes a scene hard).

    Args:
        a, b: success or progress, float or bool ``[training seeds, scenes]``.

    Raises:
        ValueError: not of the same trainings and scenes, or none.
    """
    a, b = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (a, b))
    if a.shape != b.shape or not a.size:
        raise ValueError(f"outcomes of shapes {a.shape} and {b.shape} are not of the same scenes")
    rng = np.random.default_rng(seed)
    rows, scenes = a.shape
    drawn = rng.integers(rows, size=(draws, rows))
    # How often each scene is drawn in each drawn row: sums of counts, not copies of outcomes.
    counts = rng.multinomial(scenes, np.full(scenes, 1 / scenes), size=(draws, rows)) / scenes
    means = [np.einsum("drs,drs->d", counts, x[drawn]) / rows for x in (a, b)]
    tails = [50 * (1 - level), 100 - 50 * (1 - level)]
    low, high = np.percentile(means[0] - means[1], tails)
    ratio = float(a.mean() / b.mean()) if b.mean() > 0 else math.inf
    some = np.maximum(means[1], 1e-300)
    # Nothing over nothing says nothing: it counts as 0 for the lower end, as infinite for the upper.
    lower = np.where(means[1] > 0, means[0] / some, np.where(means[0] > 0, np.inf, 0.0))
    upper = np.where(means[1] > 0, means[0] / some, np.inf)
    ends = [
        float(np.sort(x)[min(int(t / 100 * draws), draws - 1)])
        for x, t in zip((lower, upper), tails, strict=True)
    ]
    n = a.size
    return Contrast(
        Rate(float(a.mean() - b.mean()), float(low), float(high), n),
        Rate(ratio, ends[0], ends[1], n),
    )
