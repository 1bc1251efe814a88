"""A LeRobot v3.0 dataset that more episodes are to be added to (``Writer(append=True)``)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from . import meta
from .lerobot import EPISODES_PATH
from .stats import QUANTILES, Numbers

INFO_PATH, STATS_PATH, TASKS_PATH = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
_STATS = (*QUANTILES, "min", "max", "mean", "std", "count")
# Columns of the episode table that every dataset has; others are the episodes' own.
_KNOWN = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")
_GROUPS = ("data/", "videos/", "meta/", "stats/")


class Existing:
    """What is there already. Nobody else can append before ``close``.

    Args:
        root: a dataset that ``Writer`` wrote.
        description: ``robot_type``, ``fps`` and ``features`` as the new episodes would have them.

    Attributes:
        episodes: rows of the episode table.
        tasks: text -> number.
        rows: in all episodes together.
        views: that are recorded.

    Raises:
        UserError: it is of another robot, rate or shape, is damaged, or is being appended to.
    """

    def __init__(self, root: Path, description: Mapping[str, Any]) -> None:
        self.root = root
        self._lock = os.open(root, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load(description)
        except BlockingIOError:
            os.close(self._lock)
            raise UserError(f"{root}: another program is recording into it") from None
        except BaseException:
            os.close(self._lock)
            raise

    def last_file(self, place: str) -> tuple[int, int]:
        """(chunk, file) of the last file at ``place``: "data" or "videos/<view>"."""
        names = (f"{place}/chunk_index", f"{place}/file_index")
        chunk, file = max(tuple(episode[name] for name in names) for episode in self.episodes)
        return chunk, file

    @property
    def extras(self) -> set[str]:
        """Names of what the episodes say of themselves."""
        first = self.episodes[0]
        return {k for k in first if k not in _KNOWN and not k.startswith(_GROUPS)}

    def tables(self) -> Iterator[pa.Table]:
        """The rows, a table a file."""
        for path in self._files:
            yield pq.read_table(path)

    def view_stats(self, view: str) -> list[Numbers]:
        """Statistics of a view, an episode each."""
        return [{name: e[f"stats/{view}/{name}"] for name in _STATS} for e in self.episodes]

    def pixel_format(self, view: str) -> str:
        return str(self._info["features"][view]["info"]["video.pix_fmt"])

    def publish(self, work: Path) -> None:
        """Move the files of ``work`` in: first what is new, then the tables that name it.

        Whoever reads meanwhile, or after a crash in the middle, finds the old episodes or all of them.
        """
        tables = [TASKS_PATH, STATS_PATH, EPISODES_PATH, INFO_PATH]
        files = [str(p.relative_to(work)) for p in sorted(work.rglob("*")) if p.is_file()]
        for name in (*(n for n in files if n not in tables), *tables):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(work / name, self.root / name)

    def close(self) -> None:
        """Let others append. Safe to call once."""
        os.close(self._lock)

    def _load(self, description: Mapping[str, Any]) -> None:
        there = meta.load(self.root)
        self._info = there.info
        for what, of in (("robot", _robot), ("rate", _rate), ("columns", _columns)):
            old, new = of(there.info), of(description)
            if old != new:
                raise UserError(
                    f"{self.root} has other {what}: {old} there, {new} now; record elsewhere"
                )
        tables = sorted((self.root / "meta/episodes").glob("*/*.parquet"))
        if there.version != "v3.0" or tables != [self.root / EPISODES_PATH] or there.notes:
            raise UserError(
                f"{self.root} was not written here, or is not whole ('dreamzero data check' says "
                "more): record elsewhere"
            )
        self.episodes: list[dict[str, Any]] = pq.read_table(tables[0]).to_pylist()
        self.tasks = {text: number for number, text in sorted(there.tasks.items())}
        self.rows = sum(episode.length for episode in there.episodes)
        self.views = there.views
        self._files = sorted({episode.data for episode in there.episodes})


def _robot(info: Mapping[str, Any]) -> str:
    return str(info.get("robot_type"))


def _rate(info: Mapping[str, Any]) -> str:
    return f"{float(info['fps']):g} fps"


def _columns(info: Mapping[str, Any]) -> list[str]:
    """Kind, size and names of every column, in words."""
    features = info["features"].items()
    return sorted(f"{k} {f['dtype']} {list(f['shape'])} {f.get('names')}" for k, f in features)
