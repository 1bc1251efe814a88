"""What is recorded is LeRobot v3.0 on disk, and nothing half-written is ever seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dreamzero.data.reader import Dataset
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


def append(root: Path, length: int, seed: int, **changes) -> None:
    e = episode(length, seed)
    given = {
        "fps": 7.5,
        "robot_type": "so101",
        "views": {VIEW: (32, 32)},
        "state_names": ["x", "y", "z"],
        "action_names": ["x", "y"],
    }
    with Writer(root, **(given | changes), append=True) as w:
        w.add_episode({VIEW: e["clip"]}, e["state"], e["action"], f"task {seed % 2}")


def test_appending_is_as_if_written_at_once(tmp_path: Path) -> None:
    lengths = [5, 9, 3]
    record(tmp_path / "once", lengths)
    for seed, n in enumerate(lengths):
        append(tmp_path / "bit", n, seed)
    once, bit = (Dataset.open(tmp_path / name) for name in ("once", "bit"))
    assert not bit.notes
    assert [e.task for e in bit.episodes] == [e.task for e in once.episodes]
    for i, n in enumerate(lengths):
        for key, values in once.rows(i).items():
            np.testing.assert_array_equal(bit.rows(i)[key], values)
        assert bit.frames(i, VIEW).shape == (n, 32, 32, 3)
        apart = np.abs(bit.frames(i, VIEW).astype(int) - once.frames(i, VIEW))
        assert apart.mean() < 6
    rows = [pq.read_table(p) for p in sorted((tmp_path / "bit/data").rglob("*.parquet"))]
    assert [i for r in rows for i in r["index"].to_pylist()] == list(range(17))
    stats = [json.loads((tmp_path / f"{n}/meta/stats.json").read_text()) for n in ("once", "bit")]
    for key in ("action", "observation.state"):
        for name, values in stats[0][key].items():
            np.testing.assert_allclose(stats[1][key][name], values, atol=1e-12)
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(stats[1][VIEW][name], stats[0][VIEW][name], atol=1e-9)
    # Quantiles of pictures are averaged, as lerobot does.
    assert np.abs(np.subtract(stats[1][VIEW]["q50"], stats[0][VIEW]["q50"])).max() < 0.1
    info = [json.loads((tmp_path / f"{n}/meta/info.json").read_text()) for n in ("once", "bit")]
    assert info[0] == info[1]


@pytest.mark.parametrize("survived", range(8))
def test_a_crash_while_appending_leaves_the_old_or_the_new(tmp_path, monkeypatch, survived) -> None:
    import os

    append(tmp_path / "d", 5, 0)
    done, replace = 0, os.replace

    def crash(source, target):
        nonlocal done
        if done == survived:
            raise KeyboardInterrupt
        done += 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    try:
        append(tmp_path / "d", 9, 1)
    except KeyboardInterrupt:
        pass
    monkeypatch.undo()
    data = Dataset.open(tmp_path / "d")
    assert not data.notes
    lengths = [len(data.rows(e.index)["action"]) for e in data.episodes]
    assert lengths in ([5], [5, 9])
    for e in data.episodes:
        assert len(data.frames(e.index, VIEW)) == e.length
    # And it can be gone on with.
    append(tmp_path / "d", 3, 2)
    data = Dataset.open(tmp_path / "d")
    assert [len(data.rows(e.index)["action"]) for e in data.episodes] == [*lengths, 3]
    assert len(data.frames(len(lengths), VIEW)) == 3


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"robot_type": "franka"}, "other robot: so101 there, franka now"),
        ({"fps": 15.0}, "other rate: 7.5 fps there, 15 fps now"),
        ({"views": {}}, "other columns"),
        ({"state_names": ["a", "b", "c"]}, "other columns"),
    ],
)
def test_what_does_not_fit_is_not_appended(tmp_path: Path, changes: dict, part: str) -> None:
    append(tmp_path / "d", 5, 0)
    with pytest.raises(UserError, match=part):
        append(tmp_path / "d", 5, 1, **changes)
    assert len(Dataset.open(tmp_path / "d").episodes) == 1
    append(tmp_path / "d", 5, 1)


def test_two_cannot_append_at_a_time(tmp_path: Path) -> None:
    append(tmp_path / "d", 5, 0)
    arguments = (tmp_path / "d", 7.5, "so101", {VIEW: (32, 32)}, ["x", "y", "z"], ["x", "y"])
    first = Writer(*arguments, append=True)
    with pytest.raises(UserError, match="another program is recording"):
        Writer(*arguments, append=True)
    first.discard()
    Writer(*arguments, append=True).discard()
    assert len(Dataset.open(tmp_path / "d").episodes) == 1


def test_a_damaged_or_foreign_dataset_is_not_appended_to(tmp_path: Path) -> None:
    append(tmp_path / "d", 5, 0)
    append(tmp_path / "d", 5, 1)
    (tmp_path / f"d/videos/{VIEW}/chunk-000/file-001.mp4").unlink()
    with pytest.raises(UserError, match="is not whole"):
        append(tmp_path / "d", 5, 2)


def test_files_of_ones_own(tmp_path: Path) -> None:
    e = episode(4, 0)
    for i in range(2):
        with Writer(tmp_path / "d", 7.5, "x", {}, None, ["x", "y"], append=True) as w:
            w.add_episode({}, None, e["action"], "task")
            w.attach(f"timing/{i}.json", "{}")
    assert sorted(p.name for p in (tmp_path / "d/timing").iterdir()) == ["0.json", "1.json"]
