"""Reading LeRobot: what was written comes back, faults are read through and named, damage is refused."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamzero.data.reader import Dataset
from dreamzero.data.writer import Writer
from dreamzero.errors import UserError

from .recordings import VIEW, numbered, ramp, read_numbers, write_v2, write_v3


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three episodes over several files."""
    root = tmp_path_factory.mktemp("rolled") / "d"
    write_v3(root, [50, 1, 37], data_mb=0.0005, video_mb=0.001)
    return Dataset.open(root)


def test_round_trip(rolled: Dataset) -> None:
    assert rolled.version == "v3.0" and rolled.fps == 15 and rolled.notes == []
    assert [(e.index, e.length, e.task) for e in rolled.episodes] == [
        (0, 50, "Task 0"),
        (1, 1, "Task 1"),
        (2, 37, "Task 2"),
    ]
    assert len({e.videos[VIEW].path for e in rolled.episodes}) > 1
    assert rolled.views == {VIEW: (16, 40)} and rolled.codecs == {VIEW: "h264"}
    assert rolled.state_names == ["j0", "j1", "j2"]
    for e in rolled.episodes:
        rows = rolled.rows(e.index)
        np.testing.assert_array_equal(rows["state"], ramp(e.length, 3, 15))
        np.testing.assert_array_equal(rows["action"], rows["state"] + 1)
        np.testing.assert_allclose(rows["timestamp"], np.arange(e.length) / 15, atol=1e-5)
        frames = rolled.frames(e.index, VIEW)
        assert frames.dtype == np.uint8 and frames.shape == (e.length, 16, 40, 3)
        np.testing.assert_array_equal(read_numbers(frames), np.arange(e.length))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 49), max_size=12))
def test_any_frames_in_any_order(rolled: Dataset, rows: list[int]) -> None:
    assert read_numbers(rolled.frames(0, VIEW, rows)).tolist() == rows


@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    fps=st.sampled_from([5, 7.5, 10, 15, 29.97, 30, 50]),
    width=st.integers(1, 4),
)
def test_any_shape_comes_back(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], fps: float, width: int
) -> None:
    root = tmp_path_factory.mktemp("any") / "d"
    write_v3(root, lengths, fps=fps, width=width)
    dataset = Dataset.open(root)
    assert dataset.fps == fps
    assert [e.length for e in dataset.episodes] == lengths
    for e in dataset.episodes:
        assert read_numbers(dataset.frames(e.index, VIEW)).tolist() == list(range(e.length))
        np.testing.assert_array_equal(dataset.rows(e.index)["state"], ramp(e.length, width, fps))


