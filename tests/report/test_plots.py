"""Figures of training, inference and comparisons hold the numbers that they were given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamzero import embodiments
from dreamzero.evaluate.openloop import OpenLoop, Prediction
from dreamzero.evaluate.probe import Comparison
from dreamzero.flow import sampling_sigmas
from dreamzero.report import plots_compare, plots_inference, plots_training

CARD = embodiments.get("tabletop_so101")


@pytest.fixture(autouse=True)
def _close() -> Any:
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def test_log_and_loss_curves(tmp_path: Path) -> None:
    rows = [{"step": s, "video": 2 / s, "action": 1 / s} for s in range(1, 40)]
    rows[-1] |= {"held_out_video": 0.1, "held_out_action": 0.05}
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(r) for r in rows) + "\n")
    read = plots_training.read_log(tmp_path / "log.jsonl")
    assert read == rows
    figure = plots_training.loss_curves({"short": read, "long": rows})
    video = figure.axes[0].get_lines()
    np.testing.assert_allclose(video[0].get_ydata(), [r["video"] for r in rows])
    np.testing.assert_allclose(video[2].get_ydata(), [0.1])
    figure.canvas.draw()


def test_early_signals_are_drawn_against_core_minutes() -> None:
    rows: list[dict[str, float]] = [{"step": 1, "video": 1.0, "seconds": 1.0}]
    for i in range(3):
        rows.append(
            {
                "step": 10 * i, "seconds": 240.0 * i, "cpu_seconds": 120.0 * i,
                "open_loop": 1.2 - 0.2 * i, "open_loop_end": 1.0 - 0.2 * i,
                "dream_psnr": 15.0 + i, "still_psnr": 16.0,
            }
        )  # fmt: skip
    figure = plots_training.early_signals({"a run": rows}, bar=0.7)
    left, right = figure.axes
    np.testing.assert_allclose(left.get_lines()[0].get_xdata(), [0, 2, 4])
    np.testing.assert_allclose(left.get_lines()[0].get_ydata(), [1.2, 1.0, 0.8])
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), [15, 16, 17])
    assert "0.7, asked for" in [text.get_text() for text in left.get_legend().get_texts()]
    figure.canvas.draw()


def test_smoothing_keeps_ends_and_constants() -> None:
    np.testing.assert_allclose(plots_training.smooth(np.full(50, 3.0)), 3.0)
    values = np.arange(1.0, 200.0)
    smoothed = plots_training.smooth(values)
    assert smoothed[0] == 1.5 and np.all(np.diff(smoothed) >= 0)
    np.testing.assert_allclose(smoothed[:150], values[:150], atol=1)


def test_schedule_shows_the_grid() -> None:
    figure = plots_training.noise_schedule(5.0, {"4 steps": sampling_sigmas(4).numpy()})
    points = figure.axes[0].get_lines()[2]
    np.testing.assert_allclose(points.get_ydata(), sampling_sigmas(4).numpy())
    assert len(figure.axes[1].patches) == 25


def test_denoising_shows_both_rows() -> None:
    pictures = [np.full((8, 8, 3), value, np.uint8) for value in (10, 20, 30, 40)]
    columns = [("one", pictures[0], pictures[1]), ("two", pictures[2], pictures[3])]
    figure = plots_training.denoising(columns)
    shown = [int(axis.get_images()[0].get_array()[0, 0, 0]) for axis in figure.axes]
    assert shown == [10, 30, 20, 40] and figure.axes[1].get_title("center") == "two"


def test_psnr_lines() -> None:
    still = np.full((8, 16, 16, 3), 100, np.uint8)
    true = still.copy()
    true[4:, :8] = 180
    nothing = np.zeros((16, 6), np.float32)
    chunk = Prediction(0, 0, nothing, nothing, nothing[0], true, still[0], 0.0, true - 10, true - 5)
    figure = plots_training.psnr_by_frame({"run": OpenLoop(CARD, [chunk])}, CARD.video_hz)
    dream, codec, _ = figure.axes[0].get_lines()
    np.testing.assert_allclose(dream.get_ydata(), 10 * np.log10(255**2 / 100))
    np.testing.assert_allclose(codec.get_ydata(), 10 * np.log10(255**2 / 25))
    figure.canvas.draw()


def test_compare_points_and_bars() -> None:
    rows = [
        {"label": "a", "ratio": (0.7, 0.6, 0.8), "ms": 9.0},
        {"label": "b", "ratio": (0.9, 0.8, 1.1), "ms": 20.0},
    ]
    figure = plots_compare.compare(rows, {"ratio": "error", "ms": "ms"}, {"ratio": (1.0, "hold")})
    left, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["a", "b"]
    assert left.get_ylim()[0] > left.get_ylim()[1], "the first row is on top"
    assert [p.get_width() for p in right.patches] == [9.0, 20.0]
    np.testing.assert_allclose(left.get_lines()[0].get_xdata(), [0.7, 0.9])


def test_spaces_of_cards() -> None:
    rows = plots_compare.spaces([CARD, embodiments.get("tabletop_hand")])
    assert rows[0]["action"] == "5 joint_position (relative), 1 gripper_position"
    assert rows[1]["action"] == "none" and list(rows[0]) == list(rows[1])


def test_cache_timeline_counts_frames() -> None:
    figure = plots_inference.cache_timeline([1, 3], capacity=5)
    faces = [p.get_facecolor() for p in figure.axes[0].patches]
    assert len(faces) == 10 and len(set(faces)) == 4
    assert sum(face == faces[1] for face in faces) == 4, "two dreamed frames a chunk"


def test_breakdown_and_pairs() -> None:
    parts = {
        "4 steps": {"encode": 3.0, "evaluations": 30.0},
        "16": {"encode": 3.0, "evaluations": 90.0},
    }
    figure = plots_inference.breakdown(parts, 1067)
    ends = [p.get_x() + p.get_width() for p in figure.axes[0].patches]
    assert max(ends) == 93.0 and "1067 ms" in figure.axes[0].get_title("left")
    times = Comparison(np.array([1e-3, 3e-3, 2e-3]), np.array([6e-3] * 3), 0.0, 112, 49)
    assert times.ratio == pytest.approx(3)
    lines = plots_inference.paired_times(times).axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), [1, 3, 2])
