"""Views put together on one canvas, taken apart again, and varied for training (MODEL.md 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ..embodiments.card import Layout
from ..errors import UserError


def resize(clip: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """uint8 ``[t, h, w, 3]`` to (height, width), bilinear with anti-aliasing; aspect is not kept."""
    if clip.shape[1:3] == tuple(size_px):
        return clip
    images = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)
    small = functional.interpolate(
        images, size=tuple(size_px), mode="bilinear", antialias=True, align_corners=False
    )
    return np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())


def cells(
    layout: Layout, views: int, canvas_px: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) on the canvas of each view.

    Raises:
        UserError: the layout does not take that many views, or the canvas does not divide.
    """
    height, width = canvas_px
    takes = {"single": (1, 1), "column": (1, 99), "droid": (3, 3), "grid": (1, 3)}
    if layout not in takes:
        raise UserError(f"unknown layout {layout!r}; known: {', '.join(takes)}")
    least, most = takes[layout]
    if not least <= views <= most:
        wants = str(least) if least == most else f"{least} to {most}"
        raise UserError(f"layout {layout!r} takes {wants} views, got {views}")
    rows = {"single": 1, "column": views}.get(layout, 2)
    columns = 1 if layout in ("single", "column") else 2
    if height % rows or width % columns:
        raise UserError(f"a canvas of {height} x {width} px does not divide for layout {layout!r}")
    h, w = height // rows, width // columns
    if layout in ("single", "column"):
        return [(i * h, 0, h, w) for i in range(views)]
    if layout == "droid":
        return [(h, 0, h, w), (h, w, h, w), (0, 0, h, width)]
    return [(0, 0, h, w), (h, 0, h, w), (0, w, h, w)][:views]


def compose(views: Sequence[np.ndarray], layout: Layout, canvas_px: tuple[int, int]) -> np.ndarray:
    """Views on one canvas.

    Args:
        views: uint8 ``[t, h, w, 3]`` each, equally many frames, sizes as they come. In layout
            "droid" they are exterior 1, exterior 2, wrist; the wrist is brought to a cell's size and
            then every pixel column is doubled.
        layout: see ``Embodiment.layout``.
        canvas_px: (height, width).

    Returns:
        uint8 ``[t, height, width, 3]``; what no view covers is black.
    """
    places = cells(layout, len(views), canvas_px)
    if len({len(v) for v in views}) != 1:
        raise UserError(f"views differ in frames: {[len(v) for v in views]}")
    if layout == "single":
        return resize(views[0], canvas_px)
    canvas = np.zeros((len(views[0]), *canvas_px, 3), dtype=np.uint8)
    for clip, (top, left, h, w) in zip(views, places, strict=True):
        doubled = layout == "droid" and w == canvas_px[1]
        image = resize(clip, (h, w // 2 if doubled else w))
        canvas[:, top : top + h, left : left + w] = image.repeat(2, axis=2) if doubled else image
    return canvas


def split(canvas: np.ndarray, layout: Layout, views: int) -> list[np.ndarray]:
    """The views on a canvas uint8 ``[t, H, W, 3]``, each at its cell's size; inverse of ``compose``."""
    size = (int(canvas.shape[1]), int(canvas.shape[2]))
    out = []
    for top, left, h, w in cells(layout, views, size):
        step = 2 if layout == "droid" and w == size[1] else 1
        out.append(canvas[:, top : top + h, left : left + w : step])
    return out


@dataclass(frozen=True)
class Augmentation:
    """How much a training window is varied; the released recipe by default.

    Attributes:
        crop: share of height and of width that a random crop keeps.
        brightness, contrast, saturation: factors are drawn from 1 - x to 1 + x.
        hue: turn about the grey axis, in turns, from -x to x.
    """

    crop: float = 0.95
    brightness: float = 0.3
    contrast: float = 0.4
    saturation: float = 0.5
    hue: float = 0.08


def augment(
    views: Sequence[np.ndarray], settings: Augmentation, rng: np.random.Generator
) -> list[np.ndarray]:
    """One crop a view and one colour jitter for all; the same over all frames, so motion stays true.

    Args:
        views: uint8 ``[t, h, w, 3]`` each; sizes are kept (the crop is scaled back up).
        settings: how much.
        rng: where chance comes from.
    """
    colour, contrast = _jitter(settings, rng)
    return [_recolour(_crop(clip, settings.crop, rng), colour, contrast) for clip in views]


def _crop(clip: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    height, width = clip.shape[1:3]
    h, w = max(round(height * share), 1), max(round(width * share), 1)
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return resize(clip[:, top : top + h, left : left + w], (height, width))


_GREY = np.array([0.299, 0.587, 0.114])


def _jitter(settings: Augmentation, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """(3 x 3 colour matrix, contrast factor); brightness, saturation and hue are all linear."""

    def factor(amount: float) -> float:
        return float(rng.uniform(max(0.0, 1.0 - amount), 1.0 + amount))

    brightness, contrast = factor(settings.brightness), factor(settings.contrast)
    saturation = factor(settings.saturation)
    grey = np.outer(np.ones(3), _GREY)
    matrix = saturation * np.eye(3) + (1.0 - saturation) * grey
    angle = 2.0 * np.pi * float(rng.uniform(-settings.hue, settings.hue))
    axis = np.full(3, 3.0**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) * np.cos(angle) + np.sin(angle) * cross
    turn += (1.0 - np.cos(angle)) * np.outer(axis, axis)
    return brightness * turn @ matrix, contrast


def _recolour(clip: np.ndarray, matrix: np.ndarray, contrast: float) -> np.ndarray:
    pixels = clip.reshape(-1, 3).astype(np.float32) @ matrix.T.astype(np.float32)
    mean = float(pixels.mean(0) @ _GREY)
    np.multiply(pixels, contrast, out=pixels)
    pixels += (1.0 - contrast) * mean + 0.5
    return np.clip(pixels, 0, 255).astype(np.uint8).reshape(clip.shape)
