"""Several models or settings side by side, one panel a measure, with intervals; and cards as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..embodiments import Embodiment, Field


def compare(
    rows: Sequence[Mapping[str, Any]],
    panels: Mapping[str, str],
    reference: Mapping[str, tuple[float, str]] | None = None,
) -> Figure:
    """One row a setting, one panel a measure.

    Args:
        rows: ``label``, and for every panel (value, low, high), drawn as a point with its interval, or
            a number, drawn as a bar.
        panels: key in the rows -> axis label.
        reference: key -> (value, name) of a vertical line.
    """
    with style.context():
        from matplotlib import pyplot

        size = (style.WIDTH_IN, 1.15 + 0.3 * len(rows) + 0.2 * bool(reference))
        figure, axes = pyplot.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
        y = np.arange(len(rows))
        panel = zip(axes[0], panels.items(), style.PALETTE, strict=False)
        for axis, (key, label), colour in panel:
            if np.ndim(rows[0][key]) == 0:
                values = np.array([row[key] for row in rows], dtype=float)
                axis.barh(y, values, color=colour, alpha=0.85, height=0.6)
                for place, value in zip(y, values, strict=True):
                    axis.text(value, place, f" {value:.3g}", va="center", fontsize=9)
                axis.set_xlim(0, 1.25 * max(values.max(), 1e-9))
            else:
                values, low, high = np.array([row[key] for row in rows], dtype=float).T
                error = np.maximum([values - low, high - values], 0.0)
                axis.errorbar(
                    values, y, xerr=error, fmt="o", color=colour, capsize=3, linewidth=1.3
                )
            if reference and key in reference:
                at, name = reference[key]
                axis.axvline(at, color=style.GREY, linestyle="--", linewidth=1)
                axis.set_title(name, fontsize=9, fontweight="normal", color=style.GREY)
            axis.set_xlabel(label)
            axis.grid(axis="y", visible=False)
            axis.tick_params(axis="y", length=0)
        axes[0, 0].set(yticks=y, yticklabels=[row["label"] for row in rows])
        axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def spaces(cards: Sequence[Embodiment]) -> list[dict[str, Any]]:
    """Rows of a table: what each body measures, what it is commanded, and how fast."""
    return [
        {
            "card": card.name,
            "state": _fields(card.state),
            "action": _fields(card.action),
            "video": f"{card.video_hz:g} Hz, {card.canvas_px[0]} x {card.canvas_px[1]} px",
            "chunk": f"{card.horizon} steps at {card.action_hz:g} Hz, {card.frames_per_block} frames",
        }
        for card in cards
    ]


def _fields(fields: Sequence[Field]) -> str:
    return (
        ", ".join(f"{f.width} {f.key}{' (relative)' if f.relative else ''}" for f in fields)
        or "none"
    )
