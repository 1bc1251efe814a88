"""Where the views of a robot lie on its canvas (MODEL.md 1)."""

from __future__ import annotations

from ..errors import UserError
from .card import Layout

# Least and most views of each layout.
VIEWS: dict[Layout, tuple[int, int]] = {
    "single": (1, 1),
    "column": (1, 99),
    "droid": (3, 3),
    "grid": (1, 3),
}


def cells(
    layout: Layout, views: int, canvas_px: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) on the canvas of each view.

    Raises:
        UserError: the layout does not take that many views, or the canvas does not divide.
    """
    height, width = canvas_px
    if layout not in VIEWS:
        raise UserError(f"unknown layout {layout!r}; known: {', '.join(VIEWS)}")
    least, most = VIEWS[layout]
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


def view_sizes(layout: Layout, views: int, canvas_px: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) that each view is brought to: its cell, or half of it where columns double."""
    found = cells(layout, views, canvas_px)
    return [(h, w // 2 if layout == "droid" and w == canvas_px[1] else w) for _, _, h, w in found]
