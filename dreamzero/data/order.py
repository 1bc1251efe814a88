"""Endless orders that can be entered anywhere: what stands at a place is computed, not remembered."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

# Turns after which an order by weight repeats itself; the first ten numbers divide it.
CYCLE = 2520


class Turns:
    """Several things in turn, evenly, each as often as its weight says.

    Args:
        weights: one a thing, above 0; kept to one in ``CYCLE``.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        wanted = np.asarray(weights, dtype=np.float64)
        exact = wanted / wanted.sum() * max(CYCLE, 10 * len(wanted))
        self._counts = np.maximum(1, np.floor(exact + 0.5)).astype(np.int64)
        which = np.repeat(np.arange(len(wanted)), self._counts)
        earlier = np.concatenate([np.arange(count) for count in self._counts])
        order = np.argsort((earlier + 0.5) / self._counts[which], kind="stable")
        self._which, self._earlier = which[order], earlier[order]

    def at(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 ``[n]`` twice: which thing has the turn at each place, and how many it had before."""
        cycle, inside = np.divmod(places, len(self._which))
        which = self._which[inside]
        return which, cycle * self._counts[which] + self._earlier[inside]


class EpisodeOrder:
    """Windows shuffled so that few episodes are open at a time, every window once an epoch.

    An epoch is a permutation of the episodes, cut into groups of ``open_episodes``; windows come group by
    group, those of a group permuted. Groups are dealt to the lanes in turn, for ever: a lane has its
    groups for itself, and who follows one lane reads an episode once an epoch or not at all.

    Args:
        episodes: window numbers of each episode.
        seed: non-negative numbers that everything is drawn from.
        lanes: streams of windows, each at its own pace.
    """

    def __init__(
        self,
        episodes: Sequence[np.ndarray],
        seed: Sequence[int],
        lanes: int = 1,
        open_episodes: int = 8,
    ) -> None:
        self._episodes = list(episodes)
        self._sizes = np.array([len(own) for own in episodes])
        self._seed, self.lanes, self._open = list(seed), lanes, open_episodes
        self._groups = -(-len(self._episodes) // open_episodes)
        self._permutations: dict[int, np.ndarray] = {}
        # Windows that each lane has had when an epoch is over, epoch by epoch.
        self._ends: list[np.ndarray] = []

    def at(self, lane: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """int64 ``[count]`` twice: windows ``start`` and following of a lane, and their groups' numbers.

        The first call at a late place counts the windows of all epochs before it, a millisecond for each
        of 70 000 episodes; calls after that do not.
        """
        windows: list[np.ndarray] = []
        groups: list[np.ndarray] = []
        left = count
        for number, own in self._lane(lane, start):
            windows.append(own[:left])
            groups.append(np.full(len(windows[-1]), number))
            left -= len(windows[-1])
            if not left:
                break
        return np.concatenate(windows), np.concatenate(groups)

    def _lane(self, lane: int, start: int) -> Iterator[tuple[int, np.ndarray]]:
        """(number of a group, its windows in their order) from ``start`` on; the first may be cut."""
        while not self._ends or self._ends[-1][lane] <= start:
            self._count()
        epoch = bisect_right(self._ends, start, key=lambda ends: int(ends[lane]))
        skip = start - (int(self._ends[epoch - 1][lane]) if epoch else 0)
        while True:
            order, sizes = self._permutation(epoch), self._group_sizes(epoch)
            first = epoch * self._groups
            for group in range((lane - first) % self.lanes, self._groups, self.lanes):
                if skip >= sizes[group]:
                    skip -= int(sizes[group])
                    continue
                members = order[group * self._open : (group + 1) * self._open]
                own = np.concatenate([self._episodes[i] for i in members])
                rng = np.random.default_rng([*self._seed, 1, first + group])
                yield first + group, own[rng.permutation(len(own))][skip:]
                skip = 0
            epoch += 1

    def _count(self) -> None:
        """One epoch more in ``_ends``."""
        epoch = len(self._ends)
        lanes = (epoch * self._groups + np.arange(self._groups)) % self.lanes
        had = np.zeros(self.lanes, np.int64) if not epoch else self._ends[-1]
        own = np.bincount(lanes, self._group_sizes(epoch), self.lanes).astype(np.int64)
        self._ends.append(had + own)

    def _group_sizes(self, epoch: int) -> np.ndarray:
        starts = np.arange(0, len(self._episodes), self._open)
        return np.add.reduceat(self._sizes[self._permutation(epoch)], starts)

    def _permutation(self, epoch: int) -> np.ndarray:
        """int64 ``[episodes]``: the episodes in the order of an epoch; the last ones are kept."""
        found = self._permutations.get(epoch)
        if found is None:
            rng = np.random.default_rng([*self._seed, 0, epoch])
            found = rng.permutation(len(self._episodes))
            while len(self._permutations) > 2 * self.lanes:
                del self._permutations[next(iter(self._permutations))]
            self._permutations[epoch] = found
        return found
