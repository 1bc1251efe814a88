"""Opening LeRobot datasets: rows and frames on demand, quirks named.

Rows are the clock. ``frames`` takes row numbers and finds, by timestamp, the video frame that belongs to
each; a video with more frames than rows, or one that starts earlier, is therefore read right.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from ..errors import UserError
from . import columns
from . import gear as gear_files
from . import meta as metadata
from .lerobot import ACTION, STATE
from .meta import Episode
from .video import Clips

__all__ = ["Dataset", "Episode"]

# What the parsed rows of a dataset may take, in each process.
ROWS_MB = 1024
_MB = 1024 * 1024


class Dataset:
    """A LeRobot dataset of version 2.0, 2.1 or 3.0, opened for reading.

    Attributes:
        root: its folder.
        info: info.json as it stands.
        version: "v2.0", "v2.1" or "v3.0".
        fps: rows per second as measured from the timestamps.
        episodes: those complete on disk.
        views: view -> (height, width) in pixels, as stored.
        codecs: view -> codec, as stored.
        state_names, action_names: one name a dimension; empty where there is no such column.
        columns: "state" and "action" -> parquet column -> the dimensions it fills, (start, stop).
        gear: what GEAR's additional files say.
        missing: (episode, file) of what meta describes and the disk lacks.
        notes: what is wrong but readable, each as "name: explanation".
    """

    def __init__(self, meta: metadata.Meta) -> None:
        self.root, self.info, self.version = meta.root, meta.info, meta.version
        self.episodes = meta.episodes
        self.described, self.missing = meta.described, meta.missing
        self.task_names = dict(meta.tasks)
        self.gear = gear_files.read(meta.root)
        self.notes = [*meta.notes, *self.gear.notes]
        self.clips = Clips()
        self._by_index = {e.index: e for e in self.episodes}
        # By episode what was parsed, the last one used at the end; "timestamp" and so on, and views.
        self._kept: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()
        self._bytes = 0
        self._last: _Table | None = None
        self._lock = threading.RLock()
        self.views: dict[str, tuple[int, int]] = {}
        self.codecs: dict[str, str] = {}
        self.state_names: list[str] = []
        self.action_names: list[str] = []
        self._survey()
        self._read_annotations()
        self.tasks = sorted({e.task for e in self.episodes})

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes: without the file that happens to be open."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_last", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _last=None, _lock=threading.RLock())

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open the dataset at ``path``; UserError if it is missing, foreign or unreadable."""
        return cls(metadata.load(Path(path)))

    @property
    def has_action(self) -> bool:
        """Whether rows hold actions; False for video-only recordings."""
        return bool(self.action_names)

    def episode(self, index: int) -> Episode:
        """The episode of that number; UserError names the range."""
        if index not in self._by_index:
            first, last = self.episodes[0].index, self.episodes[-1].index
            raise UserError(
                f"{self.root} has no episode {index}; on disk are {len(self.episodes)}, "
                f"from {first} to {last}"
            )
        return self._by_index[index]

    def rows(self, episode: int) -> dict[str, np.ndarray]:
        """All rows of one episode, kept as long as those asked for last fit into ``ROWS_MB``.

        Returns:
            ``state`` float32 ``[t, s]``, ``action`` float32 ``[t, a]`` (width 0 where not recorded),
            ``timestamp`` float64 ``[t]`` in seconds.
        """
        with self._lock:
            found = self._kept.get(episode)
            if found is None:
                found = self._parse(self.table(episode), self.episode(episode).data)
                self._keep(episode, found)
            self._kept.move_to_end(episode)
            return {name: found[name] for name in ("state", "action", "timestamp")}

    def _keep(self, episode: int, arrays: dict[str, np.ndarray]) -> None:
        self._kept.setdefault(episode, {}).update(arrays)
        self._bytes += sum(array.nbytes for array in arrays.values())
        while self._bytes > ROWS_MB * _MB and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= sum(array.nbytes for array in oldest.values())

    def table(self, episode: int) -> pa.Table:
        """All columns of one episode's rows, as they are stored."""
        source = self.episode(episode)
        with self._lock:
            if self._last is None or self._last.path != source.data:
                self._last = _Table(source.data)
            table = self._last.of(episode if self.version == "v3.0" else None)
        if not table.num_rows:
            raise UserError(f"{source.data} holds no row of episode {episode}")
        return table

    def frame_of_row(self, episode: int, view: str) -> np.ndarray:
        """int64 ``[t]``: the frame within the view's file that belongs to each row.

        It is the one nearest in time. Where a container's clock contradicts the rows although it has
        as many frames (a wrong rate in the header), frames are counted instead.
        """
        with self._lock:
            stamps = self.rows(episode)["timestamp"]
            found = self._kept[episode].get(f"frame of {view}")
            if found is None:
                first, times = self.frame_times(episode, view)
                found = self._align(stamps, times, first)
                self._keep(episode, {f"frame of {view}": found})
            return found

    def frame_times(self, episode: int, view: str) -> tuple[int, np.ndarray]:
        """(first frame of the episode within the file, seconds ``[t]`` of its frames from there).

        Raises:
            UserError: unknown episode or view, or the file holds no frame of the episode.
        """
        span = self.episode(episode).videos.get(view)
        if span is None:
            raise UserError(f"{self.root} has no view {view!r}; it has {list(self.views)}")
        clip = self.clips.about(span.path)
        times = clip.times_s
        first, stop = 0, len(times)
        if span.to_s is not None:
            half = 0.5 * min(1.0 / self.fps, clip.step_s)
            first = int(np.searchsorted(times, span.from_s - half))
            stop = int(np.searchsorted(times, span.to_s - half))
        if stop <= first:
            raise UserError(f"{span.path} holds no frame of episode {episode}")
        return first, times[first:stop] - times[first]

    def frames(
        self, episode: int, view: str, rows: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """Frames of one view as uint8 ``[n, h, w, 3]`` RGB, for row numbers ``rows`` (all by default).

        Raises:
            UserError: unknown episode or view, a row outside the episode, or a damaged file.
        """
        places = self.frame_of_row(episode, view)
        if rows is not None:
            wanted = np.asarray(rows, dtype=np.int64)
            if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(places)):
                raise UserError(
                    f"episode {episode} has rows 0 to {len(places) - 1}; "
                    f"{wanted.min()} to {wanted.max()} asked for"
                )
            places = places[wanted]
        return self.clips.read(self.episode(episode).videos[view].path, places)

    def _align(self, stamps: np.ndarray, times: np.ndarray, first: int) -> np.ndarray:
        rows, frames = len(stamps), len(times)
        step = 1.0 / self.fps
        if not 0 <= stamps[0] <= 2.5 * step:
            stamps = stamps - stamps[0]
        spans = (times[-1], stamps[-1] - stamps[0])
        clock_differs = abs(spans[0] - spans[1]) > max(0.05 * spans[1], 4 * step)
        if abs(frames - rows) <= 2 and clock_differs:
            return first + np.minimum(np.arange(rows), frames - 1)
        after = np.clip(np.searchsorted(times, stamps), 1, max(frames - 1, 1))
        before = after - 1
        if frames == 1:
            return np.full(rows, first, dtype=np.int64)
        nearer = np.where(stamps - times[before] <= times[after] - stamps, before, after)
        return first + nearer.astype(np.int64)

    def _parse(self, table: pa.Table, path: Path) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        for kind, known in self.columns.items():
            absent = [key for key in known if key not in table.column_names]
            if absent:
                raise UserError(f"{path} lacks the column {absent[0]}, which other episodes have")
            parts = [columns.matrix(table[key], path) for key in known]
            out[kind] = columns.join(parts, table.num_rows).astype(np.float32)
        if "timestamp" in table.column_names:
            out["timestamp"] = columns.matrix(table["timestamp"], path).astype(np.float64)[:, 0]
            # float32 seconds carry jitter of their own; the grid they were rounded from is known.
            if table["timestamp"].type == pa.float32():
                out["timestamp"] = np.round(out["timestamp"], 5)
        else:
            out["timestamp"] = np.arange(table.num_rows) / float(self.info.get("fps") or 1.0)
        return out

    def _survey(self) -> None:
        """Learn columns, rate and codecs from the first episode, and note what differs from info."""
        first = self.episodes[0]
        table = self.table(first.index)
        schema = table.schema
        self.columns: dict[str, dict[str, tuple[int, int]]] = {}
        for kind, key in (("state", STATE), ("action", ACTION)):
            at, places = 0, {}
            for name in columns.find(schema, key, self.gear.columns(kind), self.notes):
                width = columns.matrix(table[name], first.data).shape[1]
                places[name] = (at, at + width)
                at += width
            self.columns[kind] = places
        self.fps = stated = float(self.info.get("fps") or 0.0)
        rows = self.rows(first.index)
        self.state_names = self._names("state", rows["state"].shape[1])
        self.action_names = self._names("action", rows["action"].shape[1])
        text = [
            key for keys in self.columns.values() for key in keys if columns.is_text(schema, key)
        ]
        if text:
            self.notes.append(f"text-columns: {', '.join(text)} are JSON text, not lists; parsed")
        for key in ("timestamp", "frame_index", "episode_index"):
            if key not in schema.names:
                self.notes.append(
                    f"no-{key.replace('_', '-')}: the column is missing; counted instead"
                )
        stamps = rows["timestamp"]
        steps = np.diff(stamps)
        if len(steps) and np.median(steps) > 0:
            self.fps = round(1.0 / float(np.median(steps)), 3)
            if stated and abs(self.fps - stated) / stated < 0.01:
                self.fps = stated
        if not self.fps > 0:
            raise UserError(f"{self.root}: neither info.json nor the timestamps give a rate")
        if self.fps != stated:
            self.notes.append(
                f"rate: info says {stated:g} fps, timestamps step {1 / self.fps:.4g} s "
                f"({self.fps:g} fps); the timestamps count"
            )
        if stamps[0] > 0.5 / self.fps:
            self.notes.append(
                f"timestamp-offset: rows begin at {stamps[0]:.4g} s, so row 0 belongs to the frame "
                "shown then, not to the first of the file"
            )
        for view in first.videos:
            self._survey_view(first, view, len(stamps))

    def _read_annotations(self) -> None:
        """Take instructions from the rows where the table of episodes has none."""
        if any(len(e.tasks) > 1 for e in self.episodes):
            self.notes.append(
                "several-tasks: episodes have several instructions; the first is used"
            )
        schema = self.table(self.episodes[0].index).schema
        found = [name for name in self.gear.annotations if name in schema.names]
        if not found or any(e.task for e in self.episodes):
            return
        for i, episode in enumerate(self.episodes):
            value = self.table(episode.index)[found[0]][0].as_py()
            text = value if isinstance(value, str) else self.task_names.get(value, "")
            self.episodes[i] = replace(episode, tasks=(text,))
        self._by_index = {e.index: e for e in self.episodes}
        self.notes.append(f"task-annotation: instructions are read from the column {found[0]}")

    def _survey_view(self, episode: Episode, view: str, rows: int) -> None:
        span = episode.videos[view]
        clip = self.clips.about(span.path)
        self.views[view], self.codecs[view] = clip.size_px, clip.codec
        feature = self.info["features"][view]
        said = feature.get("info") or feature.get("video_info") or {}
        codec = str(said.get("video.codec", clip.codec))
        if codec.replace("libx264", "h264") != clip.codec:
            self.notes.append(f"codec: {view} is {clip.codec}, info says {codec}")
        shape = list(feature.get("shape") or [])
        if shape and sorted(shape) != sorted([*clip.size_px, 3]):
            self.notes.append(
                f"size: {view} is {clip.size_px[0]} x {clip.size_px[1]}, info says {shape}"
            )
        if clip.truncated:
            self.notes.append(f"truncated: {span.path.name} of {view} ends too early")
        if span.to_s is None and len(clip) != rows:
            self.notes.append(
                f"frames-rows: {view} has {len(clip)} frames for {rows} rows in episode "
                f"{episode.index}; matched by timestamp"
            )

    def _names(self, kind: str, width: int) -> list[str]:
        found: list[str] = []
        for key in self.columns[kind]:
            found += columns.flatten(self.info["features"].get(key, {}).get("names"))
        return found if len(found) == width else [f"{kind}_{i}" for i in range(width)]


