"""Notebook 01's measurements and figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamzero import embodiments
from dreamzero.data.normalize import Normalizer, compute
from dreamzero.data.reader import Dataset
from dreamzero.data.writer import Writer
from dreamzero.report import data_study, plots_data

# Two actions a frame: what the figures must keep apart.
CARD = embodiments.get("tabletop_so101").with_(video_hz=7.5, horizon=16)
NAMES = [*(f"joint_{i}" for i in range(5)), "gripper"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three episodes whose joints move at 1, 2 and 3 rad/s; the command is one row ahead."""
    root = tmp_path_factory.mktemp("data") / "ramps"
    view = CARD.views[0]
    with Writer(root, 15.0, "so101", {view: (16, 16)}, NAMES, NAMES) as writer:
        for speed in (1.0, 3.0, 2.0):
            time_s = np.arange(66)[:, None] / 15.0
            pose = (speed * time_s * np.array([1, 1, 1, 1, 1, 0.1])).astype(np.float32)
            frames = {view: np.zeros((65, 16, 16, 3), np.uint8)}
            writer.add_episode(frames, pose[:-1], pose[1:], "go on")
    return Dataset.open(root)


def test_blocks_are_anchored_on_their_first_state(dataset: Dataset) -> None:
    found = data_study.blocks(dataset, CARD, 0)
    assert found.absolute.shape == found.relative.shape == (4, 16, 6)
    np.testing.assert_allclose(found.anchor[:, 0], np.arange(4) * 16 / 15, atol=1e-5)
    np.testing.assert_allclose(found.relative[:, 0, :5], 1 / 15, atol=1e-5)
    np.testing.assert_array_equal(found.anchor[:, 5], 0)  # the gripper stays absolute


def test_anchoring_changes_the_range_as_a_ramp_says(dataset: Dataset) -> None:
    reach = data_study.reach(data_study.anchorings(dataset, CARD))
    assert reach["per block"] == 1.0
    # Per step only the speed varies (1/15 to 3/15 rad); per block up to 16 steps of it.
    assert reach["per step"] == pytest.approx((2 / 15) / (3 * 16 / 15), rel=0.15)
    assert 3.0 < reach["whole window"] < 5.0


def test_typical_is_neither_slowest_nor_fastest(dataset: Dataset) -> None:
    assert data_study.typical(dataset) == 2


def test_normalised_blocks_fill_the_unit_range(dataset: Dataset) -> None:
    values = data_study.normalised(dataset, Normalizer(CARD, compute(dataset, CARD)))
    assert {kind: x.shape for kind, x in values.items()} == {"state": (12, 6), "action": (192, 6)}
    assert all(np.abs(x).max() <= 1.0 for x in values.values())
    assert values["action"][:, 0].max() > 0.9


def test_tables_name_what_is_there(dataset: Dataset) -> None:
    rows = {row[""]: row["what is there"] for row in data_study.summary_rows(dataset, CARD)}
    assert rows["episodes"] == "3 of 3, 65 to 65 rows"
    assert data_study.names_of(dataset, CARD) == {"state": NAMES, "action": NAMES}
    grid = data_study.held_out(["red", "green"], ["reach", "push away", "push left"])
    np.testing.assert_array_equal(grid, [[False, True, False], [False, False, True]])


def test_real_data_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMZERO_REAL_DATA", str(tmp_path / "nowhere"))
    assert data_study.find_real_data() is None
    assert data_study.droid_views(None) is None
    assert data_study.droid_views(tmp_path) is None


def test_figures_show_what_they_were_given(dataset: Dataset) -> None:
    from matplotlib import pyplot

    blocks = data_study.blocks(dataset, CARD, 1)
    video = np.zeros((33, 64, 64, 3), np.uint8)
    figure = plots_data.window(video, blocks.absolute.reshape(64, 6), NAMES, CARD)
    strip, counts, lines = figure.axes
    assert len(strip.get_images()) == 9
    labels = [text.get_text() for text in counts.get_yticklabels()]
    assert labels == ["4 states", "64 actions", "33 frames", "9 latents"]
    np.testing.assert_array_equal(lines.get_lines()[0].get_ydata(), blocks.absolute[..., 0].ravel())

    quantiles = {"a": (np.full(12, -1.0), np.arange(12.0)), "b": (np.zeros(12), np.ones(12))}
    figure = plots_data.anchoring(quantiles, [str(i) for i in range(12)], most=3)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["9", "10", "11"]

    droid = embodiments.get("droid")
    views = {view: np.full((180, 320, 3), 90, np.uint8) for view in droid.views}
    figure = plots_data.canvas(views, np.zeros((352, 640, 3), np.uint8), droid)
    boxes = [patch.get_bbox().bounds for patch in figure.axes[-1].patches]
    assert boxes == [
        (-0.5, 175.5, 320, 176),
        (319.5, 175.5, 320, 176),
        (-0.5, -0.5, 640, 176),
    ]
    figure = plots_data.normalised({"state": np.zeros((5, 2))}, {"state": ["x", "y"]})
    np.testing.assert_allclose(figure.axes[0].get_images()[0].get_array().sum(axis=1), 100)
    figure = plots_data.gallery({"a": [video[0]] * 2, "b": [video[0]]}, ["left", "right"])
    assert sum(len(axis.get_images()) for axis in figure.axes) == 3
    figure = plots_data.task_grid(["red"], ["reach", "push"], np.array([[False, True]]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["trained", "held out"]
    figure = plots_data.sawtooth(np.arange(32.0), np.arange(32.0), np.zeros(2), "pan", CARD)
    assert len(figure.axes[1].get_lines()) == 3
    pyplot.close("all")
