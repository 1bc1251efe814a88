"""A metric against the parameter that was swept: one panel a metric, one line a further setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import style
from .grid import SEED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .summary import Setting

_DODGE = 0.12  # between the lines of one place on an axis of names


def draw(groups: Sequence[Setting], metrics: Sequence[str], axes: Sequence[str]) -> Figure:
    """Mean and range over seeds, or the metric's own 95 % interval where the seed does not vary.

    Args:
        groups: the settings, seeds together.
        metrics: one panel each.
        axes: what varies; the first but the seed runs to the right, the others are lines. Where the
            seed alone varies it runs to the right itself.
    """
    others = [name for name in axes if name != SEED]
    with style.context():
        from matplotlib import pyplot

        columns = min(2, len(metrics))
        lines = -(-len(metrics) // columns)
        figure, panels = pyplot.subplots(
            lines, columns, figsize=(style.WIDTH_IN, 2.9 * lines), squeeze=False
        )
        for panel, name in zip(panels.flat, metrics, strict=False):
            if others:
                _lines(panel, groups, name, others, SEED in axes)
            else:
                _seeds(panel, groups[0], name)
            unit = next((m.unit for g in groups for _, m in g.found(name)), "")
            panel.set_title(name.replace("_", " "))
            panel.set_ylabel(unit or None)
        for panel in panels.flat[len(metrics) :]:
            panel.set_visible(False)
        handles, labels = panels.flat[0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)))
    return figure


def _lines(
    panel: Axes, groups: Sequence[Setting], name: str, others: list[str], seeds: bool
) -> None:
    first, rest = others[0], others[1:]
    places = list(dict.fromkeys(group.values[first] for group in groups))
    numeric = all(isinstance(p, (int, float)) and not isinstance(p, bool) for p in places)
    logarithmic = numeric and min(places) > 0 and max(places) >= 30 * min(places)
    series: dict[str, list[Setting]] = {}
    for group in groups:
        label = ", ".join(f"{key} = {group.values[key]}" for key in rest)
        series.setdefault(label, []).append(group)
    for index, (label, line) in enumerate(series.items()):
        width = 1.0 if not numeric else 0.0 if logarithmic else (max(places) - min(places)) / 8
        shift = width * _DODGE * (index - (len(series) - 1) / 2)
        points = []
        for group in line:
            found = group.found(name)
            if found:
                place = group.values[first]
                x = (place if numeric else places.index(place)) + shift
                points.append(
                    (x, *_spread(found, seeds), [float(m.value or 0.0) for _, m in found])
                )
        if not points:
            continue
        points.sort(key=lambda point: point[0])
        x, mean, low, high = np.array([point[:4] for point in points], dtype=float).T
        colour = style.PALETTE[index % len(style.PALETTE)]
        panel.errorbar(
            x, mean, yerr=[mean - low, high - mean], fmt="o-" if numeric else "o", color=colour,
            capsize=3, linewidth=1.5, label=label or None,
        )  # fmt: skip
        for point in points:
            if len(point[4]) > 1:
                panel.scatter([point[0]] * len(point[4]), point[4], s=14, color=colour, alpha=0.35)
    panel.set_xlabel(first)
    if not numeric:
        panel.set(xticks=range(len(places)), xticklabels=[str(p) for p in places])
        panel.set_xlim(-0.5, len(places) - 0.5)
        panel.grid(axis="x", visible=False)
        return
    if logarithmic:
        panel.set_xscale("log")
    if len(places) <= 6:
        panel.set_xticks(places, [str(place) for place in places])
        panel.minorticks_off()


def _seeds(panel: Axes, group: Setting, name: str) -> None:
    found = group.found(name)
    if not found:
        return
    values = np.array([float(m.value) for _, m in found])  # type: ignore[arg-type]
    low = np.array([v if m.low is None else m.low for v, (_, m) in zip(values, found, strict=True)])
    high = np.array(
        [v if m.high is None else m.high for v, (_, m) in zip(values, found, strict=True)]
    )
    if len(values) > 1:
        panel.axhspan(values.min(), values.max(), color=style.SKY, alpha=0.18, linewidth=0)
        panel.axhline(values.mean(), color=style.BLUE, linewidth=1.2, alpha=0.8)
    error = np.maximum([values - low, high - values], 0.0)
    panel.errorbar(range(len(values)), values, yerr=error, fmt="o", color=style.BLUE, capsize=3)
    panel.set(xticks=range(len(values)), xticklabels=[str(seed) for seed, _ in found])
    panel.set_xlabel(SEED)
    panel.set_xlim(-0.5, len(values) - 0.5)
    panel.grid(axis="x", visible=False)


def _spread(found: Sequence[tuple[Any, Any]], seeds: bool) -> tuple[float, float, float]:
    """Mean and range over seeds; where the seed does not vary, the value and its own interval."""
    values = [float(m.value) for _, m in found]
    if seeds:
        return sum(values) / len(values), min(values), max(values)
    metric, value = found[0][1], values[0]
    low = value if metric.low is None else min(value, metric.low)
    high = value if metric.high is None else max(value, metric.high)
    return value, low, high