def test_colours_survive(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    with Writer(tmp_path / "d", 10, "arm", {VIEW: (64, 64)}, None, None) as writer:
        writer.add_episode({VIEW: np.stack([image] * 20)}, None, None, "look")
    frames = Dataset.open(tmp_path / "d").frames(0, VIEW).astype(float)
    error = frames - image
    assert 10 * np.log10(255**2 / (error**2).mean()) > 38
    assert np.abs(error.mean((0, 1, 2))).max() < 1


def test_extras_and_video_only(tmp_path: Path) -> None:
    with Writer(tmp_path / "d", 10, "hand", {VIEW: (16, 40)}, None, None) as writer:
        for seed in (7, 8):
            writer.add_episode({VIEW: numbered(range(3))}, None, None, "t", {"seed": seed})
    dataset = Dataset.open(tmp_path / "d")
    assert [e.extras["seed"] for e in dataset.episodes] == [7, 8]
    assert not dataset.has_action and dataset.rows(0)["action"].shape == (3, 0)


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_v2(tmp_path: Path, version: str) -> None:
    write_v2(tmp_path / "d", [20, 11], version=version)
    dataset = Dataset.open(tmp_path / "d")
    assert (dataset.version, dataset.notes) == (version, [])
    assert dataset.state_names == ["x", "y"] and dataset.action_names == ["x", "y"]
    assert read_numbers(dataset.frames(1, VIEW)).tolist() == list(range(11))
    assert dataset.episodes[0].task == "Do it"


def test_rows_find_their_frame_by_time(tmp_path: Path) -> None:
    write_v2(tmp_path / "late", [20], fps=20, extra_frames=1, first_s=0.05)
    late = Dataset.open(tmp_path / "late")
    assert read_numbers(late.frames(0, VIEW)).tolist() == list(range(1, 21))
    assert {note.partition(":")[0] for note in late.notes} == {"timestamp-offset", "frames-rows"}
    write_v2(tmp_path / "slow", [20], fps=20, extra_frames=-10, video_fps=10)
    slow = Dataset.open(tmp_path / "slow")
    shown = read_numbers(slow.frames(0, VIEW))
    assert (np.abs(shown - np.arange(20) / 2) <= 0.5).all()


def test_a_wrong_container_clock_is_overruled(tmp_path: Path) -> None:
    write_v2(tmp_path / "d", [30], fps=20, video_fps=10)
    dataset = Dataset.open(tmp_path / "d")
    assert read_numbers(dataset.frames(0, VIEW)).tolist() == list(range(30))


def test_wall_clock_timestamps(tmp_path: Path) -> None:
    write_v2(tmp_path / "d", [30], fps=20, first_s=300.0)
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.fps == 20
    assert read_numbers(dataset.frames(0, VIEW)).tolist() == list(range(30))


def test_missing_episodes_are_left_out(tmp_path: Path) -> None:
    write_v2(tmp_path / "d", [5, 6, 7])
    (tmp_path / "d/data/chunk-000/episode_000001.parquet").unlink()
    (tmp_path / "d" / f"videos/chunk-000/{VIEW}/episode_000002.mp4").unlink()
    dataset = Dataset.open(tmp_path / "d")
    assert [e.index for e in dataset.episodes] == [0] and dataset.described == 3
    assert dataset.notes[0].startswith("episodes-missing: meta describes 3 episodes, 1 ")
    with pytest.raises(UserError, match="has no episode 1"):
        dataset.rows(1)


def test_threads_and_processes(rolled: Dataset) -> None:
    again = pickle.loads(pickle.dumps(rolled))
    assert read_numbers(again.frames(2, VIEW, [36, 3])).tolist() == [36, 3]
    results: list[bool] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(10):
            rows = rng.integers(0, 50, 5)
            results.append(bool((read_numbers(rolled.frames(0, VIEW, rows)) == rows).all()))

    threads = [threading.Thread(target=work, args=(s,)) for s in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [True] * 30


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("absent", "is no folder"),
        ("foreign", "meta/info.json is missing"),
        ("json", "not readable JSON"),
        ("old", "codebase_version is 'v1.6'"),
        ("bare", "lacks 'features'"),
        ("outside", "leads out of the dataset"),
        ("template", "cannot be filled in"),
        ("tasks", "tasks.jsonl is missing"),
        ("line", "episodes.jsonl:1"),
        ("empty", "no complete one is on disk"),
        ("parquet", "not readable parquet"),
        ("video", "not a readable video"),
    ],
)
def test_refusals(tmp_path: Path, fault: str, says: str) -> None:
    root = tmp_path / "d"
    if fault != "absent":
        write_v2(root, [4])
    info = root / "meta/info.json"
    if fault == "foreign":
        info.unlink()
    elif fault == "json":
        info.write_text("{")
    elif fault == "old":
        edit(info, codebase_version="v1.6")
    elif fault == "bare":
        edit(info, features=None)
    elif fault == "outside":
        edit(info, data_path="../{episode_index}.parquet")
    elif fault == "template":
        edit(info, data_path="data/{nothing}.parquet")
    elif fault == "tasks":
        (root / "meta/tasks.jsonl").unlink()
    elif fault == "line":
        (root / "meta/episodes.jsonl").write_text("nonsense\n")
    elif fault == "empty":
        next(root.rglob("*.mp4")).unlink()
    elif fault == "parquet":
        next(root.rglob("*.parquet")).write_bytes(b"PAR1 not really")
    elif fault == "video":
        next(root.rglob("*.mp4")).write_bytes(b"no video")
    with pytest.raises(UserError, match=says):
        Dataset.open(root)


def test_rows_outside_an_episode_are_refused(rolled: Dataset) -> None:
    with pytest.raises(UserError, match="has rows 0 to 49"):
        rolled.frames(0, VIEW, [50])
    with pytest.raises(UserError, match="no view"):
        rolled.frames(0, "observation.images.side", [0])


def test_rows_are_read_as_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever groups of rows the file has, whatever their order, and with little memory."""
    write_v3(tmp_path / "d", [40, 30, 50], width=2)
    wanted = {e: Dataset.open(tmp_path / "d").rows(e) for e in range(3)}
    (path,) = (tmp_path / "d" / "data").rglob("*.parquet")
    table = pq.read_table(path)
    monkeypatch.setattr("dreamzero.data.reader.ROWS_MB", 1e-5)
    backwards = table.take(np.argsort(-table["episode_index"].to_numpy(), kind="stable"))
    for rows, size in ((table, 1000), (table, 25), (backwards, 7)):
        pq.write_table(rows, path, row_group_size=size)
        dataset = Dataset.open(tmp_path / "d")
        for episode in (2, 0, 1, 0):
            for name, array in dataset.rows(episode).items():
                np.testing.assert_array_equal(array, wanted[episode][name])
            for view in dataset.views:
                assert len(dataset.frame_of_row(episode, view)) == len(array)
            assert list(dataset._kept) == [episode]
        read = dataset._last
        assert read is not None and read._read is not None
        assert read._read[1].num_rows == {1000: 120, 25: 50, 7: 43}[size]
