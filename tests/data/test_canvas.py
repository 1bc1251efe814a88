"""Views land where the card says, and come off the canvas again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.data.canvas import Augmentation, augment, cells, compose, resize, split
from dreamzero.errors import UserError


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


@given(
    layout=st.sampled_from(
        [("single", 1), ("column", 2), ("column", 3), ("droid", 3), ("grid", 3)]
    ),
    unit=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    frames=st.integers(1, 3),
)
def test_split_undoes_compose(layout: tuple, unit: tuple[int, int], frames: int) -> None:
    name, n = layout
    canvas_px = (unit[0] * 12, unit[1] * 4)
    sizes = [(h, w) for _, _, h, w in cells(name, n, canvas_px)]
    if name == "droid":
        sizes[2] = (sizes[2][0], sizes[2][1] // 2)
    views = [noise((frames, *size), i) for i, size in enumerate(sizes)]
    canvas = compose(views, name, canvas_px)
    assert canvas.dtype == np.uint8 and canvas.shape == (frames, *canvas_px, 3)
    for view, back in zip(views, split(canvas, name, n), strict=True):
        np.testing.assert_array_equal(view, back)


def test_droid_places() -> None:
    left, right, wrist = (noise((1, 176, 320), i) for i in range(3))
    canvas = compose([left, right, wrist], "droid", (352, 640))[0]
    np.testing.assert_array_equal(canvas[176:, :320], left[0])
    np.testing.assert_array_equal(canvas[176:, 320:], right[0])
    # Every pixel column doubled, not the image twice.
    np.testing.assert_array_equal(canvas[:176, 0::2], wrist[0])
    np.testing.assert_array_equal(canvas[:176, 1::2], wrist[0])


def test_grid_places() -> None:
    a, b, c = (noise((1, 176, 320), i) for i in range(3))
    canvas = compose([a, b, c], "grid", (352, 640))[0]
    np.testing.assert_array_equal(canvas[:176, :320], a[0])
    np.testing.assert_array_equal(canvas[176:, :320], b[0])
    np.testing.assert_array_equal(canvas[:176, 320:], c[0])
    assert canvas[176:, 320:].max() == 0


def test_resize_averages_when_it_shrinks() -> None:
    stripes = np.zeros((1, 32, 32, 3), np.uint8)
    stripes[:, :, ::2] = 200
    small = resize(stripes, (8, 8)).astype(float)
    assert np.abs(small[:, :, 1:-1] - 100).max() <= 8
    flat = np.full((2, 30, 17, 3), 77, np.uint8)
    assert (resize(flat, (64, 64)) == 77).all()


@pytest.mark.parametrize(
    ("layout", "views", "canvas"),
    [("single", 2, (8, 8)), ("droid", 2, (8, 8)), ("grid", 4, (8, 8)), ("column", 3, (8, 8)),
     ("mosaic", 1, (8, 8))],
)  # fmt: skip
def test_misfits_are_named(layout: str, views: int, canvas: tuple[int, int]) -> None:
    with pytest.raises(UserError):
        compose([noise((1, 4, 4))] * views, layout, canvas)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="differ in frames"):
        compose([noise((1, 4, 4)), noise((2, 4, 4))], "column", (8, 8))


def test_augmentation_moves_no_frame_against_another() -> None:
    still = np.repeat(noise((1, 40, 60)), 5, axis=0)
    out = augment([still, still[:, :20]], Augmentation(), np.random.default_rng(3))
    assert [o.shape for o in out] == [still.shape, still[:, :20].shape]
    for clip in out:
        assert (clip == clip[:1]).all()
        assert clip.dtype == np.uint8
    again = augment([still, still[:, :20]], Augmentation(), np.random.default_rng(3))
    np.testing.assert_array_equal(out[0], again[0])
    other = augment([still], Augmentation(), np.random.default_rng(4))
    assert (other[0] != out[0]).any()


def test_no_augmentation_is_the_identity() -> None:
    clip = noise((2, 10, 10))
    nothing = Augmentation(crop=1.0, brightness=0, contrast=0, saturation=0, hue=0)
    out = augment([clip], nothing, np.random.default_rng(0))[0]
    assert np.abs(out.astype(int) - clip).max() <= 1


def test_grey_stays_grey_under_hue_and_saturation() -> None:
    grey = np.full((1, 8, 8, 3), 90, np.uint8)
    only = Augmentation(crop=1.0, brightness=0, contrast=0, saturation=0.9, hue=0.5)
    for seed in range(5):
        out = augment([grey], only, np.random.default_rng(seed))[0]
        assert np.abs(out.astype(int) - 90).max() <= 1
