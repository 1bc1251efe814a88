"""Looks: light, table, camera and clutter of a scene, and the ranges they are drawn from."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]
SHAPES = ("cylinder", "sphere", "box")


@dataclass(frozen=True)
class Clutter:
    """An object that only decorates: it lies outside the workspace and touches nothing.

    Attributes:
        shape: one of ``SHAPES``.
        x_m, y_m: where it stands on the table.
        size_m: radius or half edge.
        rgb: colour, each in [0, 1].
    """

    shape: str
    x_m: float
    y_m: float
    size_m: float
    rgb: tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """How a scene is lit, coloured and seen.

    Attributes:
        table_rgb: colour of the table top.
        light_azimuth_rad, light_elevation_rad: where the directional light comes from; azimuth 0 is
            the side of the front camera.
        light: intensity of the directional light, 1 is nominal.
        ambient: intensity of the light from everywhere.
        camera_azimuth_rad, camera_elevation_rad: turn of the exterior cameras about the workspace.
        camera_shift_m: (x, y) shift of the point they look at.
        clutter: decorations.
    """

    table_rgb: tuple[float, float, float] = (0.62, 0.60, 0.56)
    light_azimuth_rad: float = 0.6
    light_elevation_rad: float = 1.0
    light: float = 1.0
    ambient: float = 0.52
    camera_azimuth_rad: float = 0.0
    camera_elevation_rad: float = 0.0
    camera_shift_m: tuple[float, float] = (0.0, 0.0)
    clutter: tuple[Clutter, ...] = ()


@dataclass(frozen=True)
class LookRange:
    """Ranges a look is drawn from: (lowest, highest) of the fields of ``Look``.

    Attributes:
        hue, saturation, value: of the table.
        camera_azimuth_rad, camera_elevation_rad, camera_shift_m: drawn with either sign.
        clutter: lowest and highest number of decorations.
        shapes: that decorations may have.
    """

    hue: Range
    saturation: Range
    value: Range
    light_azimuth_rad: Range
    light_elevation_rad: Range
    light: Range
    ambient: Range
    camera_azimuth_rad: Range
    camera_elevation_rad: Range
    camera_shift_m: Range
    clutter: tuple[int, int]
    shapes: tuple[str, ...]

    def sample(self, rng: np.random.Generator) -> Look:
        """One look; the same generator state gives the same look."""
        table = colorsys.hsv_to_rgb(
            rng.uniform(*self.hue), rng.uniform(*self.saturation), rng.uniform(*self.value)
        )

        def signed(bounds: Range) -> float:
            return float(rng.uniform(*bounds) * rng.choice((-1.0, 1.0)))

        return Look(
            table_rgb=table,
            light_azimuth_rad=float(rng.uniform(*self.light_azimuth_rad)),
            light_elevation_rad=float(rng.uniform(*self.light_elevation_rad)),
            light=float(rng.uniform(*self.light)),
            ambient=float(rng.uniform(*self.ambient)),
            camera_azimuth_rad=signed(self.camera_azimuth_rad),
            camera_elevation_rad=signed(self.camera_elevation_rad),
            camera_shift_m=(signed(self.camera_shift_m), signed(self.camera_shift_m)),
            clutter=tuple(
                self._clutter(rng, side)
                for side in rng.permutation(4)[: rng.integers(self.clutter[0], self.clutter[1] + 1)]
            ),
        )

    def _clutter(self, rng: np.random.Generator, side: int) -> Clutter:
        """A dull object in one of four corners beside the workspace, where no arm goes."""
        sign_x, sign_y = ((1, 1), (1, -1), (-1, 1), (-1, -1))[side]
        grey = rng.uniform(0.15, 0.85)
        tint = colorsys.hsv_to_rgb(rng.random(), 0.18, grey)
        return Clutter(
            shape=self.shapes[int(rng.integers(len(self.shapes)))],
            x_m=float(sign_x * rng.uniform(0.04, 0.12)),
            y_m=float(sign_y * rng.uniform(0.165, 0.19)),
            size_m=float(rng.uniform(0.010, 0.018)),
            rgb=tint,
        )


def _deg(low: float, high: float) -> Range:
    return math.radians(low), math.radians(high)


# Light from the front half, dull tables from grey to wood, a camera knocked by up to 3 degrees.
TRAIN = LookRange(
    hue=(0.04, 0.14),
    saturation=(0.0, 0.25),
    value=(0.55, 0.85),
    light_azimuth_rad=_deg(-90, 90),
    light_elevation_rad=_deg(45, 80),
    light=(0.7, 1.15),
    ambient=(0.45, 0.62),
    camera_azimuth_rad=_deg(0, 3),
    camera_elevation_rad=_deg(0, 2),
    camera_shift_m=(0.0, 0.005),
    clutter=(0, 2),
    shapes=("cylinder", "sphere"),
)

# Nothing of this is in TRAIN: cyan tables (no block of the default tasks has their hue), low and dim
# light from behind, a camera further off its place, more clutter and of another shape.
UNSEEN = LookRange(
    hue=(0.43, 0.56),
    saturation=(0.28, 0.45),
    value=(0.55, 0.85),
    light_azimuth_rad=_deg(110, 250),
    light_elevation_rad=_deg(25, 43),
    light=(0.50, 0.68),
    ambient=(0.34, 0.43),
    camera_azimuth_rad=_deg(4, 7),
    camera_elevation_rad=_deg(2.5, 4),
    camera_shift_m=(0.006, 0.012),
    clutter=(3, 4),
    shapes=("box",),
)
