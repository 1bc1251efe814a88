"""Recording LeRobot v3.0: many episodes a file, rows in parquet, views in MP4.

The layout is the published one (https://huggingface.co/docs/lerobot/lerobot-dataset-v3), so that lerobot
itself reads what is written here:

    meta/info.json  meta/stats.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet  videos/<view>/chunk-000/file-000.mp4
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from . import lerobot
from .existing import Existing
from .lerobot import (
    ACTION,
    CHUNK_FILES,
    DATA_PATH,
    EPISODES_PATH,
    INFO_PATH,
    STATE,
    STATS_PATH,
    TASKS_PATH,
    VIDEO_PATH,
    Moments,
    sample_pixels,
)
from .video import Encoder

_MB = 1024 * 1024


class _Rolling:
    """The (chunk, file) pair that the next file gets, and how full the present one is."""

    def __init__(self) -> None:
        self.chunk, self.file = 0, 0
        self.open: Any = None

    def roll(self) -> None:
        self.file += 1
        if self.file == CHUNK_FILES:
            self.chunk, self.file = self.chunk + 1, 0
        self.open = None


class Writer:
    """Writes a LeRobot v3.0 dataset; nothing is visible at ``root`` before ``close``.

    With ``append`` episodes are added to a dataset of this writer: they come in files of their own, and the
    tables that name them are replaced at the end one by one, so that a reader finds the old episodes
    or all of them at any time.

    Args:
        root: folder to create; must not exist or be empty.
        fps: rows and frames per second.
        robot_type: what moved ("so101"), kept in info.json.
        views: feature name ("observation.images.front") -> (height, width) in pixels.
        state_names, action_names: one name a dimension, or None where there is no such column.
        data_mb, video_mb: size at which the next data or video file is begun.
        append: go on with the dataset at ``root`` if there is one.

    Raises:
        UserError: ``root`` is taken, or an episode does not fit what was announced here. With
            ``append``: the dataset there is another robot's, or somebody else is appending to it.

    Use it as a context manager: leaving with an exception discards everything.
    """

    def __init__(
        self,
        root: Path,
        fps: float,
        robot_type: str,
        views: Mapping[str, tuple[int, int]],
        state_names: list[str] | None,
        action_names: list[str] | None,
        *,
        data_mb: float = 100,
        video_mb: float = 200,
        append: bool = False,
    ) -> None:
        self.root = Path(root)
        old = append and (self.root / INFO_PATH).is_file()
        if not old and self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
            raise UserError(f"{self.root} exists already; choose a new folder or remove it")
        if not fps > 0:
            raise UserError(f"fps is {fps}; a dataset needs a rate above 0")
        self.fps, self.robot_type = fps, robot_type
        self.views = dict(views)
        self.names = {
            key: list(names)
            for key, names in ((STATE, state_names), (ACTION, action_names))
            if names
        }
        self._limit = {"data": data_mb * _MB, "video": video_mb * _MB}
        self._data = _Rolling()
        self._data_bytes = 0
        self._video = {view: _Rolling() for view in self.views}
        self._stats = {k: Moments(image=k in self.views) for k in (*self.views, *self.names)}
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._rows = self._first_row = 0
        self._pixel_formats: dict[str, str] = {}
        self._closed = False
        self._existing: Existing | None = None
        if old:
            self._take_up()
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self._work = Path(tempfile.mkdtemp(prefix=f".{self.root.name}.", dir=self.root.parent))

    def add_episode(
        self,
        frames: Mapping[str, np.ndarray],
        state: np.ndarray | None,
        action: np.ndarray | None,
        task: str,
        extras: Mapping[str, int | float | str | bool | None] | None = None,
    ) -> int:
        """Append one episode; row i of every argument belongs to time i / fps.

        Args:
            frames: view -> uint8 ``[t, h, w, 3]`` RGB.
            state, action: float ``[t, s]`` and ``[t, a]`` in SI units, or None where not recorded.
            task: the instruction.
            extras: further columns of the episode table (seed, success ...), the same keys each time.

        Returns:
            The episode's index.
        """
        length = self._validate(frames, {STATE: state, ACTION: action})
        vectors = {
            key: np.asarray(value, dtype=np.float32)
            for key, value in ((STATE, state), (ACTION, action))
            if value is not None
        }
        index = len(self._episodes)
        task_index = self._tasks.setdefault(task, len(self._tasks))
        entry: dict[str, Any] = {
            "episode_index": index,
            "tasks": [task],
            "length": length,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            "dataset_from_index": self._rows,
            "dataset_to_index": self._rows + length,
        }
        entry |= self._write_rows(vectors, index, task_index, length)
        stats: dict[str, dict[str, list[Any]]] = {}
        for view, clip in frames.items():
            entry |= self._write_video(view, clip)
            stats[view] = self._stats[view].add(sample_pixels(clip))
        for key, values in vectors.items():
            stats[key] = self._stats[key].add(values.astype(np.float64))
        entry |= {f"stats/{k}/{name}": v for k, rows in stats.items() for name, v in rows.items()}
        entry |= dict(extras or {})
        if self._episodes and entry.keys() != self._episodes[0].keys():
            odd = ", ".join(sorted(entry.keys() ^ self._episodes[0].keys()))
            raise UserError(f"episode {index}: extras differ from those of episode 0 ({odd})")
        self._episodes.append(entry)
        self._rows += length
        return index

    def attach(self, name: str, text: str) -> None:
        """Put a file of one's own, a path inside the dataset, beside its files; meta is not the place."""
        path = self._work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Finish all files and let the dataset appear at ``root``; UserError if it has no episode."""
        if self._closed:
            return
        if self._rows == self._first_row:
            self.discard()
            raise UserError(f"{self.root}: no episode was recorded, so no dataset is written")
        try:
            self._finish()
        except BaseException:
            self.discard()
            raise

    def _finish(self) -> None:
        for rolling in (self._data, *self._video.values()):
            if rolling.open is not None:
                rolling.open.close()
        stats = {key: moments.total() for key, moments in self._stats.items()}
        lerobot.write_json(self._work / STATS_PATH, stats)
        info = lerobot.describe(
            self.fps, self.robot_type, self.views, self._pixel_formats, self.names
        )
        info |= {
            "total_episodes": len(self._episodes),
            "total_frames": self._rows,
            "total_tasks": len(self._tasks),
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_files_size_in_mb": round(self._limit["data"] / _MB),
            "video_files_size_in_mb": round(self._limit["video"] / _MB),
        }
        lerobot.write_json(self._work / INFO_PATH, info)
        lerobot.write_tasks(self._work / TASKS_PATH, list(self._tasks))
        path = self._work / EPISODES_PATH
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), path)
        if self._existing is not None:
            self._existing.publish(self._work)
            self.discard()
            return
        if self.root.exists():
            self.root.rmdir()
        self._work.chmod(0o755)
        self._work.rename(self.root)
        self._closed = True

    def discard(self) -> None:
        """Throw away what was written; ``root`` stays as it was."""
        self._closed = True
        shutil.rmtree(self._work, ignore_errors=True)
        if self._existing is not None:
            self._existing.close()
            self._existing = None

    def _take_up(self) -> None:
        """Go on where the dataset at ``root`` ends."""
        shape = (self.fps, self.robot_type, self.views, dict.fromkeys(self.views, ""), self.names)
        old = self._existing = Existing(self.root, lerobot.describe(*shape))
        self._episodes, self._tasks = old.episodes, old.tasks
        self._rows = self._first_row = old.rows
        places = {"data": self._data} | {f"videos/{view}": r for view, r in self._video.items()}
        for place, rolling in places.items():
            rolling.chunk, rolling.file = old.last_file(place)
            rolling.roll()
        # Vectors are read again, so that their quantiles stay exact; pictures are not.
        for key, values in old.vectors():
            self._stats[key].add(values)
        for view in self.views:
            self._stats[view].resume(old.view_stats(view))
            self._pixel_formats[view] = old.pixel_format(view)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _validate(
        self, frames: Mapping[str, np.ndarray], vectors: Mapping[str, np.ndarray | None]
    ) -> int:
        if self._closed:
            raise UserError(f"{self.root} is closed; open a new Writer to record more")
        if frames.keys() != self.views.keys():
            raise UserError(
                f"episode has views {sorted(frames)}; announced were {sorted(self.views)}"
            )
        lengths = {view: len(clip) for view, clip in frames.items()}
        for view, clip in frames.items():
            if clip.dtype != np.uint8 or clip.shape[1:] != (*self.views[view], 3):
                raise UserError(
                    f"{view} is {clip.dtype} {clip.shape}; announced was uint8 "
                    f"[t, {self.views[view][0]}, {self.views[view][1]}, 3]"
                )
        for key, value in vectors.items():
            width = len(self.names.get(key, ()))
            got = 0 if value is None else np.asarray(value).reshape(len(value), -1).shape[1]
            if got != width:
                raise UserError(f"{key} has {got} dimensions; announced were {width}")
            if value is not None:
                lengths[key] = len(value)
                if not np.isfinite(value).all():
                    raise UserError(
                        f"{key} holds NaN or infinity; only finite rows can be recorded"
                    )
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise UserError(f"an episode needs equally many rows everywhere, at least 1: {lengths}")
        return next(iter(lengths.values()))

    def _write_rows(
        self, vectors: Mapping[str, np.ndarray], episode: int, task: int, length: int
    ) -> dict[str, int]:
        columns: dict[str, pa.Array] = {}
        for key, values in vectors.items():
            flat = pa.array(np.ascontiguousarray(values).reshape(-1), type=pa.float32())
            width = values.shape[1] if values.ndim > 1 else 1
            # lerobot stores a vector of width one as a plain number.
            columns[key] = flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
        steps = np.arange(length, dtype=np.int64)
        columns["timestamp"] = pa.array((steps / self.fps).astype(np.float32))
        columns["frame_index"] = pa.array(steps)
        columns["episode_index"] = pa.array(np.full(length, episode, dtype=np.int64))
        columns["index"] = pa.array(self._rows + steps)
        columns["task_index"] = pa.array(np.full(length, task, dtype=np.int64))
        table = pa.table(columns)
        rolling = self._data
        if rolling.open is not None and self._data_bytes + table.nbytes > self._limit["data"]:
            rolling.open.close()
            rolling.roll()
        if rolling.open is None:
            path = self._work / DATA_PATH.format(chunk_index=rolling.chunk, file_index=rolling.file)
            path.parent.mkdir(parents=True, exist_ok=True)
            rolling.open = pq.ParquetWriter(path, table.schema)
            self._data_bytes = 0
        rolling.open.write_table(table)
        self._data_bytes += table.nbytes
        return {"data/chunk_index": rolling.chunk, "data/file_index": rolling.file}

    def _write_video(self, view: str, clip: np.ndarray) -> dict[str, Any]:
        rolling = self._video[view]
        if rolling.open is not None and rolling.open.bytes > self._limit["video"]:
            rolling.open.close()
            rolling.roll()
        if rolling.open is None:
            name = VIDEO_PATH.format(
                video_key=view, chunk_index=rolling.chunk, file_index=rolling.file
            )
            path = self._work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            rolling.open = Encoder(path, self.fps, self.views[view])
            self._pixel_formats[view] = rolling.open.pixel_format
        start = rolling.open.frames
        rolling.open.write(clip)
        return {
            f"videos/{view}/chunk_index": rolling.chunk,
            f"videos/{view}/file_index": rolling.file,
            f"videos/{view}/from_timestamp": start / self.fps,
            f"videos/{view}/to_timestamp": rolling.open.frames / self.fps,
        }
