"""Orders that can be entered anywhere: every window once an epoch, few episodes at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamzero.data.order import EpisodeOrder, Turns

sizes = st.lists(st.integers(1, 6), min_size=1, max_size=9)


def episodes(*of: int) -> list[np.ndarray]:
    """Windows 0, 1, 2, ... in episodes of these sizes."""
    return np.split(np.arange(sum(of)), np.cumsum(of)[:-1])


@settings(max_examples=40)
@given(
    sizes=sizes, opened=st.integers(1, 4), lanes=st.integers(1, 5), seed=st.integers(0, 9),
    epochs=st.integers(1, 3),
)  # fmt: skip
def test_every_window_comes_once_an_epoch(
    sizes: list[int], opened: int, lanes: int, seed: int, epochs: int
) -> None:
    order = EpisodeOrder(episodes(*sizes), [seed], lanes, opened)
    groups = -(-len(sizes) // opened)
    seen = [Counter[int]() for _ in range(epochs)]
    for lane in range(lanes):
        windows, visits = order.at(lane, 0, epochs * sum(sizes))
        # Lanes go at their own pace; a lane has its groups for itself.
        assert all(visit % lanes == lane for visit in visits)
        for window, epoch in zip(windows.tolist(), (visits // groups).tolist(), strict=True):
            if epoch < epochs:
                seen[epoch][window] += 1
    assert seen == [Counter(range(sum(sizes)))] * epochs


@settings(max_examples=40)
@given(sizes=sizes, start=st.integers(0, 60), count=st.integers(1, 30), lanes=st.integers(1, 3))
def test_it_can_be_entered_anywhere(sizes: list[int], start: int, count: int, lanes: int) -> None:
    def made() -> EpisodeOrder:
        return EpisodeOrder(episodes(*sizes), [7], lanes, 2)

    whole = made()
    for lane in range(lanes):
        windows, visits = whole.at(lane, 0, start + count)
        again = made().at(lane, start, count)
        np.testing.assert_array_equal(again[0], windows[start:])
        np.testing.assert_array_equal(again[1], visits[start:])
        assert whole.at(lane, 0, 1)[0] == windows[0]  # backwards, too


def test_few_episodes_are_open_at_a_time_and_mixed() -> None:
    order = EpisodeOrder(episodes(*[8] * 40), [0], lanes=2, open_episodes=5)
    windows, visits = order.at(1, 0, 160)
    for visit in np.unique(visits):
        own = windows[visits == visit] // 8
        assert len(own) == 40 and len(np.unique(own)) == 5
        assert (np.diff(own) != 0).sum() > 20
    other, _ = EpisodeOrder(episodes(*[8] * 40), [1], lanes=2, open_episodes=5).at(1, 0, 160)
    assert not np.array_equal(windows, other)
    assert not np.array_equal(windows, order.at(0, 0, 160)[0])
    assert not np.array_equal(windows, order.at(1, 160, 160)[0])  # the next epoch


@pytest.mark.parametrize("weights", [[1.0], [1, 1, 1], [1, 3], [0.5, 2.5, 4], [1, 1e-9]])
def test_turns_are_even_and_by_weight(weights: list[float]) -> None:
    turns = Turns(weights)
    which, earlier = turns.at(np.arange(6000))
    had = np.zeros(len(weights))
    for place, (thing, before) in enumerate(zip(which, earlier, strict=True)):
        assert before == had[thing]
        had[thing] += 1
        share = np.array(weights) / sum(weights)
        assert np.abs(had - share * (place + 1)).max() < 1 + len(weights) + 0.001 * place
    assert (had > 0).all()
    for place in (0, 17, 5999):
        one = turns.at(np.array([place]))
        assert (one[0][0], one[1][0]) == (which[place], earlier[place])
