"""What LeRobot datasets look like on disk: names, paths and tables shared by reader and writers.

v3.0 as published (https://huggingface.co/docs/lerobot/lerobot-dataset-v3): several episodes a file, one
table of episodes that says where each begins and ends. v2.0 and v2.1: a file an episode and lists in
JSON lines; v2.0 has the statistics of all episodes in stats.json, v2.1 those of each in
episodes_stats.jsonl (lerobot's convert_dataset_v20_to_v21 and convert_dataset_v21_to_v30).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VERSIONS = ("v2.0", "v2.1", "v3.0")
STATE, ACTION = "observation.state", "action"
COUNTERS = ("frame_index", "episode_index", "index", "task_index")
CHUNK_FILES = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DATA_PATH_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"


def video_feature(
    size_px: tuple[int, int], codec: str, pixel_format: str, fps: float
) -> dict[str, Any]:
    """A view as info.json describes it; ``size_px`` is (height, width)."""
    height, width = size_px
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": codec,
            "video.pix_fmt": pixel_format,
            "video.is_depth_map": False,
            "video.fps": whole(fps),
            "video.channels": 3,
            "has_audio": False,
        },
    }


def vector_feature(names: Sequence[str]) -> dict[str, Any]:
    """A vector of float32 as info.json describes it."""
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def counter_features() -> dict[str, Any]:
    """The columns that every dataset has."""
    features: dict[str, Any] = {"timestamp": {"dtype": "float32", "shape": [1], "names": None}}
    for key in COUNTERS:
        features[key] = {"dtype": "int64", "shape": [1], "names": None}
    return features


def whole(fps: float) -> float:
    """29.97 stays, 30.0 becomes 30: lerobot reads rates as whole numbers where they are."""
    return int(fps) if float(fps).is_integer() else fps


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` indented; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=4), encoding="utf-8")


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write a line of JSON for each; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False, default=_plain) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's."""
    return value.item()


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
