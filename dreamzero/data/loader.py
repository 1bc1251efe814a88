"""The steps of a training read in order, ahead of time, in worker processes or in this one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import data

from ..errors import UserError
from .mixture import BatchSource, Draw

# Rows of a batch of so many -> the places of those to read, piece by piece.
Cut = Callable[[int], Sequence[Sequence[int]]]


@dataclass
class Taken:
    """One step's rows.

    Attributes:
        draw: what all processes together see.
        places: the rows that were read, piece by piece.
        pieces: what ``Windows.read`` gave for each; empty where there is a problem.
        problem: why they could not be read.
    """

    draw: Draw
    places: Sequence[Sequence[int]]
    pieces: list[Any]
    problem: UserError | None = None


class Loader:
    """Reads what a source draws for each step.

    >>> loader = Loader(mixture, lambda rows: [range(rows)], workers=2)
    >>> loader.start(0, steps)
    >>> for step in range(steps):
    ...     taken = loader.take(step)
    ...     batch = taken.draw.windows.finish(taken.pieces[0])

    With "episodes" as its shuffle a source's step g belongs to lane g modulo ``mixture.LANES``, and so to
    one worker, where the number of workers divides that.

    Args:
        cut: which rows of a batch to read.
        workers: processes that read; 0 reads in this one, when asked.
        ahead: steps that each worker keeps ready.
    """

    def __init__(self, source: BatchSource, cut: Cut, workers: int = 0, ahead: int = 2) -> None:
        self._steps, self._workers, self._ahead = _Steps(source, cut), workers, ahead
        self._coming: Iterator[tuple[int, Any]] | None = None

    def start(self, step: int, stop: int) -> None:
        """Begin to read steps ``step`` to ``stop - 1``; they have to be taken in this order."""
        self.close()
        if self._workers and step < stop:
            # A generator of its own: the global one belongs to the training.
            loader = data.DataLoader(
                self._steps,
                sampler=range(step, stop),
                batch_size=None,
                num_workers=self._workers,
                prefetch_factor=self._ahead,
                worker_init_fn=_deaf,
                generator=torch.Generator().manual_seed(0),
            )
            self._coming = iter(loader)

    def take(self, step: int) -> Taken:
        """A step's rows; what cannot be read stands in it, since processes have to stop together."""
        draw = self._steps.source.draw(step)
        try:
            if self._coming is None:
                found, read = self._steps[step]
            else:
                found, read = next(self._coming)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            found, read = (
                step,
                UserError(
                    "a process that reads ended (killed for its memory?): try fewer train.workers or a "
                    "smaller train.memory_gb"
                ),
            )
        assert found == step, f"step {step} was asked for, step {found} is the next"
        if isinstance(read, UserError):
            return Taken(draw, [], [], read)
        places, pieces = read
        return Taken(draw, places, pieces)

    def close(self) -> None:
        """End the workers."""
        self._coming = None


class _Steps(data.Dataset[tuple[int, Any]]):
    def __init__(self, source: BatchSource, cut: Cut) -> None:
        self.source, self.cut = source, cut

    def __getitem__(self, step: int) -> tuple[int, Any]:
        draw = self.source.draw(step)
        try:
            places = self.cut(len(draw.index))
            return step, (places, [draw.windows.read(draw, piece) for piece in places])
        except UserError as error:  # torch would bury it in a traceback
            return step, error


def _deaf(worker: int) -> None:
    """Leave signals to the training, which ends its workers when it has written a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
