"""Batches in the order of a mixture, decoded ahead in worker processes, resumable at the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils import data

from ..errors import UserError
from .mixture import Draw, Mixture
from .windows import WindowBatch, WindowDataset


class Source(Protocol):
    """What turns a draw into a batch; windows of video (``VideoSource``) or of cached features."""

    def fetch(self, draw: Draw) -> Any: ...


class VideoSource:
    """Batches decoded from video.

    Args:
        windows: what the mixture's part was made of; its ``cache_mb`` has to hold the episodes that a
            worker's lanes keep open, or frames are decoded several times.
    """

    def __init__(self, windows: WindowDataset) -> None:
        self.windows = windows

    def fetch(self, draw: Draw) -> WindowBatch:
        """The draw's windows; newly opened episodes are decoded once, from front to back."""
        for own in draw.opened:
            self.windows.warm(self.windows.shard(own[0]), own)
        return self.windows.batch(draw.indices, draw.epochs)


class _Fetch(data.Dataset[tuple[int, Any]]):
    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    def __getitem__(self, draw: Any) -> tuple[int, Any]:
        return draw.part, self.sources[draw.part].fetch(draw)


class _Draws(data.Sampler[Draw]):
    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def __iter__(self) -> Iterator[Draw]:
        # A copy: batches are drawn ahead of those that were handed out.
        return self.mixture.copy()


class Loader:
    """An endless iterator over (part, batch).

    >>> loader = Loader(Mixture([Part.of(windows, batch=16)]), [VideoSource(windows)], workers=1)
    >>> part, batch = next(loader)
    >>> state = loader.state_dict()        # goes on with the batch after this one

    Args:
        mixture: the order; it is at the batches handed out, however many were loaded ahead.
        sources: one for each of its parts.
        workers: processes that load; 0 loads in this one, when asked.
        ahead: batches that each worker keeps ready.
        pin: put batches into memory that copies to a GPU faster.

    Raises:
        UserError: sources and parts do not match, or lanes do not divide among the workers.
    """

    def __init__(
        self,
        mixture: Mixture,
        sources: Sequence[Source],
        workers: int = 0,
        ahead: int = 2,
        pin: bool = False,
    ) -> None:
        if len(sources) != len(mixture.parts):
            raise UserError(f"{len(mixture.parts)} parts need as many sources, got {len(sources)}")
        if workers and mixture.lanes // mixture.world % workers:
            raise UserError(
                f"{mixture.lanes // mixture.world} lanes do not divide among {workers} workers"
            )
        self.mixture, self.sources = mixture, list(sources)
        # A generator of its own: the global one belongs to the training.
        self._options: dict[str, Any] = {
            "num_workers": workers,
            "pin_memory": pin,
            "generator": torch.Generator().manual_seed(mixture.seed),
        }
        if workers:
            self._options["prefetch_factor"] = ahead
        self._batches: Iterator[tuple[int, Any]] | None = None

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return self

    def __next__(self) -> tuple[int, Any]:
        if self._batches is None:
            self._batches = iter(
                data.DataLoader(
                    _Fetch(self.sources),
                    sampler=_Draws(self.mixture),
                    batch_size=None,
                    **self._options,
                )
            )
        batch = next(self._batches)
        next(self.mixture)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where the mixture stands after the last batch handed out."""
        return self.mixture.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; what was loaded ahead is dropped."""
        self.close()
        self.mixture.load_state_dict(state)

    def close(self) -> None:
        """End the workers."""
        self._batches = None
