"""What notebook 00 measures: the dream against what then happened, and what is known of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dreamzero import shipped
from dreamzero.data.canvas import compose
from dreamzero.embodiments import Embodiment
from dreamzero.evaluate.statistics import Rate
from dreamzero.report import record

if TYPE_CHECKING:
    from dreamzero.evaluate import Episode
    from dreamzero.robots import RunLog


@dataclass(frozen=True)
class Dream:
    """What happened and what was dreamed at the same instants, uint8 ``[1 + n * frames a block, H,
    W, 3]`` each; frame 0 is the observed one in both. Every block is dreamed from what was observed
    up to its start."""

    truth: np.ndarray
    dreamed: np.ndarray

    @property
    def side_by_side(self) -> np.ndarray:
        """Truth left, dream right, with a white gap."""
        gap = np.full((*self.truth.shape[:2], 2, 3), 255, np.uint8)
        return np.concatenate([self.truth, gap, self.dreamed], axis=2)


def dream(log: RunLog, card: Embodiment) -> Dream:
    """The dream of one run (of a policy with ``dream=True``) beside its frames on the canvas."""
    blocks = [chunk.video for chunk in log.chunks if chunk.video is not None]
    truth = compose([log.frames[view] for view in card.views], card.layout, card.canvas_px)
    dreamed = np.concatenate([truth[:1], *blocks])
    n = min(len(truth), len(dreamed))
    return Dream(truth[:n], dreamed[:n])


@dataclass(frozen=True)
class Foresight:
    """How near the last frames of the dreamed blocks come to what happened.

    Attributes:
        dreamed_db: peak signal-to-noise ratio of the dream, all blocks taken together.
        still_db: that of the claim that nothing moves (the last observed frame).
        share: part of the squared change that was foreseen: 1 is all, 0 no more than a still.
        blocks: how many were compared.
    """

    dreamed_db: float
    still_db: float
    share: float
    blocks: int


def foresight(episodes: Sequence[Episode], frames_per_block: int) -> Foresight:
    """Compare the last frame of every dreamed block with the observed one.

    Raises:
        ValueError: no episode kept its video and its dream.
    """

    def squared(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2))

    dreamed, still = [], []
    for episode in episodes:
        if episode.video is None or episode.dreamed is None:
            continue
        for end in range(frames_per_block, len(episode.video), frames_per_block):
            truth = episode.video[end]
            dreamed.append(squared(episode.dreamed[end - 1], truth))
            still.append(squared(episode.video[end - frames_per_block], truth))
    if not dreamed:
        raise ValueError("no episode has both its video and its dream")
    errors = max(float(np.mean(dreamed)), 1e-9), max(float(np.mean(still)), 1e-9)
    decibel = [10 * float(np.log10(255.0**2 / error)) for error in errors]
    return Foresight(decibel[0], decibel[1], 1.0 - errors[0] / errors[1], len(dreamed))


def committed(model: str) -> dict[str, Rate]:
    """Success a suite from the model's own ``metrics.json``; empty where it has none."""
    folder: Path = shipped.find(model)
    if not (folder / record.FILE_NAME).is_file():
        return {}
    rates = {}
    for name, metric in record.load(folder).metrics.items():
        suite, _, what = name.partition("/")
        if what == "success" and None not in (metric.value, metric.low, metric.high, metric.n):
            rates[suite] = Rate(metric.value, metric.low, metric.high, metric.n)  # type: ignore[arg-type]
    return rates


def bars(rates: dict[str, Rate]) -> list[tuple[str, float, float, float, str]]:
    """Rows for ``style.interval_bars``."""
    return [(name, r.value, r.low, r.high, f"n = {r.n}") for name, r in rates.items()]
