"""The paper's filter and the crossfade, against what defines them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.robots.smoothing import PAST, crossfade, savgol

small = st.floats(-2, 2)


@given(st.lists(small, min_size=4, max_size=4), st.integers(1, 40), st.integers(0, 9))
def test_cubics_pass_unchanged(coefficients, k: int, p: int) -> None:
    if p + k < 4:
        p = 4
    values = np.polyval(coefficients, np.arange(p + k) / 10)[:, None]
    np.testing.assert_allclose(savgol(values[p:], values[:p]), values[p:], atol=1e-6)


def test_each_point_is_that_of_the_best_cubic_around_it() -> None:
    rng = np.random.default_rng(1)
    steps = rng.normal(size=40)
    # Interpolated by hand: the spline's halves solve the same system that a dense one does.
    k = np.arange(40)
    smooth = savgol(steps[PAST:, None], steps[:PAST, None])[:, 0]
    fine = np.zeros(79)
    fine[::2], fine[1::2] = steps, _halves(steps)
    for i in range(PAST, 35):
        window = np.arange(2 * i - 10, 2 * i + 11)
        fit = np.polynomial.Polynomial.fit(window, fine[window], 3)
        assert smooth[i - PAST] == pytest.approx(float(fit(2.0 * i)), abs=1e-9)
    # At the end it is the cubic of the last whole window.
    fit = np.polynomial.Polynomial.fit(np.arange(58, 79), fine[58:], 3)
    np.testing.assert_allclose(smooth[-5:], fit(2.0 * k[-5:]), atol=1e-9)


def _halves(values: np.ndarray) -> np.ndarray:
    """Values of the not-a-knot spline half way, by least squares on truncated powers."""
    k = np.arange(len(values), dtype=float)

    def basis(x: np.ndarray) -> np.ndarray:
        knots = k[2:-2]
        return np.column_stack(
            [np.ones_like(x), x, x**2, x**3, *(np.maximum(x - t, 0) ** 3 for t in knots)]
        )

    weights = np.linalg.lstsq(basis(k), values, rcond=None)[0]
    return basis(k[:-1] + 0.5) @ weights


def test_a_chunk_continues_what_was_executed() -> None:
    past = np.full((PAST, 1), 1.0)
    chunk = np.full((16, 1), 1.0) + np.linspace(0, 0.5, 16)[:, None]
    alone, continued = savgol(chunk, past[:0]), savgol(chunk, past)
    assert abs(continued[0] - 1.0) < 0.03
    assert abs(np.diff(continued[:2], axis=0)).max() < abs(np.diff(alone[:2], axis=0)).max() + 0.03
    # The future does not reach back further than half a window.
    changed = chunk.copy()
    changed[12:] += 1.0
    np.testing.assert_allclose(savgol(changed, past)[:5], continued[:5], atol=5e-3)


def test_noise_is_taken_out() -> None:
    rng = np.random.default_rng(0)
    clean = np.sin(np.arange(60) / 12)[:, None]
    noisy = clean + rng.normal(0, 0.05, clean.shape)
    smooth = savgol(noisy[PAST:], noisy[:PAST])
    assert np.std(smooth - clean[PAST:]) < 0.75 * np.std(noisy[PAST:] - clean[PAST:])


@given(st.integers(1, 3))
def test_too_few_points_stay_as_they_are(k: int) -> None:
    values = np.arange(k, dtype=float)[:, None]
    np.testing.assert_array_equal(savgol(values, values[:0]), values)


@given(st.integers(4, 24), st.floats(0, 12), st.floats(0, 6), st.floats(0.5, 8), st.floats(-1, 1))
def test_crossfade_begins_on_the_old_chunk_and_ends_on_the_new(k, shift, first, width, gap) -> None:
    old = np.linspace(0, 1, 24)[:, None]
    new = np.interp(np.arange(k) + shift, np.arange(24), old[:, 0])[:, None] + gap
    mixed = crossfade(new, old, shift, first, width)
    away = mixed - (new - gap)
    # Never outside of the two, and monotonous from one to the other.
    assert (away * np.sign(gap) >= -1e-9).all()
    assert (np.abs(away) <= abs(gap) + 1e-9).all()
    assert (np.diff(np.abs(away), axis=0) >= -1e-9).all()
    late = np.arange(k) >= first + width
    np.testing.assert_allclose(mixed[late], new[late])
    early = np.arange(k) <= first - 1
    np.testing.assert_allclose(mixed[early], (new - gap)[early], atol=1e-9)


def test_a_step_that_is_no_number_ends_with_its_chunk() -> None:
    old, new = np.zeros((8, 2)), np.ones((8, 2))
    old[-1] = np.nan
    faded = crossfade(new, old, shift=4, first=0, width=4)
    assert np.isfinite(faded[:3]).all() and np.isnan(faded[3]).all()
    np.testing.assert_array_equal(faded[4:], new[4:])