class _Table:
    """A parquet file, of which as little is read as an episode needs.

    Version 3.0 puts many episodes into a file, which writers cut into groups of rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} is not readable parquet ({error})") from error
        self._read: tuple[list[int], pa.Table] | None = None

    def of(self, episode: int | None) -> pa.Table:
        """The rows of an episode in their order; None: all."""
        if episode is None:
            return self._groups(list(range(self._file.num_row_groups)))
        if "episode_index" not in self._file.schema_arrow.names:
            raise UserError(f"{self.path} lacks the column episode_index")
        first, last = self._spans
        groups = np.flatnonzero((first <= episode) & (episode <= last)).tolist()
        table = self._groups(groups)
        return table.filter(pa.compute.equal(table["episode_index"], episode))

    @cached_property
    def _spans(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last episode that each group of rows may hold, float64: a file that does not say
        may hold any. Read once: footers of thousands of groups are slow to ask one by one."""
        metadata = self._file.metadata
        spans = np.full((2, metadata.num_row_groups), [[-np.inf], [np.inf]])
        names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        at = names.index("episode_index")
        for group in range(metadata.num_row_groups):
            column = metadata.row_group(group).column(at)
            known = column.statistics if column.is_stats_set else None
            if known is not None and known.has_min_max:
                spans[:, group] = known.min, known.max
        return spans[0], spans[1]

    def _groups(self, groups: list[int]) -> pa.Table:
        if self._read is None or self._read[0] != groups:
            try:
                self._read = (groups, self._file.read_row_groups(groups))
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{self.path} is not readable parquet ({error})") from error
        return self._read[1]
