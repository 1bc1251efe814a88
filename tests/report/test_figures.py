"""Figures and videos: right pixels, right shapes, refused inputs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from dreamzero.report import style, video


@pytest.fixture
def clip() -> np.ndarray:
    frames = np.zeros((9, 16, 24, 3), np.uint8)
    for t in range(9):
        frames[t, :, 2 * t : 2 * t + 4] = (250, 30, 30)
    return frames


def test_strip_shows_first_and_last_frame(clip: np.ndarray, tmp_path: Path) -> None:
    figure = style.strip({"true": clip, "dreamed": clip}, count=3, rate_hz=5, title="An episode")
    shown = [axis.get_images()[0].get_array() for axis in figure.axes]
    assert len(shown) == 6
    for row in (shown[:3], shown[3:]):
        np.testing.assert_array_equal(row[0], clip[0])
        np.testing.assert_array_equal(row[2], clip[8])
    assert [axis.get_title("center") for axis in figure.axes[:3]] == ["0.0 s", "0.8 s", "1.6 s"]
    path = style.save(figure, tmp_path, "strip")
    assert path.read_bytes().startswith(b"\x89PNG")
    _close(figure)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((3, 8, 8), np.uint8), np.zeros((3, 8, 8, 3), np.float32), np.zeros((0, 8, 8, 3))],
)
def test_strip_refuses_what_is_no_video(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8|at least one"):
        style.strip(frames)


def test_strip_refuses_rows_of_different_length(clip: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one length"):
        style.strip({"a": clip, "b": clip[:4]})


def test_bars_carry_value_and_interval() -> None:
    figure = style.interval_bars([("seen", 0.82, 0.76, 0.87, "n = 200"), ("still", 0, 0, 0.02)])
    axis = figure.axes[0]
    assert [patch.get_width() for patch in axis.patches] == pytest.approx([82.0, 0.0])
    texts = [text.get_text() for text in axis.texts]
    assert texts == ["82 % [76, 87]   n = 200", "0 % [0, 2]"]
    _close(figure)


def test_style_is_only_on_inside_its_context() -> None:
    import matplotlib

    before = matplotlib.rcParams["axes.grid"]
    with style.context():
        assert matplotlib.rcParams["axes.grid"] is True
    assert matplotlib.rcParams["axes.grid"] == before


def test_upscale_repeats_pixels() -> None:
    small = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    large = video.upscale(small, 3)
    assert large.shape == (1, 6, 6, 3)
    np.testing.assert_array_equal(large[:, ::3, ::3], small)
    with pytest.raises(ValueError, match="factor"):
        video.upscale(small, 0)


def test_video_plays_back_what_was_written(clip: np.ndarray) -> None:
    import av

    data = video.encode_mp4(clip[:, :15, :23], fps=5, min_px=60)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert float(stream.average_rate) == 5.0
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 9
    assert frames[0].shape == (60, 92, 3)
    for t in (0, 8):  # the middle of the bar is red, the far side is dark
        middle = frames[t][30, 4 * (2 * t + 2)].astype(int)
        assert middle[0] > 180 and middle[2] < 90
    assert frames[0][30, -6].max() < 60


def test_video_refuses_floats() -> None:
    with pytest.raises(ValueError, match="uint8"):
        video.encode_mp4(np.zeros((2, 8, 8, 3)), fps=5)


def test_player_embeds_the_file(clip: np.ndarray) -> None:
    html = video.video_html(clip, fps=5).data
    assert html.startswith("<video") and "data:video/mp4;base64," in html


def _close(figure: object) -> None:
    from matplotlib import pyplot

    pyplot.close(figure)
