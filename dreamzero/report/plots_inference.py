"""Figures of inference: the window over time, where a chunk's time goes, cached against recomputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..evaluate.probe import Comparison


def cache_timeline(cached: Sequence[int], capacity: int, per_block: int = 2) -> Figure:
    """Which latent frames the model sees at every chunk: observed ones from the cache, and its own.

    Args:
        cached: latent frames in the cache when a chunk was predicted, one entry a chunk.
        capacity: latent frames of the window.
    """
    with style.context():
        from matplotlib import pyplot
        from matplotlib.patches import Patch

        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 2.7))
        for chunk, seen in enumerate(cached):
            for frame in range(capacity):
                colour = "white"
                if frame < seen:
                    colour = style.BLUE if frame else style.SKY
                elif frame < seen + per_block:
                    colour = style.ORANGE
                axis.add_patch(
                    pyplot.Rectangle(
                        (chunk - 0.42, frame - 0.42),
                        0.84,
                        0.84,
                        facecolor=colour,
                        edgecolor="#cccccc",
                    )
                )
        axis.set(
            xlim=(-0.6, len(cached) - 0.4),
            ylim=(-0.6, capacity - 0.4),
            xticks=range(len(cached)),
            yticks=range(capacity),
            xlabel="chunk of the episode",
            ylabel="latent frame",
        )
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        names = {
            style.SKY: "first frame",
            style.BLUE: "observed frames (cache)",
            style.ORANGE: "dreamed now",
        }
        handles = [Patch(color=colour, label=label) for colour, label in names.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def breakdown(chunks: Mapping[str, Mapping[str, float]], limit_ms: float | None = None) -> Figure:
    """Stacked bars: milliseconds of every part of a chunk.

    Args:
        chunks: setting -> part -> milliseconds.
        limit_ms: time that the robot takes to execute a chunk; written into the title.
    """
    with style.context():
        from matplotlib import pyplot

        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 1.5 + 0.45 * len(chunks)))
        parts = list(next(iter(chunks.values())))
        left = np.zeros(len(chunks))
        for colour, part in zip(style.PALETTE, parts, strict=False):
            widths = np.array([c[part] for c in chunks.values()])
            axis.barh(list(chunks), widths, left=left, color=colour, height=0.6, label=part)
            for y, (width, start) in enumerate(zip(widths, left, strict=True)):
                if width > 0.09 * max(sum(c.values()) for c in chunks.values()):
                    axis.text(
                        start + width / 2, y, f"{width:.0f}", ha="center", va="center", color="w"
                    )
            left += widths
        axis.set_xlabel("milliseconds a chunk")
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        if limit_ms is not None:
            axis.set_title(f"A chunk lasts {limit_ms:.0f} ms on the robot")
        figure.legend(loc="outside lower center", ncols=len(parts))
    return figure


def paired_times(comparison: Comparison) -> Figure:
    """Seconds of the cached and of the recomputed evaluation, measured in turn."""
    with style.context():
        from matplotlib import pyplot

        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 2.4))
        for label, seconds, colour in (
            ("with the cache", comparison.cached_s, style.BLUE),
            ("everything recomputed", comparison.recomputed_s, style.ORANGE),
        ):
            turns = np.arange(1, len(seconds) + 1)
            axis.plot(turns, 1e3 * seconds, "o", color=colour, label=label)
            axis.axhline(1e3 * float(np.median(seconds)), color=colour, linewidth=1)
        axis.set(xlabel="turn", ylabel="ms an evaluation")
        axis.set_ylim(bottom=0)
        figure.legend(loc="outside upper center", ncols=2)
    return figure
