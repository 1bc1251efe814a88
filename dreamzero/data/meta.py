"""What a LeRobot dataset says about itself: v2.0 and v2.1 (a file an episode) and v3.0 (many a file).

Metadata in the wild is often wrong. What can be read in spite of it is read, and each departure is put
into ``Meta.notes`` as ``"name: what and how it was taken"``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ..errors import UserError
from .lerobot import VERSIONS


@dataclass(frozen=True)
class Span:
    """Where an episode lies in a video file, seconds; ``to_s`` is None at "to the end"."""

    path: Path
    from_s: float = 0.0
    to_s: float | None = None


@dataclass(frozen=True)
class Episode:
    """One recording.

    Attributes:
        index: its number in the dataset.
        length: rows on disk.
        tasks: its instructions, the first one first.
        data: parquet file that holds the rows.
        videos: view -> where its frames are.
        extras: what else the table of episodes says of it.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    videos: Mapping[str, Span]
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The instruction; "" where none is known."""
        return self.tasks[0] if self.tasks else ""


@dataclass
class Meta:
    """Everything known before a row or a frame is read.

    Attributes:
        missing: (episode, file) of what meta describes and the disk lacks.
        described: episodes that meta describes.
    """

    root: Path
    info: dict[str, Any]
    version: str
    views: list[str]
    episodes: list[Episode] = field(default_factory=list)
    tasks: dict[int, str] = field(default_factory=dict)
    missing: list[tuple[int, Path]] = field(default_factory=list)
    described: int = 0
    notes: list[str] = field(default_factory=list)


def load(path: Path) -> Meta:
    """Read the metadata of the dataset at ``path``.

    Raises:
        UserError: no such folder, no LeRobot dataset, an unknown version, or none of its files there.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"{root} is no folder; give the folder that holds meta/info.json")
    info_path = root / "meta/info.json"
    if not info_path.is_file():
        raise UserError(f"{root} is no LeRobot dataset: meta/info.json is missing")
    info = _json(info_path)
    version = str(info.get("codebase_version", "")) if isinstance(info, dict) else ""
    if version not in VERSIONS:
        raise UserError(
            f"{info_path}: codebase_version is {version!r}; {', '.join(VERSIONS)} can be read "
            "(lerobot's converters bring older ones up)"
        )
    features = info.get("features")
    if not isinstance(features, dict) or "data_path" not in info:
        raise UserError(f"{info_path} lacks 'features' or 'data_path'; it is damaged or foreign")
    views = [key for key, f in features.items() if f.get("dtype") == "video"]
    meta = Meta(root, info, version, views)
    images = [key for key, f in features.items() if f.get("dtype") == "image"]
    if images:
        meta.notes.append(f"image-columns: {', '.join(images)} hold single images; not read")
    if version == "v3.0":
        _load_v3(meta)
    else:
        _load_v2(meta)
    if not meta.episodes:
        raise UserError(
            f"{root}: meta describes {meta.described} episodes, but no complete one is on disk "
            f"({info['data_path']})"
        )
    if len(meta.episodes) < meta.described:
        meta.notes.append(
            f"episodes-missing: meta describes {meta.described} episodes, {len(meta.episodes)} are "
            "complete on disk; those are read"
        )
    return meta


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable JSON ({error})") from error


def _json_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path} is missing; a v2 dataset needs it")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}:{number} is not readable JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number} is no JSON object")
        rows.append(row)
    return rows


def _table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is not readable parquet ({error})") from error


def _resolve(meta: Meta, template: str, **values: Any) -> Path:
    """File that a path template of info.json names; never one outside the dataset."""
    try:
        path = meta.root / template.format(**values)
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        raise UserError(
            f"meta/info.json: path {template!r} cannot be filled in ({error})"
        ) from error
    if not path.resolve().is_relative_to(meta.root.resolve()):
        raise UserError(f"meta/info.json: path {template!r} leads out of the dataset")
    return path


