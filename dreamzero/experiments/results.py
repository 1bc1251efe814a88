"""Cells read back: pooled over training seeds, set against each other in the same scenes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import UserError
from ..evaluate.statistics import Contrast, Rate, mean_interval, paired_bootstrap, wilson
from .cells import Cell

FILE = "cells.json"
Measure = Literal["success", "progress"]


@dataclass
class Result:
    """What one method did with all its training seeds.

    Attributes:
        cell: of its first seed.
        outcomes: "robot/suite" -> seed -> success of each scene (0 or 1).
        progress: the same of partial credit.
        seconds: of training, wall clock, by seed.
    """

    cell: Mapping[str, Any]
    outcomes: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    progress: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        return sorted({s for by_seed in self.outcomes.values() for s in by_seed})

    def pooled(
        self, places: Sequence[str], seeds: Sequence[int] | None = None, of: Measure = "success"
    ) -> np.ndarray:
        """Success or progress ``[training seeds, scenes]`` over some "robot/suite".

        Args:
            seeds: of training; None: all.
        """
        values = self.outcomes if of == "success" else self.progress
        chosen = self.seeds if seeds is None else seeds
        rows = [np.concatenate([np.asarray(values[p][s]) for p in places]) for s in chosen]
        return np.stack(rows).astype(np.float64)

    def success(self, *places: str) -> Rate:
        """Of all scenes and seeds together, with Wilson's interval."""
        found = self.pooled(places)
        return wilson(int(found.sum()), found.size)

    def mean_progress(self, *places: str) -> Rate:
        """Partial credit over all scenes and seeds, with a normal interval."""
        return mean_interval(self.pooled(places, of="progress").ravel().tolist(), (0.0, 1.0))

    def by_seed(self, *places: str) -> list[float]:
        """Success of each training seed: what another training would have changed."""
        return [float(x) for x in self.pooled(places).mean(axis=1)]


class Results:
    """All results of a grid, by "group/method".

    Args:
        found: results as the runner writes them (``cells/NAME.json``).
    """

    def __init__(self, found: Iterable[Mapping[str, Any]]) -> None:
        self.methods: dict[str, Result] = {}
        for item in found:
            cell = Cell(**item["cell"])
            result = self.methods.setdefault(f"{cell.group}/{cell.method}", Result(item["cell"]))
            if "training_seconds" in item:
                result.seconds[cell.seed] = item["training_seconds"]
            for place, outcome in item["outcomes"].items():
                result.outcomes.setdefault(place, {})[cell.seed] = outcome["success"]
                result.progress.setdefault(place, {})[cell.seed] = outcome["progress"]

    @classmethod
    def read(cls, path: Path | str) -> Results:
        """From a work folder, or from the one file of a report.

        Raises:
            UserError: there is nothing.
        """
        path = Path(path)
        if path.is_file():
            return cls(json.loads(path.read_text(encoding="utf-8")))
        return cls(_found(path))

    def __getitem__(self, name: str) -> Result:
        if name not in self.methods:
            raise UserError(f"no result {name!r}; there are {', '.join(sorted(self.methods))}")
        return self.methods[name]

    def contrast(self, a: str, b: str, *places: str, of: Measure = "success") -> Contrast:
        """How much better a is than b in the same scenes, of the training seeds that both have."""
        seeds = [seed for seed in self[a].seeds if seed in self[b].seeds]
        rows = [self[name].pooled(places, seeds, of) for name in (a, b)]
        return paired_bootstrap(rows[0], rows[1])

    def table(self) -> list[dict[str, Any]]:
        """A row for each method and place: cell, where, rate (``Rate``), seeds (success of each)."""
        return [
            {"cell": name, "where": place, "rate": result.success(place),
             "seeds": result.by_seed(place)}
            for name, result in sorted(self.methods.items())
            for place in result.outcomes
        ]  # fmt: skip


def join(folder: Path, out: Path) -> Path:
    """All results of a work folder as one file, a line a cell, for a report.

    Cells that ``out`` holds already and the work folder does not are kept.
    """
    found = by_name(out) if (out / FILE).is_file() else {}
    found |= {item["cell"]["name"]: item for item in _found(folder)}
    out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(found[name], separators=(",", ":")) for name in sorted(found))
    partial = out / f"{FILE}.partial"
    partial.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return partial.replace(out / FILE)


def by_name(folder: Path) -> dict[str, dict[str, Any]]:
    """What ``join`` wrote to a folder, by the cells' names; nothing where it did not."""
    path = folder / FILE
    if not path.is_file():
        return {}
    return {item["cell"]["name"]: item for item in json.loads(path.read_text(encoding="utf-8"))}


def _found(folder: Path) -> list[dict[str, Any]]:
    """Results of a work folder, as the runner wrote them; UserError if there is none."""
    paths = sorted((folder / "cells").glob("*/*.json"))
    if not paths:
        raise UserError(f"{folder} holds no results: run `dreamzero experiment run` first")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
