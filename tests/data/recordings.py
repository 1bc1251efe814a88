"""Small recordings whose content says what it is: every frame shows its own number in black and white."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamzero.data.encode import Encoder
from dreamzero.data.writer import Writer

VIEW = "observation.images.front"
BITS = 10


def real_data(name: str) -> Path:
    """Folder of a real recording, or a skip that says what to set."""
    default = Path(__file__).resolve().parents[2].parent / "shared/real_data"
    path = Path(os.environ.get("DREAMZERO_REAL_DATA", default)) / name
    if not path.is_dir():
        pytest.skip(f"no real recordings at {path}: set DREAMZERO_REAL_DATA")
    return path


def numbered(numbers: Sequence[int] | np.ndarray, height: int = 16) -> np.ndarray:
    """uint8 ``[t, height, 40, 3]``: bit i of a frame's number is a white or black stripe of 4 px."""
    bits = (np.asarray(numbers)[:, None] >> np.arange(BITS)) & 1
    stripes = (bits * 200 + 20).astype(np.uint8).repeat(4, axis=1)
    return np.broadcast_to(stripes[:, None, :, None], (len(bits), height, 4 * BITS, 3)).copy()


def read_numbers(frames: np.ndarray) -> np.ndarray:
    """int64 ``[t]``: the numbers that ``numbered`` wrote, whatever codec or resize came between."""
    gray = frames.astype(float).mean(axis=(1, 3))
    stripes = gray.reshape(len(frames), BITS, frames.shape[2] // BITS).mean(-1)
    return ((stripes > 120).astype(np.int64) << np.arange(BITS)).sum(1)


def ramp(length: int, width: int, fps: float) -> np.ndarray:
    """float32 ``[t, width]`` that is linear in time, so that a value tells its instant."""
    return (np.arange(length)[:, None] / fps * (1 + np.arange(width))).astype(np.float32)


def cut_off(path: Path, share: float) -> None:
    """Keep the first part of a video whose header comes first, as it does in files for streaming."""
    whole = path.with_suffix(".whole.mp4")
    path.rename(whole)
    with (
        av.open(str(whole)) as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    whole.unlink()
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def write_v3(
    root: Path,
    lengths: Sequence[int],
    fps: float = 15,
    width: int = 3,
    robot: str = "arm",
    video_only: bool = False,
    scale: float = 1.0,
    **limits: Any,
) -> None:
    """Frames are numbered from 0 in each episode; state is a ramp in seconds, action 1 more."""
    names = None if video_only else [f"j{i}" for i in range(width)]
    with Writer(root, fps, robot, {VIEW: (16, 40)}, names, names, **limits) as writer:
        for e, n in enumerate(lengths):
            state = None if video_only else scale * ramp(n, width, fps)
            action = None if state is None else state + 1.0
            writer.add_episode({VIEW: numbered(range(n))}, state, action, f"Task {e}")


def write_v2(
    root: Path,
    lengths: Sequence[int],
    fps: float = 15,
    version: str = "v2.1",
    extra_frames: int = 0,
    first_s: float = 0.0,
    video_fps: float | None = None,
    info: Mapping[str, Any] | None = None,
    vectors: Mapping[str, np.ndarray] | None = None,
) -> None:
    """The same as v2.x, one file an episode, with the faults that recordings have."""
    data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (root / "meta").mkdir(parents=True)
    episodes = []
    for e, n in enumerate(lengths):
        names = {"episode_chunk": 0, "episode_index": e, "video_key": VIEW}
        for template in (data, video):
            (root / template.format(**names)).parent.mkdir(parents=True, exist_ok=True)
        encoder = Encoder(root / video.format(**names), video_fps or fps, (16, 40))
        encoder.write(numbered(range(n + extra_frames)))
        encoder.close()
        state = ramp(n, 2, fps)
        columns = {"observation.state": state, "action": state + 1.0, **(vectors or {})}
        table = {k: pa.array(v.tolist(), pa.list_(pa.float32())) for k, v in columns.items()}
        table["timestamp"] = pa.array((first_s + np.arange(n) / fps).astype(np.float32))
        for key in ("frame_index", "index", "task_index"):
            table[key] = pa.array(np.arange(n))
        table["episode_index"] = pa.array(np.full(n, e))
        pq.write_table(pa.table(table), root / data.format(**names))
        episodes.append({"episode_index": e, "tasks": ["Do it"], "length": n})
    features = {
        VIEW: {"dtype": "video", "shape": [16, 40, 3], "names": ["height", "width", "channel"]},
        "observation.state": {"dtype": "float32", "shape": [2], "names": [["x", "y"]]},
        "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}},
    }
    whole = {
        "codebase_version": version,
        "robot_type": "arm",
        "total_episodes": len(lengths),
        "chunks_size": 1000,
        "fps": fps,
        "data_path": data,
        "video_path": video,
        "features": features,
        **(info or {}),
    }
    (root / "meta/info.json").write_text(json.dumps(whole))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "Do it"}) + "\n")
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(e) + "\n" for e in episodes))
