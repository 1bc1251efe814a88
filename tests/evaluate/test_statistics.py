"""Intervals that are quoted with every success rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.evaluate.statistics import mean_interval, paired_bootstrap, wilson


def test_wilson_by_hand() -> None:
    rate = wilson(73, 100)
    assert (rate.value, rate.n) == (0.73, 100)
    assert rate.low == pytest.approx(0.6357, abs=1e-3)
    assert rate.high == pytest.approx(0.8073, abs=1e-3)
    assert str(rate) == "73 % [64, 81], n = 100"


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_stays_in_range_and_holds_the_value(case: tuple[int, int]) -> None:
    rate = wilson(*case)
    assert 0 <= rate.low <= rate.value + 1e-12
    assert rate.value - 1e-12 <= rate.high <= 1
    mirrored = wilson(case[1] - case[0], case[1])
    assert rate.low == pytest.approx(1 - mirrored.high, abs=1e-9)


@pytest.mark.parametrize("case", [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses(case: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(*case)


def test_mean_interval() -> None:
    assert (
        mean_interval([0.9, 1.0, 1.0], (0.0, 1.0)).high == 1.0 < mean_interval([0.9, 1.0, 1.0]).high
    )
    rate = mean_interval([0.0, 1.0] * 50)
    assert rate.value == 0.5
    assert rate.low == pytest.approx(0.5 - 1.96 * 0.5025 / 10, abs=1e-3)


def test_paired_bootstrap_covers_what_is_true() -> None:
    """Of many experiments with a known difference, about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    hits = []
    for i in range(120):
        hard = rng.beta(2, 2, 200)
        a, b = (rng.random((3, 200)) < np.clip(hard + shift, 0, 1) for shift in (0.2, 0.0))
        truth = float((np.clip(hard + 0.2, 0, 1) - hard).mean())
        found = paired_bootstrap(a, b, draws=400, seed=i).difference
        hits.append(found.low <= truth <= found.high)
    assert np.mean(hits) > 0.88


def test_pairs_narrow_the_interval_and_zeros_are_said() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random(300) < 0.5
    a, b = hard | (rng.random(300) < 0.1), hard
    paired = paired_bootstrap(a, b).difference
    apart = paired_bootstrap(a, rng.permutation(b)).difference
    assert paired.low > 0
    assert paired.high - paired.low < apart.high - apart.low
    never = paired_bootstrap(a, np.zeros(300)).ratio
    assert never.value == never.high == math.inf and never.low > 1
    assert paired_bootstrap(b, b).ratio.value == 1
    with pytest.raises(ValueError, match="same scenes"):
        paired_bootstrap(a, b[:10])
