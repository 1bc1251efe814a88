"""What a step sees: windows drawn from recordings of one or several robots, by (seed, step) alone.

Two protocols stand between the loop and where windows come from, so that a cache on disk can take the
place of tensors in memory: ``Windows`` (all windows of one robot at one length) and ``BatchSource``
(which of them a step takes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import UserError
from ..types import Batch
from .config import Source
from .latents import EPISODES


class Windows(Protocol):
    """All windows of one robot at one length; ``LatentWindows`` keeps them in memory.

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

    def batch(self, index: Tensor) -> Batch:
        """The windows at ``index [b]``."""
        ...

    def where(self, index: int) -> str:
        """Recording, episode and frame of a window, for people."""
        ...


@dataclass(frozen=True)
class Draw:
    """The windows of one step, for all processes together: ``index [b]`` into ``windows``."""

    windows: Windows
    index: Tensor


class BatchSource(Protocol):
    """Which windows a step takes.

    ``draw`` may depend on the seed and the step alone: that is what makes a resumed run, and one on
    another number of processes, take the same steps. A source that cannot do so keeps what it needs
    in its ``state_dict``.
    """

    @property
    def feeds(self) -> Sequence[Feed]:
        """All there are; they tell what to evaluate on."""
        ...

    def draw(self, step: int) -> Draw: ...

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready; empty where nothing has to be remembered."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(eq=False)
class Feed:
    """Windows of one kind, split into those trained on and those held out.

    Held out are the last episodes of every recording.

    Args:
        weights: how often each recording is drawn; None: by its number of windows.
    """

    source: Source
    windows: Windows
    validation: float = 0.02
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
            count = max(1, round(self.validation * len(own))) if len(own) > 1 else 0
            held |= torch.isin(episode, own[len(own) - count :])
        self.train, self.held_out = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
        own = episode[self.train]
        self.begins = self.train[torch.cat([own[:1] >= 0, own[1:] != own[:-1]])]

    def draw(self, generator: torch.Generator) -> Tensor:
        """int64 ``[source.batch]``."""
        begins = round(self.source.begin * self.source.batch)
        return torch.cat(
            [
                self._pick(pool, count, generator)
                for pool, count in ((self.train, self.source.batch - begins), (self.begins, begins))
            ]
        )

    def _pick(self, pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
        if self.weights is None:
            return pool[torch.randint(0, len(pool), (count,), generator=generator)]
        if not count:
            return pool[:0]
        recording = self.windows.episode[pool] // EPISODES
        present, sizes = recording.unique(return_counts=True)
        share = torch.tensor([float(self.weights[int(i)]) for i in present]) / sizes
        each = share[torch.searchsorted(present, recording)]
        return pool[torch.multinomial(each, count, replacement=True, generator=generator)]


class Mixture:
    """Batches of several kinds and robots: the kinds take turns, robots are drawn by weight.

    Args:
        feeds: a robot may have several, of different kinds (full windows, first blocks).
        weights: of each feed's robot; equal by default, and robots then take turns.
        seed: of all draws.

    Raises:
        UserError: nothing to draw from.
    """

    def __init__(
        self, feeds: Sequence[Feed], seed: int = 0, weights: Sequence[float] | None = None
    ) -> None:
        if not feeds:
            raise UserError("nothing to train on: give at least one kind of batch a batch size")
        for feed in feeds:
            if not len(feed.train):
                raise UserError(
                    f"all windows of {feed.windows.embodiment} are held out: lower train.validation"
                )
        self.feeds: Sequence[Feed] = list(feeds)
        self.seed = seed
        self.weights = None if weights is None else [float(w) for w in weights]
        self.kinds: list[list[int]] = []
        for blocks in dict.fromkeys(feed.source.blocks for feed in feeds):
            kind = [i for i, feed in enumerate(feeds) if feed.source.blocks == blocks]
            self.kinds.append(kind)

    def draw(self, step: int) -> Draw:
        """The same for the same step, whatever came before."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 4)
        feed = self.feeds[self._feed(step, generator)]
        return Draw(feed.windows, feed.draw(generator))

    def _feed(self, step: int, generator: torch.Generator) -> int:
        if self.weights is None:
            return step % len(self.feeds)
        kind = self.kinds[step % len(self.kinds)]
        weights = torch.tensor([self.weights[i] for i in kind])
        return kind[int(torch.multinomial(weights, 1, generator=generator))]

    def state_dict(self) -> dict[str, Any]:
        """Empty: a draw needs the seed and the step alone."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""
