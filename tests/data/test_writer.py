"""What is recorded is LeRobot v3.0 on disk, and nothing half-written is ever seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dreamzero.data.video import Clip
from dreamzero.data.writer import Writer
from dreamzero.errors import UserError

VIEW = "observation.images.front"


def episode(length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
    clip = np.stack([np.roll(image, i, axis=1) for i in range(length)]).astype(np.uint8)
    return {"clip": clip, "state": rng.random((length, 3)), "action": rng.random((length, 2))}


def record(root: Path, lengths: list[int], **limits: float) -> list[dict[str, np.ndarray]]:
    episodes = [episode(n, seed) for seed, n in enumerate(lengths)]
    with Writer(root, 7.5, "so101", {VIEW: (32, 32)}, ["x", "y", "z"], ["x", "y"], **limits) as w:
        for i, e in enumerate(episodes):
            w.add_episode({VIEW: e["clip"]}, e["state"], e["action"], f"task {i % 2}")
    return episodes


def test_layout_on_disk(tmp_path: Path) -> None:
    lengths = [5, 9, 1]
    record(tmp_path / "d", lengths)
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert files == [
        "d/data/chunk-000/file-000.parquet",
        "d/meta/episodes/chunk-000/file-000.parquet",
        "d/meta/info.json",
        "d/meta/stats.json",
        "d/meta/tasks.parquet",
        f"d/videos/{VIEW}/chunk-000/file-000.mp4",
    ]
    info = json.loads((tmp_path / "d/meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 15, 2)
    rows = pq.read_table(tmp_path / "d/data/chunk-000/file-000.parquet")
    assert rows["index"].to_pylist() == list(range(15))
    assert rows["frame_index"].to_pylist() == [i for n in lengths for i in range(n)]
    table = pq.read_table(tmp_path / "d/meta/episodes/chunk-000/file-000.parquet")
    assert table["dataset_from_index"].to_pylist() == [0, 5, 14]
    assert table["dataset_to_index"].to_pylist() == [5, 14, 15]
    starts = np.array(table[f"videos/{VIEW}/from_timestamp"].to_pylist()) * 7.5
    np.testing.assert_allclose(starts, [0, 5, 14])
    tasks = pq.read_table(tmp_path / "d/meta/tasks.parquet")
    assert tasks["task"].to_pylist() == ["task 0", "task 1"]


def test_rolls_over_by_size(tmp_path: Path) -> None:
    record(tmp_path / "d", [6] * 5, data_mb=0.0004, video_mb=0.001)
    assert len(list((tmp_path / "d/data").rglob("*.parquet"))) > 1
    videos = sorted((tmp_path / "d/videos").rglob("*.mp4"))
    assert len(videos) > 1
    assert sum(len(Clip(v)) for v in videos) == 30


def test_statistics_are_those_of_the_rows(tmp_path: Path) -> None:
    episodes = record(tmp_path / "d", [7, 12])
    stats = json.loads((tmp_path / "d/meta/stats.json").read_text())
    action = np.concatenate([e["action"] for e in episodes]).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(stats["action"]["q99"], np.quantile(action, 0.99, axis=0))
    np.testing.assert_allclose(stats["action"]["std"], action.std(0))
    assert stats["action"]["count"] == [19]
    assert np.shape(stats[VIEW]["mean"]) == (3, 1, 1)


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        Writer(tmp_path / "d", 10, "arm", {VIEW: (32, 32)}, None, None) as w,
    ):
        w.add_episode({VIEW: episode(4, 0)["clip"]}, None, None, "look")
        assert not (tmp_path / "d").exists()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_video_only_has_no_vectors(tmp_path: Path) -> None:
    with Writer(tmp_path / "d", 10, "hand", {VIEW: (32, 32)}, None, None) as w:
        w.add_episode({VIEW: episode(4, 0)["clip"]}, None, None, "look")
    features = json.loads((tmp_path / "d/meta/info.json").read_text())["features"]
    assert "action" not in features and "observation.state" not in features


@pytest.mark.parametrize("broken", ["length", "view", "size", "width", "nan", "taken", "empty"])
def test_mistakes_are_named(tmp_path: Path, broken: str) -> None:
    e = episode(4, 0)
    clip, state, action = e["clip"], e["state"], e["action"]
    view = VIEW
    root = tmp_path / "d"
    if broken == "length":
        state = state[:3]
    elif broken == "view":
        view = "observation.images.side"
    elif broken == "size":
        clip = clip[:, :16]
    elif broken == "width":
        action = action[:, :1]
    elif broken == "nan":
        state = state * np.nan
    elif broken == "taken":
        root.mkdir()
        (root / "thesis.txt").write_text("mine")
    with (
        pytest.raises(UserError),
        Writer(root, 10, "arm", {VIEW: (32, 32)}, ["x", "y", "z"], ["x", "y"]) as w,
    ):
        if broken != "empty":
            w.add_episode({view: clip}, state, action, "t")
    assert [p.name for p in tmp_path.iterdir()] == (["d"] if broken == "taken" else [])
