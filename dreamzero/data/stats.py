"""Statistics as LeRobot's own files hold them: per feature, for each episode and over all of them.

Vectors are summed up exactly. Images are sub-sampled, as lerobot does it, and their totals are put
together from the episodes' numbers. ``normalize`` has what training scales by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import columns
from .encode import Frames

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
Numbers = dict[str, list[Any]]


def describe(values: np.ndarray) -> Numbers:
    """min, max, mean, std, quantiles and count of ``[t, d]``, in float64."""
    x = values.astype(np.float64)
    quantiles = np.quantile(x, list(QUANTILES.values()), axis=0)
    rows = {"min": x.min(0), "max": x.max(0), "mean": x.mean(0), "std": x.std(0)}
    rows |= dict(zip(QUANTILES, quantiles, strict=True))
    return {name: row.tolist() for name, row in rows.items()} | {"count": [len(x)]}


def describe_frames(frames: Frames) -> Numbers:
    """The same of uint8 ``[t, h, w, 3]``, per channel in [0, 1], as ``[3, 1, 1]``; some 4096 pixels."""
    size = frames.shape[1] * frames.shape[2]
    chosen = np.arange(0, len(frames) * size, max(len(frames) * size // 4096, 1))
    rows = chosen // size
    picked = [frames[int(i)].reshape(-1, 3)[chosen[rows == i] % size] for i in np.unique(rows)]
    pixels = np.concatenate(picked).astype(np.float64) / 255.0
    found = {
        name: [[[v]] for v in row] for name, row in describe(pixels).items() if name != "count"
    }
    return found | {"count": [len(frames)]}


def merge(parts: Sequence[Mapping[str, Any]]) -> Numbers:
    """Over several episodes; exact but for the quantiles, which become their weighted mean."""
    weight = np.array([float(np.ravel(p["count"])[0]) for p in parts])

    def stacked(name: str) -> np.ndarray:
        return np.stack([np.asarray(p[name], np.float64) for p in parts])

    def mean_of(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.tensordot(weight / weight.sum(), x, axes=1))

    mean = mean_of(stacked("mean"))
    variance = mean_of(stacked("std") ** 2 + (stacked("mean") - mean) ** 2)
    found = {"min": stacked("min").min(0), "max": stacked("max").max(0), "mean": mean}
    found["std"] = np.sqrt(variance)
    for name in QUANTILES:
        if all(name in p for p in parts):
            found[name] = mean_of(stacked(name))
    return {name: v.tolist() for name, v in found.items()} | {"count": [int(weight.sum())]}


class Collector:
    """Takes episodes one by one and knows the statistics of each and of all."""

    def __init__(self) -> None:
        self._vectors: dict[str, list[np.ndarray]] = {}
        self._images: dict[str, list[Numbers]] = {}

    def add(self, rows: pa.Table, images: Mapping[str, Numbers]) -> dict[str, Numbers]:
        """Take the rows of an episode and the statistics of its views; return all of them."""
        found = {name: describe(values) for name, values in self.add_rows(rows).items()}
        for view, numbers in images.items():
            self.add_images(view, [numbers])
        return {**found, **images}

    def add_rows(self, rows: pa.Table) -> dict[str, np.ndarray]:
        """Take rows, of any number of episodes; return their numeric columns, ``[t, d]`` each."""
        numeric = [name for name in rows.column_names if columns.is_numeric(rows.schema, name)]
        values = {name: columns.matrix(rows[name], Path(name)) for name in numeric}
        for name, own in values.items():
            self._vectors.setdefault(name, []).append(own)
        return values

    def add_images(self, view: str, numbers: Sequence[Numbers]) -> None:
        """Take the statistics of a view, an episode each."""
        self._images.setdefault(view, []).extend(numbers)

    def total(self) -> dict[str, Numbers]:
        """Over every episode so far."""
        vectors = {name: describe(np.concatenate(parts)) for name, parts in self._vectors.items()}
        return vectors | {view: merge(parts) for view, parts in self._images.items()}


def published(root: Path, version: str) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """Statistics that a dataset came with: (of everything, of each episode); {} where there are none."""
    total = _json(root / "meta/stats.json")
    each: dict[int, Any] = {}
    if version == "v3.0":
        for path in sorted((root / "meta/episodes").glob("*/*.parquet")):
            table = pq.read_table(path)
            names = [n for n in table.column_names if n.startswith("stats/")]
            for row in table.select(["episode_index", *names]).to_pylist():
                own: dict[str, Any] = {}
                for name in names:
                    feature, _, number = name.removeprefix("stats/").rpartition("/")
                    own.setdefault(feature, {})[number] = row[name]
                each[int(row["episode_index"])] = own
    elif (path := root / "meta/episodes_stats.jsonl").is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                each[int(row["episode_index"])] = row["stats"]
            except (ValueError, KeyError, TypeError):
                continue
    return total, each


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in data.items() if isinstance(v, dict)} if isinstance(data, dict) else {}
