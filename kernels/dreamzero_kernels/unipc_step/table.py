"""Coefficients of UniPC (order 2, B(h) = e^-h - 1, data prediction) for a grid of flow sigmas.

With alpha = 1 - sigma and lambda = log(alpha / sigma), the data prediction x0 = x - sigma v makes
the flow an exponential integrator: over a step h = lambda_t - lambda_s,

    x_t = (sigma_t / sigma_s) x_s + alpha_t * integral of e^(lambda - lambda_t) x0(lambda).

A constant x0 gives the weight 1 - e^-h. The multistep rules add divided differences D of x0 over
earlier points (and, in the corrector, the new one) with weights that match the integral's
expansion in h; at the order of two the predictor's weight is 1/2 and the corrector's solve a 2 x 2
system. All is linear in the vectors kept, so that a step is one row of numbers.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import torch
from torch import Tensor

COLUMNS = 9
"""sigma | corrector: sample, last, older, old, new | predictor: current, old, new."""


def unipc_table(sigmas: Tensor, order: int = 2, device: torch.device | str | None = None) -> Tensor:
    """One row a step. Kept for the next time: a chunk must not wait for a copy to the device.

    Args:
        sigmas: ``[steps + 1]``, falling, from below 1 to 0 or above (1 itself has no data
            prediction: alpha is 0).
        order: 1 or 2; the first and the last step are always of order 1.
        device: where the table goes, by default to that of ``sigmas``.

    Returns:
        float32 ``[steps, 9]``, to be read only.

    Raises:
        ValueError: not such a grid.
    """
    return _table(tuple(sigmas.detach().double().cpu().tolist()), order, device or sigmas.device)


@lru_cache
def _table(s: tuple[float, ...], order: int, device: torch.device | str) -> Tensor:
    steps = len(s) - 1
    if steps < 1 or not 0 < s[0] < 1 or s[-1] < 0 or any(a <= b for a, b in itertools.pairwise(s)):
        raise ValueError(
            "unipc_table: sigmas must fall from below 1 to 0 or above, got " + str(list(s))
        )
    if order not in (1, 2):
        raise ValueError(f"unipc_table: order must be 1 or 2, got {order}")
    orders = [min(order, steps - i, i + 1) for i in range(steps)]
    rows = []
    for i in range(steps):
        corrector = (1.0, 0.0, 0.0, 0.0, 0.0)
        if i:
            corrector = (0.0, *_correct(s, i, orders[i - 1]))
        rows.append((s[i], *corrector, *_predict(s, i, orders[i])))
    return torch.tensor(rows, dtype=torch.float64).float().to(device)


def _logit(sigma: float) -> float:
    return math.inf if sigma == 0 else math.log1p(-sigma) - math.log(sigma)


def _predict(s: tuple[float, ...], i: int, order: int) -> tuple[float, float, float]:
    """Weights of (current, old, new) in the step from sigma i to sigma i + 1."""
    here, there = s[i], s[i + 1]
    h = _logit(there) - _logit(here)
    gain = -(1 - there) * math.expm1(-h)
    current, old, new = there / here, 0.0, gain
    if order == 2:
        ratio = (_logit(s[i - 1]) - _logit(here)) / h
        # D = (old - new) / ratio, weight 1/2.
        old, new = gain / (2 * ratio), gain - gain / (2 * ratio)
    return current, old, new


def _correct(s: tuple[float, ...], i: int, order: int) -> tuple[float, float, float, float]:
    """Weights of (last, older, old, new) when the step from sigma i - 1 to sigma i is done again."""
    before, here = s[i - 1], s[i]
    h = _logit(here) - _logit(before)
    base = math.expm1(-h)
    gain = -(1 - here) * base
    last = here / before
    if order == 1:
        return last, 0.0, gain / 2, gain / 2
    ratio = (_logit(s[i - 2]) - _logit(before)) / h
    # Moments of the integral that D = (older - old) / ratio and E = new - old must match:
    # a + b = first, ratio * a + b = second.
    phi = base / -h - 1
    first = phi / base
    second = 2 * (phi / -h - 0.5) / base
    a = (second - first) / (ratio - 1)
    b = first - a
    return last, gain * a / ratio, gain * (1 - a / ratio - b), gain * b
