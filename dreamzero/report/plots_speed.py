"""Figures of speed: ladders of optimisations, the roofline, and a loop on the wall clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .hardware import Published
    from .realtime import RealTime, Span
    from .speed_study import Climb, Limits

TIERS = {"exact": style.BLUE, "numeric": style.GREEN, "approximate": style.ORANGE}


def published(rows: Sequence[Published], baseline_s: float) -> Figure:
    """The ladder of the paper: how many times as fast as its baseline, on two machines."""
    with style.context():
        from matplotlib import pyplot

        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 0.9 + 0.46 * len(rows)))
        y = np.arange(len(rows))
        for shift, colour, name, factors in (
            (-0.19, style.SKY, "H100", [r.h100 for r in rows]),
            (0.19, style.GREY, "GB200", [r.gb200 for r in rows]),
        ):
            widths = [factor or 0.0 for factor in factors]
            axis.barh(y + shift, widths, height=0.36, color=colour, label=name)
            for place, factor in zip(y + shift, factors, strict=True):
                text = (
                    f" {factor:g} x, {baseline_s / factor:.2f} s" if factor else " none published"
                )
                grey = style.INK if factor else style.GREY
                axis.text(factor or 0, place, text, va="center", fontsize=8, color=grey)
        axis.set(xlabel="times as fast as 5.7 s a chunk (published, not measured here)")
        axis.set_xlim(0, 1.22 * max(r.gb200 for r in rows))
        _names(axis, [r.label for r in rows])
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def ladder(climb: Climb) -> Figure:
    """Every way to make a chunk, one bar each: how many times as fast as the plain path."""
    with style.context():
        from matplotlib import pyplot
        from matplotlib.patches import Patch

        rungs = climb.steps
        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 1.1 + 0.38 * len(rungs)))
        gains = [climb.gain(rung.label) for rung in rungs]
        colours = [TIERS[rung.tier] for rung in rungs]
        axis.barh(range(len(rungs)), gains, height=0.66, color=colours)
        for y, (rung, gain) in enumerate(zip(rungs, gains, strict=True)):
            text = f" {gain:.1f} x   {rung.rate_hz:.1f} chunks/s   {rung.ms:.0f} ms"
            axis.text(gain, y, text, va="center", fontsize=9)
        axis.set_xlim(0, 1.55 * max(gains))
        axis.set_xlabel("times as fast as the plain path")
        _names(axis, [rung.label for rung in rungs])
        used = [tier for tier in TIERS if any(rung.tier == tier for rung in rungs)]
        handles = [Patch(color=TIERS[tier], label=tier) for tier in used]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(used))
    return figure


def roofline(limits: Limits) -> Figure:
    """Operations a second against operations a byte, below the two ceilings that were measured."""
    with style.context():
        from matplotlib import pyplot
        from matplotlib.ticker import LogLocator, NullLocator

        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 3.2))
        peak, bandwidth = limits.ceilings.flops / 1e9, limits.ceilings.bytes / 1e9
        knee = peak / bandwidth
        around = [part.intensity for part in limits.parts] + [knee]
        x = np.geomspace(min(around) / 4, max(around) * 8, 200)
        axis.plot(x, np.minimum(x * bandwidth, peak), color=style.INK)
        axis.text(x[-1], peak * 1.07, f"matrix product, {peak:.0f} GFLOP/s", ha="right", fontsize=9)
        axis.text(knee * 0.9, peak * 1.07, f"copy, {bandwidth:.0f} GB/s", ha="right", fontsize=9)
        rates = []
        first = min(limits.parts, key=lambda part: part.intensity)
        for part, colour in zip(limits.parts, style.PALETTE, strict=False):
            rates.append(part.work.flops / part.seconds / 1e9)
            share = limits.percent(part.label)
            axis.plot(part.intensity, rates[-1], "o", color=colour, markersize=8)
            axis.plot([part.intensity] * 2, [rates[-1], min(part.intensity * bandwidth, peak)],
                      color=colour, linewidth=0.8, linestyle=":")  # fmt: skip
            side = -1 if part is first else 1
            # What stands at the roof is labelled below it.
            down = -14 if rates[-1] > 0.85 * peak else 0
            axis.annotate(
                f"{part.label}: {share:.0f} %, {1e3 * part.seconds:.1f} ms",
                (part.intensity, rates[-1]), xytext=(10 * side, down), textcoords="offset points",
                va="center", ha="right" if part is first else "left", fontsize=9, color=colour,
            )  # fmt: skip
        axis.set(
            xscale="log", yscale="log", ylim=(min(*rates, peak / 2) / 2, peak * 1.4),
            xlim=(x[0], x[-1]), xlabel="operations a byte that has to move",
            ylabel="GFLOP a second",
        )  # fmt: skip
        for way in (axis.xaxis, axis.yaxis):
            way.set_major_locator(LogLocator(subs=(1, 2, 5)))
            way.set_major_formatter("{x:g}")
            way.set_minor_locator(NullLocator())
    return figure


def wall_clock(run: RealTime, seconds: float = 1.2) -> Figure:
    """The first moments of a loop on the wall clock: when it looked, thought and acted."""
    with style.context():
        from matplotlib import pyplot

        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 2.1))
        begin = min(run.observing[0][0], 0.0)
        starts = [start for start, _ in run.acting]
        # A step is in force until the next one begins.
        steps = list(zip(starts, [*starts[1:], starts[-1] + run.step_s], strict=True))
        rows: list[tuple[str, list[Span], str]] = [
            ("looks", run.observing, style.ORANGE),
            ("thinks", run.thinking, style.BLUE),
            ("steps", steps, style.GREEN),
        ]
        for y, (_, spans, colour) in enumerate(rows):
            for number, (start, end) in enumerate(spans):
                # What is shorter than a line is wide shall still be seen.
                width = max(end - start, 0.004)
                shade = 0.85 if y < 2 or number % 2 else 0.55
                axis.broken_barh(
                    [(start, width)], (y - 0.36, 0.72), color=colour, alpha=shade, linewidth=0
                )
        for boundary in np.arange(0, seconds, run.lasts_s):
            axis.axvline(boundary, color=style.GREY, linestyle=":", linewidth=1)
        think_ms = 1e3 * float(np.median(run.chunk_s))
        axis.set_title(
            f"a chunk takes {think_ms:.0f} ms, the next is due after {1e3 * run.lasts_s:.0f} ms"
        )
        axis.set(xlim=(begin - 0.01, seconds), xlabel="seconds of wall clock")
        _names(axis, [name for name, _, _ in rows])
    return figure


def _names(axis: Axes, labels: Sequence[str]) -> None:
    axis.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.5, -0.5))
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
