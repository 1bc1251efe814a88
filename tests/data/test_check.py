"""`dreamzero data`: each defect is found by name, sound recordings pass, and the exit status says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dreamzero import embodiments
from dreamzero.cli import main
from dreamzero.data import cards
from dreamzero.data.check import check
from dreamzero.data.encode import Encoder
from dreamzero.data.reader import Dataset

from .recordings import VIEW, numbered, write_v2, write_v3


def swing(rows: int = 120, lead: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """States that swing, and commands ``lead`` rows ahead of them."""
    t = np.arange(rows + 40)[:, None] / 15
    whole = np.concatenate([np.sin(t), np.cos(1.3 * t)], axis=1).astype(np.float32)
    return whole[20 : 20 + rows], whole[20 + lead : 20 + lead + rows]


def record(root: Path, state: np.ndarray, action: np.ndarray, **more: object) -> Dataset:
    write_v2(root, [len(state)], vectors={"observation.state": state, "action": action}, **more)  # type: ignore[arg-type]
    return Dataset.open(root)


def names(dataset: Dataset, level: str) -> set[str]:
    return {f.name for f in check(dataset) if f.level == level}


def test_a_sound_recording_has_no_finding(tmp_path: Path) -> None:
    found = check(record(tmp_path / "d", *swing()))
    assert [(f.level, f.name) for f in found] == [
        ("note", "action-lead"),
        ("note", "alignment-unknown"),  # the pictures show numbers, no motion
    ]
    assert found[0].text == "actions lead the state by 3 rows"


@pytest.mark.parametrize(
    ("lead", "level", "name"),
    [(0, "error", "action-is-state"), (-1, "error", "action-late"), (-3, "error", "action-late"),
     (1, "warning", "action-is-next-state"), (6, "note", "action-lead")],
)  # fmt: skip
def test_shifted_actions(tmp_path: Path, lead: int, level: str, name: str) -> None:
    assert name in names(record(tmp_path / "d", *swing(lead=lead)), level)


def damage_nan(root: Path) -> None:
    state, action = swing()
    state[5, 0] = np.nan
    record(root, state, action)


def damage_jump(root: Path) -> None:
    state, action = swing()
    state[60:] += 3
    record(root, state, action)


def damage_idle(root: Path) -> None:
    state, action = swing()
    state[20:], action[20:] = state[20], action[20]
    record(root, state, action)


def damage_short_video(root: Path) -> None:
    record(root, *swing(), extra_frames=-40)


def damage_torn_video(root: Path) -> None:
    record(root, *swing())
    video = next(root.rglob("*.mp4"))
    whole = video.read_bytes()
    start = whole.index(b"mdat")
    middle = start + (len(whole) - start) // 3
    video.write_bytes(whole[:middle] + bytes(len(whole) // 3) + whole[middle + len(whole) // 3 :])


def damage_gap(root: Path) -> None:
    record(root, *swing())
    path = next(root.rglob("*.parquet"))
    table = pq.read_table(path)
    stamps = table["timestamp"].to_numpy().copy()
    stamps[50:] += 1.0
    column = table.schema.get_field_index("timestamp")
    pq.write_table(table.set_column(column, "timestamp", [stamps]), path)


def damage_jitter(root: Path) -> None:
    record(root, *swing())
    path = next(root.rglob("*.parquet"))
    table = pq.read_table(path)
    stamps = table["timestamp"].to_numpy().copy()
    stamps[50] += 0.03
    column = table.schema.get_field_index("timestamp")
    pq.write_table(table.set_column(column, "timestamp", [stamps]), path)


def damage_backwards(root: Path) -> None:
    record(root, *swing())
    path = next(root.rglob("*.parquet"))
    table = pq.read_table(path)
    stamps = table["timestamp"].to_numpy().copy()
    stamps[50] = stamps[40]
    column = table.schema.get_field_index("timestamp")
    pq.write_table(table.set_column(column, "timestamp", [stamps]), path)


def damage_other_video(root: Path) -> None:
    """A file of the right length in time, but of another recording's rate and number."""
    record(root, *swing())
    encoder = Encoder(next(root.rglob("*.mp4")), 15, (16, 40))
    encoder.write(numbered(range(60)))
    encoder.close()


def damage_statistics(root: Path) -> None:
    record(root, *swing())
    numbers = {"min": [0, 0], "max": [0.1, 0.1]}
    (root / "meta/stats.json").write_text(json.dumps({"observation.state": numbers}))


def damage_rate(root: Path) -> None:
    record(root, *swing(), info={"fps": 30})


