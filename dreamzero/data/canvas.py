"""Views put together on one canvas, taken apart again, and varied for training (MODEL.md 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ..embodiments.card import Layout
from ..embodiments.layout import cells, view_sizes
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
    sizes = view_sizes(layout, len(views), canvas_px)
    for clip, (top, left, h, w), size in zip(views, places, sizes, strict=True):
        image = resize(clip, size)
        canvas[:, top : top + h, left : left + w] = image.repeat(w // size[1], axis=2)
    return canvas


def split(canvas: np.ndarray, layout: Layout, views: int) -> list[np.ndarray]:
    """The views on a canvas uint8 ``[t, H, W, 3]``, each at its cell's size; inverse of ``compose``."""
    size = (int(canvas.shape[1]), int(canvas.shape[2]))
    places, sizes = cells(layout, views, size), view_sizes(layout, views, size)
    return [
        canvas[:, top : top + h, left : left + w : w // own[1]]
        for (top, left, h, w), own in zip(places, sizes, strict=True)
    ]


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

    def scaled(self, share: float) -> Augmentation:
        """So much of it: 1 is all, 0 changes nothing."""
        kept = 1.0 - share * (1.0 - self.crop)
        rest = (self.brightness, self.contrast, self.saturation, self.hue)
        return Augmentation(kept, *(share * each for each in rest))


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
