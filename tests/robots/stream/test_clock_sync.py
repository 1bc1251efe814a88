"""The peer's clock: what is estimated lies within what is promised, whatever the delays are."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.robots.stream.clock_sync import ClockSync

S = 1_000_000_000


class Clocks:
    """Two clocks and a path between them."""

    def __init__(self, seed: int, offset_s: float, drift: float) -> None:
        self.dice = random.Random(seed)
        self.offset_ns, self.drift = round(offset_s * S), drift
        self.sync = ClockSync()

    def peer(self, ours_ns: int) -> int:
        return ours_ns + self.offset_ns + round(ours_ns * self.drift)

    def exchange(self, at_ns: int, up_s: float, down_s: float, held_s: float = 0.004) -> int:
        """One frame there and one back; returns when it was back."""
        arrives = at_ns + round(up_s * S)
        leaves = arrives + round(held_s * S)
        back = leaves + round(down_s * S)
        self.sync.add(at_ns, self.peer(arrives), self.peer(leaves), back)
        return back

    def wrong_ns(self, at_ns: int) -> float:
        return abs(self.sync.offset_ns(at_ns) - (self.peer(at_ns) - at_ns))


@given(
    st.integers(0, 10**6), st.floats(-1e6, 1e6), st.floats(-95e-6, 95e-6),
    st.floats(0, 0.05), st.floats(0, 0.05), st.floats(0, 0.1), st.integers(1, 300),
)  # fmt: skip
def test_the_error_is_never_above_its_bound(seed, offset, drift, up, down, jitter, count) -> None:
    clocks = Clocks(seed, offset, drift)
    at = 0
    for _ in range(count):
        at += round(clocks.dice.uniform(0.0, 0.3) * S)
        extra_up, extra_down = (clocks.dice.uniform(0, jitter) for _ in range(2))
        back = clocks.exchange(at, up + extra_up, down + extra_down)
        for later in (back, back + S):
            # Whole ns, and the float they are kept in.
            assert clocks.wrong_ns(later) <= clocks.sync.error_ns(later) + 2


def test_the_exchange_with_the_least_delay_counts() -> None:
    clocks = Clocks(1, 3.0, 0.0)
    clocks.exchange(0, 0.080, 0.001)
    assert clocks.wrong_ns(S) == pytest.approx(39.5e6, rel=0.01)
    clocks.exchange(S, 0.002, 0.001)
    assert clocks.wrong_ns(2 * S) == pytest.approx(0.5e6, rel=0.01)
    clocks.exchange(2 * S, 0.080, 0.001)
    assert clocks.wrong_ns(3 * S) == pytest.approx(0.5e6, rel=0.01)
    assert clocks.sync.rtt_ns == 81_000_000
    assert clocks.sync.least_rtt_ns == 3_000_000


def test_drift_is_found_on_a_quick_network_and_not_guessed_on_a_slow_one() -> None:
    for jitter_s, found in ((0.0002, True), (0.05, False)):
        clocks = Clocks(2, -7.0, 60e-6)
        for i in range(400):
            up, down = (clocks.dice.uniform(0.0001, jitter_s) for _ in range(2))
            clocks.exchange(i * S // 20, up, down)
        if found:
            assert clocks.sync.drift_ppm == pytest.approx(60, abs=10)
            # It carries over a silence: 5 s at 60 ppm would be 0.3 ms.
            assert clocks.wrong_ns(25 * S) < 0.15e6
        else:
            assert clocks.sync.drift_ppm == 0


def test_times_are_put_on_our_clock_and_ages_are_bounds() -> None:
    clocks = Clocks(3, 1e6, 20e-6)
    for i in range(100):
        clocks.exchange(i * S // 10, 0.003, 0.001)
    now = 10 * S
    event = now - S // 5
    bound = clocks.sync.error_ns(now)
    assert abs(clocks.sync.to_ours(clocks.peer(event)) - event) <= bound
    age = clocks.sync.oldest_ns(clocks.peer(event), now)
    assert S / 5 <= age <= S / 5 + 2 * bound
    assert clocks.sync.oldest_ns(clocks.peer(now + S), now) == 0


def test_an_impossible_exchange_is_ignored() -> None:
    sync = ClockSync()
    sync.add(0, 10, 5_000, 100)
    assert not sync.known
    sync.add(50, 10, 20, 0)
    assert not sync.known
