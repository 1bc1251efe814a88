"""What LeRobot datasets look like on disk: names, paths, statistics, tables shared by reader and writer.

v3.0 as published (https://huggingface.co/docs/lerobot/lerobot-dataset-v3): several episodes a file, one
table of episodes that says where each begins and ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

STATE, ACTION = "observation.state", "action"
CHUNK_FILES = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
INFO_PATH, STATS_PATH, TASKS_PATH = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


class Moments:
    """Statistics of one feature over episodes, as lerobot's stats.json holds them.

    Vectors are kept whole (they are small), so their quantiles are exact; images are given as
    sub-sampled pixels per channel.
    """

    def __init__(self, image: bool) -> None:
        self._image = image
        self._parts: list[np.ndarray] = []
        self._earlier: list[Mapping[str, list[Any]]] = []

    def add(self, values: np.ndarray) -> dict[str, list[Any]]:
        """Take ``[t, d]`` float64 of one episode; return that episode's statistics."""
        self._parts.append(values)
        return self._describe(values)

    def resume(self, episodes: Sequence[Mapping[str, list[Any]]]) -> None:
        """Take statistics of episodes whose values are not at hand any more."""
        self._earlier += episodes

    def total(self) -> dict[str, list[Any]]:
        """Statistics over every episode so far; quantiles of resumed ones count as their mean."""
        now = [self._describe(np.concatenate(self._parts))] if self._parts else []
        return _combine([*self._earlier, *now]) if self._earlier else now[0]

    def _describe(self, values: np.ndarray) -> dict[str, list[Any]]:
        quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
        rows = {
            "min": values.min(0),
            "max": values.max(0),
            "mean": values.mean(0),
            "std": values.std(0),
            **dict(zip(QUANTILES, quantiles, strict=True)),
        }
        shaped = {k: v[:, None, None] if self._image else v for k, v in rows.items()}
        out: dict[str, list[Any]] = {k: v.tolist() for k, v in shaped.items()}
        out["count"] = [len(values)]
        return out


def _combine(parts: Sequence[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """Statistics of all from statistics of each: exact but for quantiles, which are averaged."""
    count = np.array([part["count"][0] for part in parts], dtype=np.float64)

    def mean(values: Sequence[Any]) -> np.ndarray:
        return np.tensordot(count / count.sum(), np.array(values, dtype=np.float64), axes=1)

    out = {name: mean([part[name] for part in parts]) for name in (*QUANTILES, "mean")}
    square = [np.square(part["std"]) + np.square(part["mean"]) for part in parts]
    out["std"] = np.sqrt(np.maximum(mean(square) - np.square(out["mean"]), 0.0))
    out["min"] = np.min([part["min"] for part in parts], axis=0)
    out["max"] = np.max([part["max"] for part in parts], axis=0)
    return {k: v.tolist() for k, v in out.items()} | {"count": [int(count.sum())]}


def describe(
    fps: float,
    robot_type: str,
    views: Mapping[str, tuple[int, int]],
    pixel_formats: Mapping[str, str],
    names: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """info.json of a v3.0 dataset, without its totals.

    Args:
        fps: rows per second.
        robot_type: what moved.
        views: feature -> (height, width) in pixels.
        pixel_formats: feature -> FFmpeg's name of the stored pixel format.
        names: vector feature -> one name a dimension.
    """
    rate = int(fps) if float(fps).is_integer() else fps
    features: dict[str, Any] = {}
    for view, (height, width) in views.items():
        features[view] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.codec": "h264",
                "video.pix_fmt": pixel_formats[view],
                "video.is_depth_map": False,
                "video.fps": rate,
                "video.channels": 3,
                "has_audio": False,
            },
        }
    for key, dims in names.items():
        features[key] = {"dtype": "float32", "shape": [len(dims)], "names": list(dims)}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for key in ("frame_index", "episode_index", "index", "task_index"):
        features[key] = {"dtype": "int64", "shape": [1], "names": None}
    return {
        "codebase_version": "v3.0",
        "robot_type": robot_type,
        "chunks_size": CHUNK_FILES,
        "fps": rate,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if views else None,
        "features": features,
    }


def sample_pixels(clip: np.ndarray) -> np.ndarray:
    """At most about 4096 RGB pixels of uint8 ``[t, h, w, 3]`` as float64 ``[n, 3]`` in [0, 1]."""
    pixels = clip.reshape(-1, 3)
    return pixels[:: max(len(pixels) // 4096, 1)].astype(np.float64) / 255.0


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` indented; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=4), encoding="utf-8")


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """Tasks as the table that pandas makes of a frame indexed by the task's text."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": list(tasks)})
    column = {"metadata": None}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {
                "name": "task_index",
                "field_name": "task_index",
                "pandas_type": "int64",
                "numpy_type": "int64",
                **column,
            },
            {
                "name": "task",
                "field_name": "task",
                "pandas_type": "unicode",
                "numpy_type": "object",
                **column,
            },
        ],
        "pandas_version": "2.2.0",
    }
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)