@pytest.mark.parametrize(
    ("damage", "level", "name"),
    [
        (damage_nan, "error", "not-finite"),
        (damage_jump, "warning", "jump"),
        (damage_idle, "warning", "idle"),
        (damage_short_video, "error", "video-short"),
        (damage_gap, "warning", "time-gap"),
        (damage_gap, "warning", "video-clock"),
        (damage_jitter, "warning", "time-jitter"),
        (damage_backwards, "error", "time-backwards"),
        (damage_other_video, "error", "video-short"),
        (damage_statistics, "warning", "stats-foreign"),
        (damage_rate, "warning", "rate"),
    ],
)
def test_defects(tmp_path: Path, damage: Callable[[Path], None], level: str, name: str) -> None:
    damage(tmp_path / "d")
    assert name in names(Dataset.open(tmp_path / "d"), level)


def test_a_torn_video_is_found_by_decoding_it(tmp_path: Path) -> None:
    damage_torn_video(tmp_path / "d")
    dataset = Dataset.open(tmp_path / "d")
    found = [f for f in check(dataset, thorough=True) if f.level == "error"]
    assert [(f.name, f.episode, f.view) for f in found] == [("video-damaged", 0, VIEW)]
    assert found[0].row is not None and 30 < found[0].row < 60


def test_many_episodes_are_sampled_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamzero.data.check.LOOKED_AT", 2)
    write_v2(tmp_path / "d", [60] * 3)
    path = sorted((tmp_path / "d").rglob("*.mp4"))[1]
    whole = path.read_bytes()
    # In the first group of frames; the last frame, which is always looked at, is in the fourth.
    start = whole.index(b"mdat") + 40
    path.write_bytes(whole[:start] + bytes(600) + whole[start + 600 :])
    dataset = Dataset.open(tmp_path / "d")
    for thorough, where in ((False, []), (True, [1])):
        found = check(dataset, thorough=thorough)
        assert [f.episode for f in found if f.name == "video-damaged"] == where


def test_choice_of_a_card(tmp_path: Path) -> None:
    write_v3(tmp_path / "so101", [10], width=6, robot="so101")
    so101 = Dataset.open(tmp_path / "so101")
    assert cards.choose(so101, None).name == "tabletop_so101"
    write_v3(tmp_path / "arm", [10], width=2)
    assert cards.choose(Dataset.open(tmp_path / "arm"), None).name == "makeshift"
    own = embodiments.get("tabletop_so101").with_(name="mine")
    (tmp_path / "mine.json").write_text(json.dumps(own.to_json()))
    assert cards.choose(so101, str(tmp_path / "mine.json")) == own


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["data", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, wrong = tmp_path / "sound", tmp_path / "wrong"
    write_v3(sound, [65, 65], width=6, robot="so101", scale=0.05)
    record(wrong, *swing(lead=0))
    status, out, _ = run(capsys, "inspect", sound)
    assert status == 0 and "LeRobot v3.0" in out and "Task 1" in out and VIEW in out
    status, out, _ = run(capsys, "inspect", sound, "--json")
    facts = json.loads(out)
    assert (facts["episodes"], facts["rows"], facts["card"]) == (2, 130, "tabletop_so101")
    view = facts["views"][VIEW]
    assert (view["height_px"], view["width_px"], view["codec"]) == (16, 40, "h264")
    assert (view["fps"], view["frames_per_keyframe"]) == (15, 13)
    assert facts["tasks"] == {"Task 0": 1, "Task 1": 1}
    status, out, _ = run(capsys, "stats", sound)
    assert status == 0 and "relative per block of 8" in out
    status, out, _ = run(capsys, "stats", sound, "--json")
    numbers = json.loads(out)["action"]["joint_position"]
    # The ramp's action is its state plus 1, and a block lasts 7 steps more.
    np.testing.assert_allclose(numbers["min"][0], 1.0, atol=1e-4)
    np.testing.assert_allclose(numbers["max"][0], 1 + 0.05 * 7 / 15, atol=1e-4)
    status, out, _ = run(capsys, "check", sound)
    assert status == 0 and "Fit to train on" in out
    status, out, _ = run(capsys, "check", wrong)
    assert status == 1 and "action-is-state" in out and "action[t] equals state[t]" in out
    status, out, _ = run(capsys, "check", wrong, "--json")
    verdict = json.loads(out)
    assert status == 1 and not verdict["ok"] and verdict["findings"][0]["level"] == "error"
    status, out, _ = run(capsys, "check", sound, "--card", "droid", "--json")
    assert status == 1 and "view-missing" in {f["name"] for f in json.loads(out)["findings"]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["inspect", "{}/absent"], "is no folder"),
        (["check", "{}"], "no LeRobot dataset"),
        (["stats", "{}/d", "--card", "r2d2"], "unknown embodiment 'r2d2'"),
        (["stats", "{}/d", "--card", "{}/x.json"], "there is no such file"),
        (["stats", "{}/d", "--card", "droid"], "needs 8 state dimensions"),
        (["chekc", "{}/d"], "did you mean check"),
        (["inspect"], "required: PATH"),
    ],
)
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    write_v3(tmp_path / "d", [10])
    status, out, err = run(capsys, *(a.format(tmp_path) for a in arguments))
    assert status == 2 and out == "" and says in err and err.count("\n") == 1
