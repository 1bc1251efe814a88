"""The benchmark measures what it says: equal frames both ways, time that was waited."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dreamzero.cli import main
from dreamzero.data.benchmark import OneSeekAFrame, loading, wrap_clips
from dreamzero.data.encode import Encoder
from dreamzero.data.reader import Dataset
from dreamzero.data.windows import WindowDataset

from .recordings import numbered, read_numbers, write_v3
from .test_loader import CARD
from .test_windows import wide


def test_both_ways_give_the_same_windows(tmp_path: Path) -> None:
    write_v3(tmp_path / "d", [80, 90], width=2)
    windows = WindowDataset(Dataset.open(tmp_path / "d"), CARD, wide(), blocks=2, stride=4)
    plain = OneSeekAFrame(windows)
    for i in (0, len(windows) - 1):
        np.testing.assert_array_equal(plain.video(i), windows[i].video)
    fresh = WindowDataset(windows.datasets, CARD, wide(), blocks=2, stride=4)
    speed = loading(fresh, batch=4)
    assert speed.windows >= len(windows) and speed.decoded < 17
    assert speed.ours > 0 and speed.plain > 0 and speed.ratio > 0


def test_frames_that_differ_are_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_v3(tmp_path / "d", [80], width=2)
    windows = WindowDataset(Dataset.open(tmp_path / "d"), CARD, wide(), blocks=1)
    monkeypatch.setattr(OneSeekAFrame, "video", lambda self, i: np.zeros((9, 16, 40, 3), np.uint8))
    with pytest.raises(AssertionError, match="must give the same frames"):
        loading(windows)


def test_bare_clips_become_a_dataset(tmp_path: Path) -> None:
    for name, frames in (("a", 30), ("b", 33)):
        encoder = Encoder(tmp_path / f"{name}.mp4", 15, (16, 40))
        encoder.write(numbered(range(frames)))
        encoder.close()
    files = {f"observation.images.{name}": tmp_path / f"{name}.mp4" for name in "ab"}
    dataset = wrap_clips(tmp_path / "d", files, 15)
    assert (dataset.fps, dataset.episodes[0].length, dataset.notes) == (15, 30, [])
    for view in files:
        assert read_numbers(dataset.frames(0, view)).tolist() == list(range(30))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_v3(tmp_path / "mine", [130], width=2)
    given = ["bench", "data", "--data", str(tmp_path / "mine"), "--seconds", "1"]
    assert main([*given, "--json", "--out", str(tmp_path / "out")]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["metrics"]["mine/block/windows_per_second"]["value"] > 0
    assert record["metrics"]["mine/quarter/ratio_cpu"]["n"] > 0
    assert list((tmp_path / "out").iterdir())
    assert main(given) == 0
    assert "one seek a frame" in capsys.readouterr().out
    assert main([*given[:-1], "0"]) == 2
