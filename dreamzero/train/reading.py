"""Where a training reads its windows: from memory, from the feature cache on disk, or from video.

All three give the same numbers bit for bit, so that they may change when a run is resumed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..data.canvas import Augmentation
from ..data.mixture import Windows
from ..data.recorded import DecodedWindows
from ..data.windows import WindowBatch, WindowDataset
from ..types import Batch
from .cache import CachedWindows, FeatureCache
from .config import TrainSettings
from .distributed import Processes
from .features import FeatureEncoder
from .latents import LatentWindows
from .trained import on_device

_GB = 10**9


class VideoWindows(DecodedWindows):
    """Windows that are decoded, then encoded, whenever they are asked for.

    Args:
        encoder: runs where its networks are, in the process that trains.
    """

    def __init__(
        self,
        windows: WindowDataset,
        encoder: FeatureEncoder,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache_mb: float = 512,
    ) -> None:
        super().__init__(windows, augmentation, seed, cache_mb)
        self.encoder = encoder

    def __getstate__(self) -> dict[str, object]:
        """For worker processes, which decode: without the networks."""
        return {k: v for k, v in self.__dict__.items() if k != "encoder"}

    def finish(self, read: WindowBatch) -> Batch:
        """See ``Windows``."""
        return self.encoder(read)

    def batch(self, index: Sequence[int] | Tensor) -> Batch:
        """See ``Windows``; not augmented."""
        return self.encoder(self.decode(index))


def open_windows(
    sets: Sequence[WindowDataset],
    encoder: FeatureEncoder,
    settings: TrainSettings,
    folder: Path,
    processes: Processes,
    progress: bool = True,
) -> list[Windows]:
    """All windows of a training, read as ``settings.reading`` says.

    Args:
        sets: windows of each robot and kind of batch.
        folder: of the feature cache; what it lacks is encoded first, unless video is read.
        processes: the first one encodes, the others wait.
    """
    bound = memory_bound(settings, processes.local)
    networks = [encoder.codec, encoder.image_encoder]
    if settings.reading == "video":
        for network in networks:
            if network is not None:
                network.to(processes.device)  # type: ignore[attr-defined]
        varied = Augmentation().scaled(settings.augment) if settings.augment else None
        each_mb = bound / max(1, settings.workers) / len(sets) / 2**20
        return [VideoWindows(each, encoder, varied, settings.seed, each_mb) for each in sets]
    cache = FeatureCache(folder)
    with on_device(networks, processes.device), processes.main_first():  # type: ignore[arg-type]
        cached = [cache.precompute(each, encoder, progress, settings.workers) for each in sets]
    fits = sum(windows.bytes for windows in cached) <= bound
    if settings.reading == "memory" or (settings.reading == "auto" and fits):
        return [in_memory(windows) for windows in cached]
    return list(cached)


def in_memory(cached: CachedWindows, size: int = 256) -> LatentWindows:
    """Everything read from the cache, so many windows at a time."""
    numbers = (range(i, min(i + size, len(cached))) for i in range(0, len(cached), size))
    return LatentWindows.collect(cached.windows, (cached.batch(n) for n in numbers))


def memory_bound(settings: TrainSettings, processes: int = 1) -> float:
    """Bytes that windows may take in each of so many processes of this machine."""
    return (settings.memory_gb * _GB or free_bytes() / 4) / processes


def free_bytes() -> float:
    """Memory of this machine that nobody uses, as the operating system counts."""
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return float(os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE"))
