"""Episodes to disk in LeRobot's three versions; what they hold is decided elsewhere.

``Writer`` brings frames to be encoded, ``convert`` pieces of files to be copied: ``open_video`` makes the
file that takes them. Everything is written into a folder beside its place and appears at once.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from . import lerobot
from .existing import Existing
from .lerobot import CHUNK_FILES, COUNTERS
from .stats import Collector, Numbers

_MB = 1024 * 1024


class VideoFile(Protocol):
    """A video that is being written; ``encode`` has both kinds."""

    @property
    def bytes(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    def accepts(self, piece: Any) -> bool: ...
    def write(self, piece: Any) -> None: ...
    def close(self) -> None: ...


OpenVideo = Callable[[str, Path], VideoFile]


@dataclass(frozen=True)
class Recorded:
    """One episode on its way to disk.

    Attributes:
        rows: its columns; those that count (``COUNTERS``) are written anew but for ``task_index``.
        tasks: its instructions, the first one first.
        videos: view -> what the video file takes.
        images: view -> statistics of its pixels.
        extras: further facts of the episode, the same keys each time.
    """

    rows: pa.Table
    tasks: Sequence[str]
    videos: Mapping[str, Any]
    images: Mapping[str, Numbers]
    extras: Mapping[str, Any] = field(default_factory=dict)


class Layout:
    """What the versions have in common: a folder that appears when it is whole, tasks, statistics.

    Args:
        root: folder to create; must not exist or be empty.
        version: "v2.0", "v2.1" or "v3.0".
        tasks: instructions that keep these numbers; others follow.
        existing: a dataset at ``root`` that the episodes are added to, else None.
    """

    def __init__(
        self,
        root: Path,
        version: str,
        open_video: OpenVideo,
        tasks: Sequence[str] = (),
        existing: Existing | None = None,
    ) -> None:
        self.root, self.version = Path(root), version
        taken = self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir()))
        if taken and existing is None:
            raise UserError(f"{self.root} exists already; choose a new folder or remove it")
        self.tasks = {task: i for i, task in enumerate(tasks)}
        self.rows = self.videos = 0
        self.episodes: list[dict[str, Any]] = []
        self._extras: set[str] = set()
        self._open_video = open_video
        self._collector = Collector()
        self._existing = existing
        if existing is not None:
            self.episodes, self.tasks, self.rows = existing.episodes, existing.tasks, existing.rows
            self._extras = existing.extras
            self.videos = len(existing.views) * len(self.episodes)
            for rows in existing.tables():
                self._collector.add_rows(rows)
            for view in existing.views:
                self._collector.add_images(view, existing.view_stats(view))
        self._before = len(self.episodes)
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix=f".{self.root.name}-", dir=self.root.parent))

    def add(self, episode: Recorded) -> int:
        """Write one episode; returns its number."""
        index, length = len(self.episodes), episode.rows.num_rows
        rows = self._number(episode)
        known = {"episode_index": index, "tasks": list(episode.tasks), "length": length}
        entry = {**known, **episode.extras}
        if self.episodes and episode.extras.keys() != self._extras:
            odd = ", ".join(sorted(episode.extras.keys() ^ self._extras))
            raise UserError(f"episode {index}: extras differ from those of episode 0 ({odd})")
        self._extras = set(episode.extras)
        self.episodes.append(entry)
        self._store(entry, rows, episode.videos, self._collector.add(rows, episode.images))
        self.rows += length
        self.videos += len(episode.videos)
        return index

    def close(self, robot_type: str, fps: float, features: Mapping[str, Any]) -> None:
        """Finish everything and let the dataset appear at ``root``; UserError if it is empty."""
        if len(self.episodes) == self._before:
            raise UserError(f"{self.root}: no episode was recorded, so no dataset is written")
        stats = self._collector.total()
        if self.version != "v3.0":
            stats = {key: _without(numbers, "q10", "q50", "q90") for key, numbers in stats.items()}
        lerobot.write_json(self.work / "meta/stats.json", stats)
        info = {
            "codebase_version": self.version,
            "robot_type": robot_type,
            "total_episodes": len(self.episodes),
            "total_frames": self.rows,
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNK_FILES,
            "fps": lerobot.whole(fps),
            "splits": {"train": f"0:{len(self.episodes)}"},
            **self._finish(self.videos > 0),
            "features": dict(features),
        }
        lerobot.write_json(self.work / "meta/info.json", info)
        if self._existing is not None:
            self._existing.publish(self.work)
            self.discard()
            return
        if self.root.exists():
            self.root.rmdir()
        self.work.chmod(0o755)
        self.work.rename(self.root)

    def discard(self) -> None:
        """Throw away what was written; ``root`` stays as it was."""
        shutil.rmtree(self.work, ignore_errors=True)
        if self._existing is not None:
            self._existing.close()
            self._existing = None

    def _number(self, episode: Recorded) -> pa.Table:
        """The rows with counters of their own; every other column stays as it is."""
        rows, length = episode.rows, episode.rows.num_rows
        steps = np.arange(length, dtype=np.int64)
        for task in episode.tasks:
            self.tasks.setdefault(task, len(self.tasks))
        first = self.tasks[episode.tasks[0]] if episode.tasks else 0
        values = {
            "frame_index": steps,
            "episode_index": np.full(length, len(self.episodes)),
            "index": self.rows + steps,
            "task_index": np.full(length, first),
        }
        for name in COUNTERS:
            column = pa.array(values[name], pa.int64())
            place = rows.schema.get_field_index(name)
            if place < 0:
                rows = rows.append_column(name, column)
            elif name != "task_index":
                rows = rows.set_column(place, name, column)
        return rows

    def _store(
        self,
        entry: dict[str, Any],
        rows: pa.Table,
        videos: Mapping[str, Any],
        stats: Mapping[str, Numbers],
    ) -> None:
        raise NotImplementedError

    def _finish(self, has_video: bool) -> dict[str, Any]:
        """Close what is open; returns what info.json says of the layout."""
        raise NotImplementedError


class OneFileEach(Layout):
    """v2.0 and v2.1: every episode has files of its own."""

    def __init__(
        self, root: Path, version: str, open_video: OpenVideo, tasks: Sequence[str] = ()
    ) -> None:
        super().__init__(root, version, open_video, tasks)
        self._stats: list[dict[str, Any]] = []

    def _store(
        self,
        entry: dict[str, Any],
        rows: pa.Table,
        videos: Mapping[str, Any],
        stats: Mapping[str, Numbers],
    ) -> None:
        index = entry["episode_index"]
        numbers = {"episode_index": index, "episode_chunk": index // CHUNK_FILES}
        path = self.work / lerobot.DATA_PATH_V2.format(**numbers)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path)
        for view, piece in videos.items():
            path = self.work / lerobot.VIDEO_PATH_V2.format(**numbers, video_key=view)
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._open_video(view, path)
            file.write(piece)
            file.close()
        plain = ("min", "max", "mean", "std", "count")
        kept = {
            key: {name: numbers[name] for name in plain if name in numbers}
            for key, numbers in stats.items()
        }
        self._stats.append({"episode_index": index, "stats": kept})

    def _finish(self, has_video: bool) -> dict[str, Any]:
        meta = self.work / "meta"
        tasks = [{"task_index": i, "task": task} for task, i in self.tasks.items()]
        lerobot.write_json_lines(meta / "tasks.jsonl", tasks)
        lerobot.write_json_lines(meta / "episodes.jsonl", self.episodes)
        if self.version == "v2.1":
            lerobot.write_json_lines(meta / "episodes_stats.jsonl", self._stats)
        return {
            "total_videos": self.videos,
            "total_chunks": (len(self.episodes) - 1) // CHUNK_FILES + 1,
            "data_path": lerobot.DATA_PATH_V2,
            "video_path": lerobot.VIDEO_PATH_V2 if has_video else None,
        }


class _Rolling:
    """The (chunk, file) pair that the next file gets, and the one that is open."""

    def __init__(self) -> None:
        self.chunk, self.file, self.bytes = 0, 0, 0
        self.open: Any = None

    def after(self, chunk: int, file: int) -> None:
        """Go on with the number after the last one that is there."""
        self.chunk, self.file = chunk, file
        self._count()

    def roll(self) -> None:
        """Finish the open file and go on to the next number."""
        if self.open is None:
            return
        self.open.close()
        self.open, self.bytes = None, 0
        self._count()

    def _count(self) -> None:
        self.file += 1
        if self.file == CHUNK_FILES:
            self.chunk, self.file = self.chunk + 1, 0

    @property
    def numbers(self) -> dict[str, int]:
        return {"chunk_index": self.chunk, "file_index": self.file}


class ManyAFile(Layout):
    """v3.0: files hold many episodes and begin anew at ``data_mb`` and ``video_mb``."""

    def __init__(
        self,
        root: Path,
        version: str,
        open_video: OpenVideo,
        tasks: Sequence[str] = (),
        existing: Existing | None = None,
        data_mb: float = 100,
        video_mb: float = 200,
    ) -> None:
        super().__init__(root, version, open_video, tasks, existing)
        self._limit = {"data": data_mb, "video": video_mb}
        self._data = _Rolling()
        self._video: dict[str, _Rolling] = {}
        if existing is not None:
            self._data.after(*existing.last_file("data"))
            for view in existing.views:
                self._video[view] = _Rolling()
                self._video[view].after(*existing.last_file(f"videos/{view}"))

    def _store(
        self,
        entry: dict[str, Any],
        rows: pa.Table,
        videos: Mapping[str, Any],
        stats: Mapping[str, Numbers],
    ) -> None:
        entry["meta/episodes/chunk_index"] = entry["meta/episodes/file_index"] = 0
        entry["dataset_from_index"] = self.rows
        entry["dataset_to_index"] = self.rows + rows.num_rows
        rolling = self._data
        # A file has one schema.
        other = rolling.open is not None and not rolling.open.schema.equals(rows.schema)
        if other or rolling.bytes + rows.nbytes > self._limit["data"] * _MB:
            rolling.roll()
        if rolling.open is None:
            path = self.work / lerobot.DATA_PATH.format(**rolling.numbers)
            path.parent.mkdir(parents=True, exist_ok=True)
            rolling.open = pq.ParquetWriter(path, rows.schema)
        rolling.open.write_table(rows)
        rolling.bytes += rows.nbytes
        entry |= {f"data/{name}": number for name, number in rolling.numbers.items()}
        for view, piece in videos.items():
            entry |= self._store_video(view, piece)
        entry |= {f"stats/{k}/{name}": v for k, own in stats.items() for name, v in own.items()}

    def _store_video(self, view: str, piece: Any) -> dict[str, Any]:
        rolling = self._video.setdefault(view, _Rolling())
        full = rolling.open is not None and rolling.open.bytes > self._limit["video"] * _MB
        if full or (rolling.open is not None and not rolling.open.accepts(piece)):
            rolling.roll()
        if rolling.open is None:
            name = lerobot.VIDEO_PATH.format(video_key=view, **rolling.numbers)
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            rolling.open = self._open_video(view, path)
        start = rolling.open.seconds
        rolling.open.write(piece)
        return {
            **{f"videos/{view}/{name}": number for name, number in rolling.numbers.items()},
            f"videos/{view}/from_timestamp": start,
            f"videos/{view}/to_timestamp": rolling.open.seconds,
        }

    def _finish(self, has_video: bool) -> dict[str, Any]:
        for rolling in (self._data, *self._video.values()):
            rolling.roll()
        lerobot.write_tasks(self.work / "meta/tasks.parquet", list(self.tasks))
        path = self.work / lerobot.EPISODES_PATH
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self.episodes), path)
        return {
            "data_files_size_in_mb": round(self._limit["data"]),
            "video_files_size_in_mb": round(self._limit["video"]),
            "data_path": lerobot.DATA_PATH,
            "video_path": lerobot.VIDEO_PATH if has_video else None,
        }


def layout(
    root: Path,
    version: str,
    open_video: OpenVideo,
    tasks: Sequence[str] = (),
    existing: Existing | None = None,
    **limits: float,
) -> Layout:
    """The layout of a version; ``limits`` are v3.0's ``data_mb`` and ``video_mb``."""
    if version not in lerobot.VERSIONS:
        raise UserError(f"version {version!r} cannot be written; {', '.join(lerobot.VERSIONS)} can")
    if version == "v3.0":
        return ManyAFile(root, version, open_video, tasks, existing, **limits)
    if existing is not None:
        raise UserError(f"{root}: only v3.0 datasets can be added to, not {version}")
    return OneFileEach(root, version, open_video, tasks)


def _without(numbers: Numbers, *names: str) -> Numbers:
    return {name: value for name, value in numbers.items() if name not in names}
