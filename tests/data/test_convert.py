"""From version to version: rows bit for bit, frames as they are encoded, statistics equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dreamzero import embodiments
from dreamzero.cli import main
from dreamzero.data.convert import convert
from dreamzero.data.lerobot import VERSIONS
from dreamzero.data.published import compare
from dreamzero.data.reader import Dataset
from dreamzero.data.stats import published
from dreamzero.data.windows import WindowDataset
from dreamzero.data.writer import Writer
from dreamzero.errors import UserError

from .recordings import VIEW, numbered, read_numbers, real_data, write_v2, write_v3

COUNTED = ("frame_index", "episode_index", "index")


def assert_same(one: Dataset, two: Dataset) -> None:
    """Rows, tasks, encoded frames and the frame of every row."""
    assert len(one.episodes) == len(two.episodes) and one.fps == two.fps
    assert (one.state_names, one.action_names) == (two.state_names, two.action_names)
    for e, f in zip(one.episodes, two.episodes, strict=True):
        assert e.tasks == f.tasks and e.length == f.length
        rows, copy = one.rows(e.index), two.rows(f.index)
        for name, values in rows.items():
            np.testing.assert_array_equal(values, copy[name])
        for view in one.views:
            firsts, digests, places = [], [], []
            for dataset, episode in ((one, e), (two, f)):
                first, times = dataset.frame_times(episode.index, view)
                clip = dataset.clips.about(episode.videos[view].path)
                digests.append(clip.digest(first, first + len(times)))
                places.append(dataset.frame_of_row(episode.index, view) - first)
                firsts.append(first)
            assert digests[0] == digests[1]
            np.testing.assert_array_equal(*places)


def columns(dataset: Dataset, episode: int) -> dict[str, list[Any]]:
    table = dataset.table(episode)
    return {name: table[name].to_pylist() for name in table.column_names if name not in COUNTED}


@pytest.mark.parametrize("to", VERSIONS)
def test_there_and_back(tmp_path: Path, tabletop: Path, to: str) -> None:
    source = Dataset.open(tabletop)
    report = convert(tabletop, to, tmp_path / "there", progress=False)
    assert (report.episodes, report.rows) == (10, 650)
    assert not report.encoded and not report.numbers and not report.left
    there = Dataset.open(tmp_path / "there")
    assert there.version == to and there.notes == []
    assert_same(source, there)
    assert dict(source.episodes[3].extras)["seed"] == there.episodes[3].extras["seed"]
    convert(there, "v3.0", tmp_path / "back", progress=False)
    back = Dataset.open(tmp_path / "back")
    assert_same(source, back)
    for e in source.episodes:
        assert columns(source, e.index) == columns(back, e.index)
    assert [dict(e.extras) for e in source.episodes] == [dict(e.extras) for e in back.episodes]
    # Frames come out alike, from files that hold many episodes and from files that hold one.
    for view in source.views:
        for episode in (0, 9):
            np.testing.assert_array_equal(source.frames(episode, view), there.frames(episode, view))


def test_statistics_are_equal(tmp_path: Path, tabletop: Path) -> None:
    convert(tabletop, "v2.1", tmp_path / "v2", progress=False)
    convert(tmp_path / "v2", "v3.0", tmp_path / "v3", progress=False)
    before, each_before = published(tabletop, "v3.0")
    after, each_after = published(tmp_path / "v3", "v3.0")
    plain = ("min", "max", "mean", "std", "count")
    for feature, numbers in before.items():
        # v2.1 keeps no quantiles of images; those of vectors come from the rows.
        kept = plain if feature.startswith("observation.images") else numbers
        assert {n: numbers[n] for n in kept} == {n: after[feature][n] for n in kept}
    for episode, features in each_before.items():
        for name, numbers in features.items():
            for number in plain:
                got = each_after[episode][name][number]
                np.testing.assert_allclose(got, numbers[number], rtol=0, atol=0)
    lines = (tmp_path / "v2/meta/episodes_stats.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert first["episode_index"] == 0 and len(lines) == 10
    assert set(first["stats"]["action"]) == set(plain)
    assert np.shape(first["stats"]["observation.images.front"]["mean"]) == (3, 1, 1)
    assert all(row.agrees for row in compare(Dataset.open(tmp_path / "v3")))


def test_layouts_on_disk(tmp_path: Path) -> None:
    write_v3(tmp_path / "d", [5, 6, 7])
    found = {}
    for to in VERSIONS:
        root = tmp_path / to
        convert(tmp_path / "d", to, root, progress=False)
        files = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
        found[to] = {name for name in files if name.startswith("meta/")}
        info = json.loads((root / "meta/info.json").read_text())
        assert info["codebase_version"] == to and info["total_frames"] == 18
        assert (info.get("total_videos"), info.get("total_chunks")) == (
            (None, None) if to == "v3.0" else (3, 1)
        )
        assert ("fps" in info["features"]["action"]) == (to == "v3.0")
    lists = {"meta/info.json", "meta/stats.json", "meta/tasks.jsonl", "meta/episodes.jsonl"}
    assert found["v2.0"] == lists and found["v2.1"] == lists | {"meta/episodes_stats.jsonl"}
    assert "meta/tasks.parquet" in found["v3.0"]
    files = sorted(p.name for p in (tmp_path / "v2.0/data").rglob("*.parquet"))
    assert files == [f"episode_{i:06d}.parquet" for i in range(3)]
    rows = pq.read_table(tmp_path / "v2.0/data/chunk-000/episode_000002.parquet")
    assert rows["index"].to_pylist() == list(range(11, 18))
    assert rows["task_index"].to_pylist() == [2] * 7
    tasks = [json.loads(x) for x in (tmp_path / "v2.0/meta/tasks.jsonl").read_text().splitlines()]
    assert tasks[2] == {"task_index": 2, "task": "Task 2"}


def test_files_roll_over(tmp_path: Path) -> None:
    write_v2(tmp_path / "d", [20, 30, 40])
    convert(tmp_path / "d", "v3.0", tmp_path / "v3", progress=False, data_mb=0.0005, video_mb=0.001)
    rolled = Dataset.open(tmp_path / "v3")
    assert len({e.videos[VIEW].path for e in rolled.episodes}) > 1
    assert len({e.data for e in rolled.episodes}) > 1
    assert_same(Dataset.open(tmp_path / "d"), rolled)


def test_streams_that_differ_go_into_files_of_their_own(tmp_path: Path) -> None:
    write_v2(tmp_path / "d", [20, 20])
    write_v2(tmp_path / "other", [20, 20], video_fps=30)
    name = f"videos/chunk-000/{VIEW}/episode_000001.mp4"
    shutil.copy(tmp_path / "other" / name, tmp_path / "d" / name)
    convert(tmp_path / "d", "v3.0", tmp_path / "v3", progress=False)
    joined = Dataset.open(tmp_path / "v3")
    assert len({e.videos[VIEW].path for e in joined.episodes}) == 2
    assert read_numbers(joined.frames(1, VIEW)).tolist() == list(range(20))


def test_an_episode_in_the_middle_of_a_group_is_encoded_anew(tmp_path: Path) -> None:
    """Somebody cut the table of episodes, not the video."""
    write_v3(tmp_path / "d", [40])
    path = tmp_path / "d/meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    first = table.column_names.index(f"videos/{VIEW}/from_timestamp")
    table = table.set_column(first, f"videos/{VIEW}/from_timestamp", [[5 / 15]])
    pq.write_table(table, path)
    data = tmp_path / "d/data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(data).slice(0, 35), data)
    report = convert(tmp_path / "d", "v2.1", tmp_path / "v2", progress=False)
    assert report.encoded == [(0, VIEW, "does not begin at a keyframe")]
    copy = Dataset.open(tmp_path / "v2")
    assert read_numbers(copy.frames(0, VIEW)).tolist() == list(range(5, 40))
    assert [p.name for p in (tmp_path / "v2").iterdir() if "again" in p.name] == []


@pytest.mark.parametrize("name", ["g1_inspire", "franka_usb"])
def test_real_recordings(tmp_path: Path, name: str) -> None:
    """AV1 with a keyframe every other frame; H.264 with B-frames and every quirk there is."""
    source = Dataset.open(real_data(name))
    report = convert(source, "v3.0", tmp_path / "v3", progress=False)
    copy = Dataset.open(tmp_path / "v3")
    assert not report.encoded
    assert_same(source, copy)
    assert len({e.videos[v].path for e in copy.episodes for v in copy.views}) == len(copy.views)
    back = convert(copy, "v2.1", tmp_path / "v2", progress=False)
    assert_same(copy, Dataset.open(tmp_path / "v2"))
    assert not back.encoded
    named = {note.partition(":")[0] for note in report.mended}
    if name == "franka_usb":
        assert named >= {"text-columns", "task-key", "rate", "codec", "no-frame-index"}
        assert [note.partition(":")[0] for note in report.left] == ["timestamp-offset"]
        assert (tmp_path / "v3/meta/modality.json").is_file()
        info = json.loads((tmp_path / "v3/meta/info.json").read_text())
        view = info["features"]["observation.images.wrist_cam"]["info"]
        assert (info["fps"], view["video.fps"], view["video.codec"]) == (20, 20, "h264")
    else:
        assert report.numbers == {28: 0, 29: 1, 30: 2, 31: 3}
        assert [e.extras["source_episode_index"] for e in copy.episodes] == [28, 29, 30, 31]
        each = published(real_data(name), "v2.1")[1]
        again = published(tmp_path / "v2", "v2.1")[1]
        for old, new in report.numbers.items():
            for key in ("observation.state", "action"):
                for number in ("min", "max", "mean", "std"):
                    got = np.float32(again[new][key][number])
                    want = np.float32(each[old][key][number])
                    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)
            view = "observation.images.cam_high"
            assert again[new][view] == each[old][view]


def test_windows_stay_the_same(tmp_path: Path, tabletop: Path) -> None:
    convert(tabletop, "v2.0", tmp_path / "v2", progress=False)
    card = embodiments.get("tabletop_so101")
    one, two = (WindowDataset(Dataset.open(p), card) for p in (tabletop, tmp_path / "v2"))
    assert len(one) == len(two)
    for i in (0, len(one) - 1):
        np.testing.assert_array_equal(one[i].video, two[i].video)
        np.testing.assert_array_equal(one[i].action, two[i].action)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_writer_writes_every_version(tmp_path: Path, version: str) -> None:
    names = ["x", "y"]
    with Writer(tmp_path / "d", 10, "arm", {VIEW: (16, 40)}, names, names, version=version) as w:
        for n in (4, 9):
            values = np.arange(2 * n).reshape(n, 2).astype(np.float32)
            w.add_episode({VIEW: numbered(range(n))}, values, values + 1, "go", {"seed": n})
    dataset = Dataset.open(tmp_path / "d")
    assert (dataset.version, dataset.notes) == (version, [])
    assert [e.extras["seed"] for e in dataset.episodes] == [4, 9]
    assert read_numbers(dataset.frames(1, VIEW)).tolist() == list(range(9))
    assert dataset.rows(1)["action"][-1].tolist() == [17.0, 18.0]


def test_refusals_leave_nothing(tmp_path: Path) -> None:
    root = tmp_path / "d"
    write_v2(root, [10, 10])
    with pytest.raises(UserError, match="version 'v4' cannot be written; v2.0, v2.1, v3.0 can"):
        convert(root, "v4", tmp_path / "out", progress=False)
    with pytest.raises(UserError, match="lies in the dataset itself"):
        convert(root, "v3.0", root / "out", progress=False)
    with pytest.raises(UserError, match="needs 6 state dimensions"):
        card = embodiments.get("tabletop_so101")
        convert(root, "v3.0", tmp_path / "out", card, progress=False)
    video = sorted(root.rglob("*.mp4"))[1]
    whole = video.read_bytes()
    video.write_bytes(whole[: whole.index(b"mdat") + 200])
    with pytest.raises(UserError):
        convert(root, "v3.0", tmp_path / "out", progress=False)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        convert(root, "v3.0", tmp_path / "taken", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "taken"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_v3(tmp_path / "d", [20, 20], width=6, robot="so101")
    out = tmp_path / "v2"
    status = main(["data", "convert", str(tmp_path / "d"), "--to", "v2.0", "--out", str(out),
                   "--gear"])  # fmt: skip
    said = capsys.readouterr().out
    assert status == 0 and "LeRobot v2.0, 2 episodes, 40 rows" in said
    assert "copied as it is encoded" in said
    tag = json.loads((out / "meta/embodiment.json").read_text())
    assert tag == {"robot_type": "so101", "embodiment_tag": "tabletop_so101"}
    relative = json.loads((out / "meta/relative_stats_dreamzero.json").read_text())
    assert list(relative) == ["joint_position"]
    status = main(["data", "convert", str(out), "--to", "v3.0", "--out", str(tmp_path / "v3"),
                   "--json"])  # fmt: skip
    assert status == 0 and json.loads(capsys.readouterr().out)["episodes"] == 2
    assert (tmp_path / "v3/meta/modality.json").is_file()
    assert main(["data", "convert", str(out), "--to", "v3.0", "--out", str(tmp_path / "v3")]) == 2
    assert "exists already" in capsys.readouterr().err
