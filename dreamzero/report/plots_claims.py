"""Success over the number of labels, and methods side by side, from the cells of the experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..evaluate.statistics import Rate
from . import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..experiments.results import Results


def curves(
    results: Results,
    methods: Mapping[str, str],
    labels: Sequence[int],
    panels: Mapping[str, Sequence[str]],
    group: str = "labels",
) -> Figure:
    """Success over labelled episodes, one panel a set of scenes, one line a method.

    Args:
        methods: name in the grid without its number ("wam") -> what the legend says.
        panels: title -> "robot/suite" that are pooled.
    """
    with style.context():
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(
            1, len(panels), figsize=(style.WIDTH_IN, 3.0), sharey=True, squeeze=False
        )
        for axis, (title, places) in zip(axes[0], panels.items(), strict=True):
            for shift, (method, words) in enumerate(methods.items()):
                names = [(n, f"{group}/{method}-{n}") for n in labels]
                found = [
                    (n, results[name].success(*places))
                    for n, name in names
                    if name in results.methods
                ]
                if not found:
                    continue
                x = np.array([n for n, _ in found]) * 1.03 ** (shift - 1)
                values = np.array([[r.value, r.low, r.high] for _, r in found]).T * 100
                axis.errorbar(
                    x, values[0], yerr=[values[0] - values[1], values[2] - values[0]], marker="o",
                    color=style.PALETTE[shift], capsize=3, linewidth=1.6, label=words,
                )  # fmt: skip
            axis.set(xscale="log", xticks=labels, xticklabels=labels, title=title)
            axis.minorticks_off()
            axis.set_xlabel("labelled episodes")
        axes[0, 0].set_ylabel("success (%)")
        axes[0, 0].set_ylim(bottom=0)
        handles, words = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, words, loc="outside lower center", ncols=len(methods))
    return figure


def forest(rows: Sequence[tuple[str, Rate, float]], xlabel: str = "ratio") -> Figure:
    """Ratios with intervals on a logarithmic axis, the goal of each as a mark.

    Args:
        rows: (label, ratio, goal).
    """
    with style.context():
        from matplotlib import pyplot

        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 0.9 + 0.36 * len(rows)))
        low_end, high_end = 0.2, 10.0
        for y, (_, rate, goal) in enumerate(rows):
            value, low, high = np.clip([rate.value, rate.low, rate.high], low_end, high_end)
            axis.errorbar(
                value, y, xerr=[[value - low], [high - value]], fmt="o", color=style.BLUE, capsize=3
            )
            axis.plot(goal, y, marker="|", markersize=14, color=style.ORANGE, markeredgewidth=2)
        axis.axvline(1, color=style.GREY, linewidth=1)
        axis.set(xscale="log", xlim=(low_end, high_end), yticks=range(len(rows)))
        axis.set_xticks([0.25, 0.5, 1, 2, 4, 8], ["1/4", "1/2", "1", "2", "4", "8"])
        axis.minorticks_off()
        axis.set_yticklabels([label for label, *_ in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(f"{xlabel} (orange: the goal)")
    return figure
