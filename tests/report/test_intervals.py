"""Intervals against published numbers."""

from __future__ import annotations

import pytest

from dreamzero.report.intervals import difference, mean_over_runs, student_t


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.000)]
)
def test_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=1e-3)


def test_mean_over_runs() -> None:
    mean, low, high = mean_over_runs([1.0, 2.0, 3.0])
    assert mean == 2.0 and low is not None and high is not None
    assert (high - mean, mean - low) == pytest.approx((4.303 / 3**0.5,) * 2, rel=1e-3)
    assert mean_over_runs([5.0]) == (5.0, None, None)
    for wrong in (lambda: mean_over_runs([]), lambda: student_t(0)):
        with pytest.raises(ValueError, match="at least one"):
            wrong()


def test_difference_of_proportions_is_newcombes() -> None:
    """His example of 1998, table II: 56/70 against 48/80; method 10 gives 0.0524 to 0.3339."""
    first, second = (0.6, 0.4904, 0.7004), (0.8, 0.6918, 0.8769)  # Wilson of 48/80 and 56/70
    value, low, high = difference(first, second)
    assert value == pytest.approx(0.2)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-4)


def test_difference_of_means_is_welchs_for_large_samples() -> None:
    a, b = (10.0, 9.0, 11.0), (13.0, 11.0, 15.0)
    assert difference(a, b) == pytest.approx((3.0, 3.0 - 5**0.5, 3.0 + 5**0.5))
