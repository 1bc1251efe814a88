"""What a step sees: windows drawn from recordings of one or several robots, by (seed, step) alone.

Two protocols stand between a training and where windows come from: ``Windows`` (all windows of one robot
at one length, whether in memory, in a cache on disk or still in their video) and ``BatchSource`` (which of
them a step takes). Nothing is remembered from step to step, so that a run may be resumed, or read by
several processes, at any step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..types import Batch
from .order import EpisodeOrder, Turns

# Episodes a recording may have, at most, in the numbering of ``Windows.episode``.
EPISODES = 10**6
# Step g belongs to lane g modulo LANES: as many processes may read without reading an episode twice.
LANES = 4
Shuffle = Literal["windows", "episodes"]


class Windows(Protocol):
    """All windows of one robot at one length.

    A training reads some rows of a draw in two parts: ``read`` may happen in another process, ``finish``
    happens where the networks are.

    Attributes:
        episode: int64 ``[N]``; windows of an episode follow one another, and recording i numbers its
            episodes from ``EPISODES * i`` on.
        has_action: bool ``[N]``; prompts: all that occur; embodiment: name of the card.
    """

    episode: Tensor
    has_action: Tensor
    prompts: list[str]
    embodiment: str

    def __len__(self) -> int: ...

    def read(self, draw: Draw, places: Sequence[int]) -> Any:
        """The rows of a draw at ``places``, for ``finish``; UserError for what cannot be read."""
        ...

    def finish(self, read: Any) -> Batch:
        """What ``read`` gave, as the model takes it."""
        ...

    def batch(self, index: Tensor) -> Batch:
        """The windows at ``index [b]``, as they were recorded."""
        ...

    def where(self, index: int) -> str:
        """Recording, episode and frame of a window, for people."""
        ...


class Ready(ABC):
    """Windows that need nothing but reading; a class that has ``batch`` takes the rest from here."""

    @abstractmethod
    def batch(self, index: Tensor) -> Batch:
        """See ``Windows``."""

    def read(self, draw: Draw, places: Sequence[int]) -> Batch:
        """See ``Windows``."""
        return self.batch(draw.index[list(places)])

    def finish(self, read: Batch) -> Batch:
        """See ``Windows``."""
        return read


@dataclass(frozen=True)
class Draw:
    """The windows of one step, for all processes together.

    Attributes:
        index: int64 ``[b]`` into ``windows``.
        visits: int64 ``[b]``, where windows come by episode: equal numbers for all that are drawn of an
            episode before it is left again; -1 for a window that comes alone. None: they all do.
    """

    windows: Windows
    index: Tensor
    step: int = 0
    visits: Tensor | None = None

    def numbers(self, places: Sequence[int]) -> list[int]:
        """One for each of these rows, different for all rows of all steps of a kind."""
        return [self.step * len(self.index) + place for place in places]


class BatchSource(Protocol):
    """Which windows a step takes.

    ``draw`` depends on the seed and the step alone: that is what makes a resumed run, and one on
    another number of processes, take the same steps.
    """

    @property
    def feeds(self) -> Sequence[Feed]:
        """All there are; they tell what to evaluate on."""
        ...

    def draw(self, step: int) -> Draw:
        """The windows of this step."""


class Kind(Protocol):
    """One kind of batch: blocks a window, windows a batch, and the share that begins episodes."""

    @property
    def blocks(self) -> int:
        """Blocks a window."""

    @property
    def batch(self) -> int:
        """Windows a batch."""

    @property
    def begin(self) -> float:
        """Share of the windows that begin an episode."""


@dataclass(eq=False)
class Feed:
    """Windows of one kind, split into those trained on and those held out.

    Held out are the last episodes of every recording.

    Args:
        validation: share of each recording's episodes, at least one where there are two; None: none.
        weights: how often each recording is drawn; None: by its number of windows.
    """

    source: Kind
    windows: Windows
    validation: float | None = 0.02
    weights: Sequence[float] | None = None
    train: Tensor = field(init=False)
    held_out: Tensor = field(init=False)
    begins: Tensor = field(init=False)

    def __post_init__(self) -> None:
        episode = self.windows.episode
        held = torch.zeros(len(self.windows), dtype=torch.bool)
        episodes = episode.unique()
        for recording in (episodes // EPISODES).unique():
            own = episodes[episodes // EPISODES == recording]
            some = self.validation is not None and len(own) > 1
            count = max(1, round((self.validation or 0.0) * len(own))) if some else 0
            held |= torch.isin(episode, own[len(own) - count :])
        self.train, self.held_out = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
        own = episode[self.train]
        self.begins = self.train[torch.cat([own[:1] >= 0, own[1:] != own[:-1]])]

    @property
    def begin(self) -> int:
        """Rows of a batch that are drawn from ``begins``."""
        return round(self.source.begin * self.source.batch)

    def draw(self, generator: torch.Generator) -> Tensor:
        """int64 ``[source.batch]``, every window for itself, with replacement."""
        rest = self.pick(self.train, self.source.batch - self.begin, generator)
        return torch.cat([rest, self.pick(self.begins, self.begin, generator)])

    def pick(self, pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """int64 ``[count]`` out of ``pool``, with replacement."""
        if self.weights is None:
            return pool[torch.randint(0, len(pool), (count,), generator=generator)]
        if not count:
            return pool[:0]
        recording = self.windows.episode[pool] // EPISODES
        present, sizes = recording.unique(return_counts=True)
        share = torch.tensor([float(self.weights[int(i)]) for i in present]) / sizes
        each = share[torch.searchsorted(present, recording)]
        return pool[torch.multinomial(each, count, replacement=True, generator=generator)]


class ByEpisode:
    """The windows of a feed in the order of their episodes (``EpisodeOrder``), recordings by weight."""

    def __init__(self, feed: Feed, seed: Sequence[int], lanes: int, open_episodes: int) -> None:
        self.lanes = lanes
        self._rows = feed.source.batch - feed.begin
        index, episode = feed.train.numpy(), feed.windows.episode[feed.train].numpy()
        own = np.split(index, np.flatnonzero(np.diff(episode)) + 1)
        recording = [int(feed.windows.episode[int(each[0])]) // EPISODES for each in own]
        present = sorted(set(recording)) if feed.weights is not None else [-1]
        self._turns = Turns([1.0 if feed.weights is None else feed.weights[i] for i in present])
        self._orders = [
            EpisodeOrder(
                [e for e, of in zip(own, recording, strict=True) if i in (of, -1)],
                [*seed, i + 1],
                lanes,
                open_episodes,
            )
            for i in present
        ]

    def at(self, lane: int, turn: int) -> tuple[np.ndarray, np.ndarray]:
        """int64 ``[rows]`` twice: the windows of a lane's turn, and their visits."""
        rows = turn * self._rows + np.arange(self._rows)
        which, earlier = self._turns.at(rows)
        parts = [(order, earlier[which == i]) for i, order in enumerate(self._orders)]
        found = [order.at(lane, int(own[0]), len(own)) for order, own in parts if len(own)]
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        windows, visits = (np.concatenate(part) for part in zip(*found, strict=True))
        return windows, visits


