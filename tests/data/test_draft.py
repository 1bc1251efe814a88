"""A drafted card fits its recording: it is read back, it cuts windows, and it says where to look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamzero import embodiments
from dreamzero.cli import main
from dreamzero.data.check import check
from dreamzero.data.draft import by_name, draft
from dreamzero.data.normalize import Normalizer, compute
from dreamzero.data.reader import Dataset
from dreamzero.data.windows import WindowDataset
from dreamzero.data.writer import Writer
from dreamzero.embodiments import Field
from dreamzero.embodiments.files import dumps, load

from .recordings import VIEW, numbered, real_data


@pytest.mark.parametrize("name", ["tabletop", "g1_inspire", "franka_usb"])
def test_the_draft_of_a_good_recording(tmp_path: Path, tabletop: Path, name: str) -> None:
    dataset = Dataset.open(tabletop if name == "tabletop" else real_data(name))
    card, notes = draft(dataset)
    path = tmp_path / "card.toml"
    path.write_text(dumps(card, notes))
    assert load(path) == card
    text = path.read_text()
    assert "REPLACE" in text and max(len(line) for line in text.splitlines()) < 140
    windows = WindowDataset(dataset, embodiments.get(path))
    first = windows[0]
    assert first.video.shape == (card.window_frames, *card.canvas_px, 3)
    assert first.action_mask.all() and card.blocks == (2 if name == "tabletop" else 4)
    assert Normalizer(card, compute(dataset, card)).card == card
    # Limits of the recording itself are no reason to doubt it.
    assert [f for f in check(dataset, card) if f.level == "error"] == []


def test_slices_come_from_modality() -> None:
    card, notes = draft(Dataset.open(real_data("franka_usb")))
    assert card.action == (
        Field("joint_pos", 0, 7, relative=True),
        Field("gripper_state", 7, 8, unit="1"),
    )
    assert (card.action_hz, card.horizon, card.layout) == (10.0, 16, "column")
    assert "modality.json" in notes["action"]


def test_slices_come_from_names() -> None:
    names = ["left_shoulder", "left_elbow", "left_gripper", "right_shoulder", "right_gripper",
             "waist", "left_hand_thumb", "left_gripper_force"]  # fmt: skip
    assert [(f.key, f.start, f.stop, f.unit) for f in by_name(names)] == [
        ("left_joint_position", 0, 2, "rad"),
        ("left_gripper_position", 2, 3, "1"),
        ("right_joint_position", 3, 4, "rad"),
        ("right_gripper_position", 4, 5, "1"),
        ("joint_position", 5, 6, "rad"),
        ("left_hand_position", 6, 7, "1"),
        ("left_gripper_position_2", 7, 8, "1"),
    ]


@pytest.mark.parametrize(
    ("fps", "rates"),
    [(30, (5, 15, 24)), (15, (5, 15, 24)), (20, (5, 10, 16)), (50, (5, 12.5, 20)), (3, (3, 3, 8)),
     (29.97, (5, 15, 24)), (120, (15, 15, 8))],
)  # fmt: skip
def test_rates_fall_on_rows(tmp_path: Path, fps: float, rates: tuple[float, ...]) -> None:
    with Writer(tmp_path / "d", fps, "arm", {VIEW: (16, 40)}, ["a"], ["a"]) as writer:
        values = np.arange(120, dtype=np.float32)[:, None] / 100
        writer.add_episode({VIEW: numbered(range(120))}, values, values, "t")
    card, _ = draft(Dataset.open(tmp_path / "d"))
    assert (card.video_hz, card.action_hz, card.horizon) == pytest.approx(rates)


def test_degrees_are_pointed_at(tmp_path: Path) -> None:
    with Writer(tmp_path / "d", 15, "arm", {VIEW: (16, 40)}, ["a"], ["a"]) as writer:
        values = np.linspace(-90, 90, 60, dtype=np.float32)[:, None]
        writer.add_episode({VIEW: numbered(range(60))}, values, values, "t")
    _, notes = draft(Dataset.open(tmp_path / "d"))
    assert "are these degrees?" in notes["state"]


def test_video_only(tmp_path: Path) -> None:
    with Writer(tmp_path / "hand", 30, "hand", {VIEW: (16, 40)}, None, None) as writer:
        writer.add_episode({VIEW: numbered(range(200))}, None, None, "t")
    card, notes = draft(Dataset.open(tmp_path / "hand"))
    (tmp_path / "c.toml").write_text(dumps(card, notes))
    assert load(tmp_path / "c.toml") == card and not card.has_action and card.state == ()


def test_command_line(tmp_path: Path, tabletop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "card", str(tabletop)]) == 0
    printed = capsys.readouterr().out
    out = tmp_path / "mine.toml"
    assert main(["data", "card", str(tabletop), "--out", str(out)]) == 0
    assert out.read_text() == printed and "data check" in capsys.readouterr().out
    assert main(["data", "card", str(tabletop), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["data", "card", str(tabletop), "--out", str(tmp_path / "mine.json")]) == 2
    assert "ends in .toml" in capsys.readouterr().err
    assert main(["data", "check", str(tabletop), "--card", str(out)]) == 0
    assert load(out).name in capsys.readouterr().out
