"""Statistics that a dataset came with, against those of its rows.

Three files are looked at: stats.json (and v3.0's of the same name) over everything, each episode's in
episodes_stats.jsonl (v2.1) or the table of episodes (v3.0), and GEAR's relative ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..embodiments import Embodiment
from . import gear
from .lerobot import ACTION, STATE
from .reader import Dataset
from .stats import describe, published

_NUMBERS = ("min", "max", "mean", "std", "q01", "q99")
# Files hold float32 sums of thousands of rows.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Comparison:
    """One feature of one file.

    Attributes:
        file: where the published numbers are.
        feature: column or key.
        episode: its number, None for the whole dataset.
        deviation: largest difference as a share of the feature's range; nan where the dataset is not
            complete on disk, so that only the range can be compared.
        agrees: whether these are the statistics of the rows.
        text: for people.
    """

    file: str
    feature: str
    episode: int | None
    deviation: float
    agrees: bool
    text: str


def compare(dataset: Dataset, card: Embodiment | None = None) -> list[Comparison]:
    """Every file that is there against the rows; the card says which actions are relative."""
    total, each = published(dataset.root, dataset.version)
    complete = dataset.described == len(dataset.episodes)
    found = list(_of_total(dataset, total, complete))
    found += _of_episodes(dataset, each)
    if card is not None and dataset.gear.relative and complete and dataset.has_action:
        ours = gear.relative_statistics(dataset, card)
        for key, numbers in dataset.gear.relative.items():
            if key in ours:
                theirs = {n: getattr(numbers, n) for n in _NUMBERS}
                mine = {n: getattr(ours[key], n) for n in _NUMBERS}
                found.append(_judge("relative statistics", key, None, theirs, mine))
    return found


def _of_total(dataset: Dataset, total: Mapping[str, Any], complete: bool) -> Iterator[Comparison]:
    for key, kind in ((STATE, "state"), (ACTION, "action")):
        theirs = total.get(key)
        rows = [dataset.rows(e.index)[kind] for e in dataset.episodes]
        if not isinstance(theirs, dict) or not {"min", "max"} <= theirs.keys():
            continue
        if not rows[0].shape[1]:
            continue
        values = np.concatenate(rows)
        if complete:
            yield _judge("stats.json", key, None, theirs, describe(values))
            continue
        low, high = (np.ravel(theirs[n]).astype(float) for n in ("min", "max"))
        if len(low) != values.shape[1]:
            yield Comparison("stats.json", key, None, np.nan, False, "is of another width")
            continue
        slack = 1e-3 * np.maximum(high - low, 1e-6)
        outside = int(((values < low - slack) | (values > high + slack)).any(axis=1).sum())
        text = (
            "holds all rows on disk" if not outside else f"{outside} rows lie outside min and max"
        )
        yield Comparison("stats.json", key, None, np.nan, not outside, text)


def _of_episodes(dataset: Dataset, each: Mapping[int, Any]) -> Iterator[Comparison]:
    name = "episodes_stats.jsonl" if dataset.version != "v3.0" else "meta/episodes"
    for episode in dataset.episodes:
        for key, kind in ((STATE, "state"), (ACTION, "action")):
            theirs = each.get(episode.index, {}).get(key)
            values = dataset.rows(episode.index)[kind]
            if isinstance(theirs, dict) and values.shape[1]:
                yield _judge(name, key, episode.index, theirs, describe(values))


def _judge(
    file: str,
    feature: str,
    episode: int | None,
    theirs: Mapping[str, Any],
    ours: Mapping[str, Any],
) -> Comparison:
    low, high = (np.ravel(ours[n]).astype(float) for n in ("min", "max"))
    scale = np.maximum(np.maximum(high - low, np.abs(high)), 1e-6)
    worst, which = 0.0, ""
    for name in _NUMBERS:
        if name not in theirs:
            continue
        other = np.ravel(theirs[name]).astype(float)
        if other.shape != low.shape:
            return Comparison(file, feature, episode, np.inf, False, "is of another width")
        away = float((np.abs(other - np.ravel(ours[name])) / scale).max())
        if not away <= worst:
            worst, which = away, name
    agrees = worst <= _TOLERANCE
    text = "equal" if agrees else f"{which} differs by {worst:.2g} of the range"
    return Comparison(file, feature, episode, worst, agrees, text)