class Mixture:
    """Batches of several kinds and robots: the kinds take turns, robots come by weight.

    Args:
        feeds: a robot may have several, of different kinds (full windows, first blocks).
        weights: of each feed's robot; equal by default, and robots then take turns.
        seed: of all draws.
        shuffle: "windows" draws each window for itself, with replacement; "episodes" opens a few
            episodes at a time and draws each of their windows once, so that who reads from disk or video
            reads every episode once an epoch. Rows then stand in the order of their episodes, so that
            processes which share a batch share few of them.
        open_episodes: with "episodes", so many at a time in each lane; lanes: see ``LANES``.

    Raises:
        UserError: nothing to draw from.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        seed: int = 0,
        weights: Sequence[float] | None = None,
        shuffle: Shuffle = "windows",
        open_episodes: int = 8,
        lanes: int = LANES,
    ) -> None:
        if not feeds:
            raise UserError("nothing to train on: give at least one kind of batch a batch size")
        for feed in feeds:
            if not len(feed.train):
                raise UserError(
                    f"all windows of {feed.windows.embodiment} are held out: lower train.validation"
                )
        self.feeds: Sequence[Feed] = list(feeds)
        self.seed, self.lanes = seed, lanes
        self.weights = None if weights is None else [float(w) for w in weights]
        every = range(len(self.feeds))
        if self.weights is None:
            self.kinds = [[i] for i in every]
        else:
            blocks = [feed.source.blocks for feed in self.feeds]
            self.kinds = [[i for i in every if blocks[i] == b] for b in dict.fromkeys(blocks)]
        self._by_episode: list[ByEpisode] = []
        if shuffle == "episodes":
            # Of the lanes a kind meets only these: its turns come every so many steps.
            own = lanes // gcd(len(self.kinds), lanes)
            self._robots = [
                Turns([1.0 if self.weights is None else self.weights[i] for i in kind])
                for kind in self.kinds
            ]
            self._by_episode = [
                ByEpisode(feed, (seed, i), own, open_episodes) for i, feed in enumerate(self.feeds)
            ]

    def draw(self, step: int) -> Draw:
        """The same for the same step, whatever came before."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 4)
        kind = self.kinds[step % len(self.kinds)]
        if self._by_episode:
            return self._draw_by_episode(step, kind, generator)
        feed = self.feeds[kind[0]]
        if self.weights is not None:
            weights = torch.tensor([self.weights[i] for i in kind])
            feed = self.feeds[kind[int(torch.multinomial(weights, 1, generator=generator))]]
        return Draw(feed.windows, feed.draw(generator), step)

    def _draw_by_episode(self, step: int, kind: list[int], generator: torch.Generator) -> Draw:
        lanes = self._by_episode[kind[0]].lanes
        turn, lane = divmod(step // len(self.kinds), lanes)
        (which,), (turn,) = self._robots[step % len(self.kinds)].at(np.array([turn]))
        feed, order = self.feeds[kind[which]], self._by_episode[kind[which]]
        windows, visits = order.at(lane, int(turn))
        begins = feed.pick(feed.begins, feed.begin, generator)
        index = torch.cat([torch.from_numpy(windows), begins])
        visit = torch.cat([torch.from_numpy(visits), torch.full((len(begins),), -1)])
        place = index.argsort(stable=True)
        return Draw(feed.windows, index[place], step, visit[place])