def _load_v2(meta: Meta) -> None:
    info = meta.info
    for row in _json_lines(meta.root / "meta/tasks.jsonl"):
        text = row.get("task")
        if not isinstance(text, str):
            other = {k: v for k, v in row.items() if k != "task_index" and isinstance(v, str)}
            if not other:
                raise UserError(f"{meta.root}/meta/tasks.jsonl: a task without text ({row})")
            key, text = next(iter(other.items()))
            _once(
                meta, f"task-key: tasks.jsonl names its text {key!r}, not 'task'; read all the same"
            )
        meta.tasks[int(row.get("task_index", len(meta.tasks)))] = text
    rows = _json_lines(meta.root / "meta/episodes.jsonl")
    meta.described = len(rows)
    chunk_size = int(info.get("chunks_size", 1000))
    video_template = info.get("video_path") or ""
    # Every file is looked at: with tens of thousands that takes a while.
    for row in tqdm(rows, desc="open", delay=2, disable=None):
        try:
            index = int(row["episode_index"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{meta.root}/meta/episodes.jsonl: a line without episode_index ({row})"
            ) from error
        numbers = {
            "episode_index": index,
            "episode_chunk": index // chunk_size,
            "total_episodes": info.get("total_episodes", len(rows)),
        }
        data = _resolve(meta, info["data_path"], **numbers)
        videos = {
            view: Span(_resolve(meta, video_template, video_key=view, **numbers))
            for view in meta.views
        }
        absent = [p for p in (data, *(s.path for s in videos.values())) if not p.is_file()]
        if absent:
            meta.missing += [(index, path) for path in absent]
            continue
        try:
            length = pq.read_metadata(data).num_rows
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{data} is not readable parquet ({error})") from error
        if length != row.get("length", length):
            meta.notes.append(
                f"length: episode {index} has {length} rows, meta says {row['length']}; rows count"
            )
        known = ("episode_index", "tasks", "length")
        extras = {k: v for k, v in row.items() if k not in known}
        meta.episodes.append(Episode(index, length, _tasks(meta, row), data, videos, extras))
    described = {int(row["episode_index"]) for row in rows}
    found = {
        int(match[1])
        for path in (meta.root / "data").rglob("*.parquet")
        if (match := re.search(r"(\d+)\.parquet$", path.name))
    }
    if found - described:
        meta.notes.append(
            f"undescribed: {len(found - described)} data files are not in episodes.jsonl; left out"
        )


def _tasks(meta: Meta, row: dict[str, Any]) -> tuple[str, ...]:
    found = []
    for task in row.get("tasks") or []:
        if isinstance(task, str):
            found.append(task)
            continue
        _once(
            meta,
            "task-number: episodes give task numbers, not texts; looked up in the tasks' table",
        )
        found.append(meta.tasks.get(int(task), ""))
    return tuple(found)


def _once(meta: Meta, note: str) -> None:
    if note not in meta.notes:
        meta.notes.append(note)


def _load_v3(meta: Meta) -> None:
    info = meta.info
    tasks = _table(meta.root / "meta/tasks.parquet")
    texts = [name for name in tasks.column_names if name != "task_index"]
    if "task_index" in tasks.column_names and texts:
        name = "task" if "task" in texts else texts[0]
        pairs = zip(tasks["task_index"].to_pylist(), tasks[name].to_pylist(), strict=True)
        meta.tasks = {int(i): str(text) for i, text in pairs}
    files = sorted((meta.root / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise UserError(
            f"{meta.root}/meta/episodes holds no parquet file; a v3.0 dataset needs one"
        )
    rows = [row for path in files for row in _episode_rows(path)]
    rows.sort(key=lambda row: row["episode_index"])
    meta.described = int(info.get("total_episodes", len(rows)))
    there: dict[Path, bool] = {}
    for row in rows:
        try:
            episode = _episode_v3(meta, row)
        except KeyError as error:
            raise UserError(f"{meta.root}/meta/episodes lacks column {error}") from error
        paths = [episode.data, *(span.path for span in episode.videos.values())]
        for path in paths:
            if path not in there:
                there[path] = path.is_file()
        absent = [path for path in paths if not there[path]]
        meta.missing += [(episode.index, path) for path in absent]
        if not absent:
            meta.episodes.append(episode)


def _episode_rows(path: Path) -> list[dict[str, Any]]:
    table = _table(path)
    keep = [name for name in table.column_names if not name.startswith("stats/")]
    if "episode_index" not in keep:
        raise UserError(f"{path} lacks the column episode_index")
    rows: list[dict[str, Any]] = table.select(keep).to_pylist()
    return rows


def _episode_v3(meta: Meta, row: dict[str, Any]) -> Episode:
    data = _resolve(
        meta,
        meta.info["data_path"],
        chunk_index=row["data/chunk_index"],
        file_index=row["data/file_index"],
    )
    videos = {}
    for view in meta.views:
        path = _resolve(
            meta,
            meta.info.get("video_path") or "",
            video_key=view,
            chunk_index=row[f"videos/{view}/chunk_index"],
            file_index=row[f"videos/{view}/file_index"],
        )
        start, stop = (row[f"videos/{view}/{end}_timestamp"] for end in ("from", "to"))
        videos[view] = Span(path, float(start), float(stop))
    known = ("tasks", "length", "episode_index", "dataset_from_index", "dataset_to_index")
    extras = {k: v for k, v in row.items() if k not in known and "/" not in k}
    index, length = int(row["episode_index"]), int(row["length"])
    return Episode(index, length, _tasks(meta, row), data, videos, extras)
