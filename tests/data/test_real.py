"""Real recordings with real faults; skipped where they are not at hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dreamzero import embodiments
from dreamzero.data import cards
from dreamzero.data.canvas import compose, split
from dreamzero.data.check import check
from dreamzero.data.normalize import compute
from dreamzero.data.reader import Dataset
from dreamzero.data.video import Clip
from dreamzero.data.windows import WindowDataset

from .recordings import real_data


@pytest.fixture(scope="module")
def franka() -> Dataset:
    return Dataset.open(real_data("franka_usb"))


@pytest.fixture(scope="module")
def g1() -> Dataset:
    return Dataset.open(real_data("g1_inspire"))


def test_franka_quirks_are_named(franka: Dataset) -> None:
    named = {note.partition(":")[0] for note in franka.notes}
    assert named == {
        "task-key",
        "task-number",
        "episodes-missing",
        "text-columns",
        "no-frame-index",
        "rate",
        "timestamp-offset",
        "codec",
        "frames-rows",
    }
    assert (franka.version, franka.fps, franka.described) == ("v2.1", 20, 50)
    assert [e.length for e in franka.episodes] == [334, 310, 382, 283, 272, 345, 342, 297]
    assert franka.tasks == ["Pick up the USB drive and insert it into the port."]
    assert franka.codecs["observation.images.right_cam"] == "h264"
    assert check(franka, cards.choose(franka, None))[0].level == "warning"


def test_franka_rows_and_frames(franka: Dataset) -> None:
    rows = franka.rows(3)
    assert rows["state"].shape == rows["action"].shape == (283, 8)
    np.testing.assert_array_equal(rows["action"][:-1], rows["state"][1:])
    stated = json.loads((franka.root / "meta/stats.json").read_text())["observation.state"]
    assert (rows["state"] >= np.asarray(stated["min"], np.float32) - 1e-6).all()
    assert (rows["state"] <= np.asarray(stated["max"], np.float32) + 1e-6).all()
    view = "observation.images.wrist_cam"
    # One frame more than rows; the first row is stamped one step in, when frame 1 was shown.
    np.testing.assert_array_equal(franka.frame_of_row(3, view), np.arange(1, 284))
    whole = Clip(franka.episodes[3].videos[view].path)
    assert len(whole) == 284
    np.testing.assert_array_equal(franka.frames(3, view, [280, 5]), whole.read([281, 6]))


def test_franka_windows(franka: Dataset) -> None:
    windows = WindowDataset(franka, embodiments.get("franka_usb"), blocks=2)
    window = windows[0]
    assert window.video.shape == (17, 128, 64, 3) and window.action.shape == (32, 8)
    assert window.prompt == "pick up the usb drive and insert it into the port."
    assert len(windows) > 60 and window.action_mask.all()
    # From 20 Hz to 10 Hz every second row is taken as it is, relative to the block's first.
    rows = franka.rows(window.episode)
    back = windows.normalizer.unaction(window.action[:16], rows["state"][0])
    inside = np.abs(window.action[:16]) < 1
    np.testing.assert_allclose(back[inside], rows["action"][:32:2][inside], atol=1e-5)


def test_g1_statistics_are_those_published(g1: Dataset) -> None:
    lines = (g1.root / "meta/episodes_stats.jsonl").read_text().splitlines()
    published = {s["episode_index"]: s["stats"] for s in map(json.loads, lines)}
    card = cards.makeshift(g1).with_(action_hz=30.0, video_hz=30.0, horizon=8)
    for episode in g1.episodes:
        stated = published[episode.index]
        rows = g1.rows(episode.index)
        for key, kind in (("observation.state", "state"), ("action", "action")):
            for name in ("min", "max"):
                exact = getattr(rows[kind], name)(axis=0)
                np.testing.assert_array_equal(exact, np.float32(stated[key][name]))
            for name in ("mean", "std"):
                ours = getattr(rows[kind].astype(np.float64), name)(axis=0)
                np.testing.assert_allclose(ours, stated[key][name], rtol=2e-5, atol=2e-6)
            assert len(rows[kind]) == stated[key]["count"][0]
    everything = np.concatenate([g1.rows(e.index)["state"] for e in g1.episodes])
    found = compute(g1, card).state["all"]
    np.testing.assert_array_equal(found.min, everything.min(0))
    assert found.count == len(everything) == 1043


def test_g1_video(g1: Dataset) -> None:
    view = "observation.images.cam_high"
    assert g1.codecs[view] == "av1" and g1.views[view] == (480, 640)
    assert len(g1.state_names) == 26 and g1.state_names[0] == "kLeftShoulderPitch"
    last = g1.episodes[-1]
    frames = g1.frames(last.index, view, [0, last.length - 1])
    assert np.abs(frames[0].astype(int) - frames[1]).mean() > 1
    assert [n.partition(":")[0] for n in g1.notes] == ["episodes-missing"]


def test_droid_canvas() -> None:
    folder: Path = real_data("droid_clips")
    names = ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")
    clips = [Clip(folder / f"{name}.mp4") for name in names]
    assert [len(c) for c in clips] == [419] * 3
    views = [c.read([0, 418]) for c in clips]
    canvas = compose(views, "droid", (352, 640))
    assert canvas.shape == (2, 352, 640, 3)
    back = split(canvas, "droid", 3)
    assert [b.shape for b in back] == [(2, 176, 320, 3)] * 3
    for view, cell in zip(views, back, strict=True):
        # Same picture at almost the same size: its mean colour stays.
        np.testing.assert_allclose(view.mean((0, 1, 2)), cell.mean((0, 1, 2)), atol=1.0)
