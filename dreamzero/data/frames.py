"""Decoded frames kept in memory, the episodes used last first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np

_MB = 1024 * 1024


class FrameCache:
    """Frames by (view of an episode, row), dropped a view at a time when they outgrow their budget.

    Attributes:
        decoded, asked: frames so far that had to be decoded, and that were asked for.
    """

    def __init__(self, budget_mb: float = 512) -> None:
        self.budget_mb = budget_mb
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, dict[int, np.ndarray]] = OrderedDict()
        self._bytes = 0
        self.decoded = self.asked = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.budget_mb,))

    def read(
        self,
        key: Hashable,
        rows: np.ndarray,
        decode: Callable[[np.ndarray], Iterable[np.ndarray]],
    ) -> np.ndarray:
        """Frames ``[n, h, w, 3]`` for ``rows``.

        Args:
            key: view and episode.
            rows: which of its frames, in any order, repeats allowed.
            decode: given those that are missing, in order, yields their frames in pieces.
        """
        with self._lock:
            own = self._kept.pop(key, {})
            self._kept[key] = own
            missing = np.array([r for r in np.unique(rows) if int(r) not in own], dtype=np.int64)
            at = 0
            for piece in decode(missing) if len(missing) else ():
                for frame in piece:
                    own[int(missing[at])] = frame
                    self._bytes += frame.nbytes
                    at += 1
            self.decoded += len(missing)
            self.asked += len(rows)
            found = np.stack([own[int(r)] for r in rows])
            while self._bytes > self.budget_mb * _MB and self._kept:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= sum(frame.nbytes for frame in oldest.values())
            return found
