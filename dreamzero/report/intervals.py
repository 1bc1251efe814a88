"""Intervals for results that are already numbers: the mean over seeds, and two results' difference.

The standard library only; `evaluate.statistics` has what starts from episodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_Z95 = 1.959964
# 97.5 % quantiles of Student's t for 1 to 10 degrees of freedom.
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: a table to 10 degrees of freedom, then its series in 1/v.

    Raises:
        ValueError: less than one degree of freedom.
    """
    if freedom < 1:
        raise ValueError(f"need at least one degree of freedom, got {freedom}")
    if freedom <= len(_T975):
        return _T975[freedom - 1]
    z = _Z95  # Abramowitz and Stegun 26.7.5
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def mean_over_runs(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean of independent runs and its 95 % t interval; no interval from a single run.

    Raises:
        ValueError: no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("need at least one value")
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None, None
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = student_t(n - 1) * spread / math.sqrt(n)
    return mean, mean - half, mean + half


def difference(
    a: tuple[float, float, float], b: tuple[float, float, float]
) -> tuple[float, float, float]:
    """b - a and its 95 % interval, from two independent results (value, low, high).

    The distances from value to bound add in quadrature, each side with its own (Zou and Donner
    2008, "MOVER"). For shares with Wilson intervals this is Newcombe's interval of a difference of
    proportions (1998, method 10), for means with t intervals nearly Welch's.
    """
    (value_a, low_a, high_a), (value_b, low_b, high_b) = a, b
    middle = value_b - value_a
    down = math.hypot(value_b - low_b, high_a - value_a)
    up = math.hypot(high_b - value_b, value_a - low_a)
    return middle, middle - down, middle + up
