"""The windows of recordings as a training asks for them (``mixture.Windows``), read from their video."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .canvas import Augmentation
from .mixture import EPISODES, Draw
from .windows import WindowBatch, WindowDataset


class RecordedWindows:
    """What all windows of recordings are asked about, wherever their video is read from.

    Attributes:
        windows: where actions, states and prompts come from.
        episode, has_action, prompts, embodiment: see ``mixture.Windows``.
    """

    def __init__(self, windows: WindowDataset) -> None:
        self.windows = windows
        shards = [windows.shard(i) for i in range(len(windows))]
        own = dict.fromkeys(shards)
        acts = torch.tensor([windows.acts(i) for i in range(len(windows.datasets))])
        self.episode = torch.tensor([EPISODES * which + episode for which, episode in shards])
        self.has_action = acts[self.episode // EPISODES]
        self.prompts = sorted({windows.instruction(shard) for shard in own})
        self.embodiment = windows.card.name

    def __len__(self) -> int:
        return len(self.windows)

    def where(self, index: int) -> str:
        """Recording, episode and frame of a window, for people."""
        which, episode = self.windows.shard(index)
        root = self.windows.datasets[which].root
        return f"{root}, episode {episode}, frame {self.windows.start_row(index)}"


class DecodedWindows(RecordedWindows):
    """Windows decoded from video whenever they are asked for.

    Where windows come by episode, all that those of an episode show is decoded at its first window,
    from front to back, and kept as long as it fits.

    Args:
        windows: of which a copy is used, with decoded frames of its own.
        augmentation: varies the video of what is drawn, each time in another way; None: not.
        seed: of the augmentation.
        cache_mb: decoded frames kept in each process.
    """

    def __init__(
        self,
        windows: WindowDataset,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache_mb: float = 512,
    ) -> None:
        super().__init__(windows)
        self.drawn = windows.variant(augmentation, seed, cache_mb)
        self.plain = self.drawn if augmentation is None else windows.variant(cache_mb=64)
        self._own: dict[tuple[int, int], list[int]] = {}
        for i in range(len(windows)):
            self._own.setdefault(windows.shard(i), []).append(i)
        self._visited: dict[tuple[int, int], int] = {}

    def read(self, draw: Draw, places: Sequence[int]) -> WindowBatch:
        """See ``Windows``."""
        places = list(places)
        index = draw.index[places].tolist()
        if draw.visits is not None:
            self._warm(index, draw.visits[places].tolist())
        return self.drawn.batch(index, draw.numbers(places))

    def decode(self, index: Sequence[int] | torch.Tensor) -> WindowBatch:
        """The windows of these numbers, as they were recorded."""
        return self.plain.batch([int(i) for i in index])

    def _warm(self, index: Sequence[int], visits: Sequence[int]) -> None:
        for i, visit in zip(index, visits, strict=True):
            shard = self.drawn.shard(i)
            # Once a visit: frames that did not fit are decoded as they are needed, not all of them again.
            if visit >= 0 and self._visited.get(shard) != visit:
                self._visited[shard] = visit
                self.drawn.warm(shard, self._own[shard])
