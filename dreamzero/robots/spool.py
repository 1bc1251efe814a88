"""Pictures of a run, on disk until they become video: a minute of two cameras is gigabytes of memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np


class Spool:
    """Appends pictures to one file a view; the files have no name and vanish when it is closed.

    Args:
        folder: on whose disk; the system's own for such files may be memory.

    Attributes:
        due_s: when each was due, seconds since the first tick.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.due_s: list[float] = []
        self._files: dict[str, IO[bytes]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.due_s)

    def add(self, due_s: float, frames: Mapping[str, np.ndarray]) -> None:
        """Keep view -> uint8 ``[h, w, 3]``, of the same views and sizes each time."""
        for view, picture in frames.items():
            if view not in self._files:
                self._files[view] = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115
                self._shapes[view] = picture.shape
            self._files[view].write(np.ascontiguousarray(picture, np.uint8).data)
        self.due_s.append(due_s)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def clips(self, index: Sequence[int] | np.ndarray) -> dict[str, Shown]:
        """View -> the pictures of these numbers, one after the other."""
        found = {}
        for view, file in self._files.items():
            file.flush()
            shape = (len(self), *self._shapes[view])
            found[view] = Shown(np.memmap(file, np.uint8, "r", shape=shape), np.asarray(index))
        return found


class Shown:
    """uint8 ``[t, h, w, 3]`` that is read a picture at a time (a ``data.encode.Frames``)."""

    def __init__(self, pictures: np.ndarray, index: np.ndarray) -> None:
        self._pictures, self._index = pictures, index

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._pictures.shape[1:])

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int, /) -> np.ndarray:
        return np.asarray(self._pictures[self._index[number]])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))
