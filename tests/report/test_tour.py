"""Notebook 00: the dream beside the truth, what was foreseen, the committed numbers, the mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamzero import embodiments
from dreamzero.evaluate import Episode, wilson
from dreamzero.model.attention import TeacherForcing
from dreamzero.report import plots_tour, tour_study
from dreamzero.report.record import RunRecord
from dreamzero.robots.runlog import ChunkRecord, RunLog

CARD = embodiments.get("tabletop_so101")


@pytest.fixture
def log() -> RunLog:
    """Two blocks: the camera sees grey 10, 11, ..., the dreams are black."""
    frames = np.arange(10, 27, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 64, 64, 3), np.uint8
    )
    dark = np.zeros((8, 64, 64, 3), np.uint8)
    chunks = [
        ChunkRecord(t, t, t, 0.1, n, 0, np.full((16, 6), t, np.float32), dark)
        for t, n in ((0.0, 1), (16 / 15, 8))
    ]
    due = np.arange(32) / 15
    pose = np.zeros((32, 6), np.float32)
    none = np.zeros(32, bool)
    return RunLog(
        "go", "synchronous", 15.0, due, due, pose, pose, none, none, due, pose,
        np.arange(17) / 7.5, {CARD.views[0]: frames}, chunks, {}, "done",
    )  # fmt: skip


def test_dream_begins_with_what_was_seen(log: RunLog) -> None:
    found = tour_study.dream(log, CARD)
    assert found.truth.shape == found.dreamed.shape == (17, 64, 64, 3)
    np.testing.assert_array_equal(found.dreamed[0], found.truth[0])
    assert found.dreamed[1:].max() == 0
    assert found.truth[-1].min() == 26
    assert found.side_by_side.shape == (17, 64, 130, 3)


def episode(dreamed: np.ndarray | None) -> Episode:
    video = np.zeros((17, 8, 8, 3), np.uint8)
    video[1:9] = 10
    video[9:] = 20
    return Episode(1, "push-red-left", "go", True, 1.0, 2, 0.5, video, dreamed)


def test_foresight_of_a_perfect_a_half_and_no_dream() -> None:
    perfect, still = episode(None).video[1:], np.zeros((16, 8, 8, 3), np.uint8)
    still[8:] = 10  # each block begins with what was seen
    assert tour_study.foresight([episode(perfect)], 8).share == pytest.approx(1.0)
    nothing = tour_study.foresight([episode(still), episode(None)], 8)
    assert (nothing.share, nothing.blocks) == (0.0, 2)
    assert nothing.still_db == pytest.approx(20 * np.log10(255 / 10))
    half = tour_study.foresight([episode(still + 5)], 8)
    assert half.share == pytest.approx(0.75)
    with pytest.raises(ValueError, match="no episode"):
        tour_study.foresight([episode(None)], 8)


def test_committed_numbers_are_read_from_the_record(tmp_path: Path) -> None:
    assert tour_study.committed(str(tmp_path)) == {}
    run = RunRecord("shipped", parameters={}, seed=0, device="cpu")
    run.add("seen/success", 0.8, n=400, low=0.76, high=0.84)
    run.add("seen/push", 0.7, n=300, low=0.6, high=0.75)
    run.add("train/loss", 0.1)
    run.save(tmp_path)
    rates = tour_study.committed(str(tmp_path))
    assert {name: (r.value, r.n) for name, r in rates.items()} == {"seen": (0.8, 400)}
    bars = tour_study.bars({"here": wilson(12, 24), **rates})
    assert [(row[0], row[1], row[4]) for row in bars] == [
        ("here", 0.5, "n = 24"),
        ("seen", 0.8, "n = 400"),
    ]


def test_mask_picture_is_the_mask(log: RunLog) -> None:
    from matplotlib import pyplot

    layout = TeacherForcing(frame=2, blocks=2, frames_per_block=2, actions=3, states=1)
    axis = plots_tour.mask(layout).axes[0]
    picture = np.asarray(axis.get_images()[0].get_array())
    assert picture.shape == (layout.length, layout.length, 3)
    coloured = (picture < 1).any(axis=-1)
    np.testing.assert_array_equal(coloured[layout.state(0)].sum(), 1)
    assert coloured[layout.noisy(1), layout.action(1)].all()
    assert not coloured[layout.noisy(1), layout.action(0)].any()
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels[:2] == ["clean first frame", "clean block 1"]
    assert labels[-1] == "state 2"

    figure = plots_tour.actions(log, [f"j{i}" for i in range(6)], ["rad"] * 6)
    starts = [line.get_xdata()[0] for line in figure.axes[0].get_lines()]
    np.testing.assert_allclose(starts, [0.0, 0.0, 16 / 15])
    pyplot.close("all")
