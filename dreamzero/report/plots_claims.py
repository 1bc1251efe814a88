"""Figures of the experiments: scenes of the suites, success over labels, methods side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from ..evaluate.statistics import Rate
from . import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..embodiments import Embodiment
    from ..evaluate.attention import Gaze
    from ..evaluate.parts import Parts
    from ..experiments.results import Measure, Result, Results


def curves(
    results: Results,
    methods: Mapping[str, str],
    labels: Sequence[int],
    panels: Mapping[str, Sequence[str]],
    group: str = "labels",
    of: Measure = "success",
) -> Figure:
    """Success (or progress) over labelled episodes, one panel a set of scenes, one line a method.

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
                    (n, _rate(results[name], places, of))
                    for n, name in names
                    if name in results.methods
                ]
                if not found:
                    continue
                x = np.array([n for n, _ in found]) * 1.03 ** (shift - 1)
                values = np.array([[r.value, r.low, r.high] for _, r in found]).T * 100
                axis.errorbar(
                    x, values[0], marker="o",
                    yerr=np.maximum(0, [values[0] - values[1], values[2] - values[0]]),
                    color=style.PALETTE[shift], capsize=3, linewidth=1.6, label=words,
                )  # fmt: skip
            axis.set(xscale="log", xticks=labels, xticklabels=labels, title=title)
            axis.minorticks_off()
            axis.set_xlabel("labelled episodes")
        axes[0, 0].set_ylabel(f"{of} (%)")
        axes[0, 0].set_ylim(bottom=0)
        handles, words = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, words, loc="outside lower center", ncols=len(methods))
    return figure


def _rate(result: Result, places: Sequence[str], of: Measure) -> Rate:
    return result.success(*places) if of == "success" else result.mean_progress(*places)


def gallery(rows: Mapping[str, Sequence[tuple[np.ndarray, str]]]) -> Figure:
    """Pictures in rows, each with a line below it.

    Args:
        rows: name -> (uint8 ``[h, w, 3]``, text); all of one length.
    """
    with style.context():
        from matplotlib import pyplot

        columns = len(next(iter(rows.values())))
        width = style.WIDTH_IN / columns
        figure, axes = pyplot.subplots(
            len(rows), columns, figsize=(style.WIDTH_IN, len(rows) * (width * 0.86)), squeeze=False
        )
        for line, (name, pictures) in zip(axes, rows.items(), strict=True):
            for axis, (picture, text) in zip(line, pictures, strict=True):
                axis.imshow(picture)
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                axis.set_xlabel("\n".join(wrap(text, 24)), fontsize=7.5, labelpad=2)
            words = name.replace("-", "\n", 1)
            line[0].set_ylabel(words, rotation=0, ha="right", va="center", labelpad=8)
    return figure


def rates(
    results: Results,
    methods: Mapping[str, str],
    places: Mapping[str, Sequence[str]],
    of: Measure = "success",
) -> Figure:
    """Success (or progress) of methods, one row each, one colour a set of scenes.

    Args:
        methods: "group/method" -> what the figure calls it; those that were not run are left out.
        places: legend -> "robot/suite" that are pooled; a method without them has no point there.
    """
    with style.context():
        from matplotlib import pyplot

        shown = {name: words for name, words in methods.items() if name in results.methods}
        figure, axis = pyplot.subplots(
            figsize=(style.WIDTH_IN, 1.1 + len(shown) * (0.16 + 0.16 * len(places)))
        )
        step = 0.7 / max(len(places), 1)
        for shift, (words, pooled) in enumerate(places.items()):
            at, values = [], []
            for y, name in enumerate(shown):
                result = results[name]
                if not all(place in result.outcomes for place in pooled):
                    continue
                rate = _rate(result, pooled, of)
                at.append(y + step * (shift - (len(places) - 1) / 2))
                values.append((rate.value, rate.low, rate.high))
            if not values:
                continue
            x, low, high = 100 * np.array(values).T
            axis.errorbar(
                x, at, xerr=np.maximum(0, [x - low, high - x]), fmt="o", color=style.PALETTE[shift],
                capsize=2.5, linewidth=1.6, label=words,
            )  # fmt: skip
        axis.set(yticks=range(len(shown)), yticklabels=list(shown.values()))
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.set_xlim(0, max(5.0, min(103.0, 1.05 * axis.get_xlim()[1])))
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(f"{of} (%)")
        if len(places) > 1:
            figure.legend(loc="outside lower center", ncols=min(len(places), 4))
    return figure


def halves(rows: Mapping[str, Parts], floor_cm: float) -> Figure:
    """Errors of dream and actions at the end of a chunk, of episodes that ended well and ill.

    Args:
        rows: label -> scores; floor_cm: error of the instrument that reads the dream.
    """
    words = {
        "plan": "dream against expert",
        "reading": "arm against dream",
        "both": "arm against expert",
        "still": "expert's movement",
    }
    with style.context():
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(
            1, len(rows), figsize=(style.WIDTH_IN, 2.8), sharey=True, sharex=True, squeeze=False
        )
        for axis, (label, found) in zip(axes[0], rows.items(), strict=True):
            for shift, (succeeded, name) in enumerate(((True, "success"), (False, "failure"))):
                if not (found.success == succeeded).any():
                    continue
                for y, key in enumerate(words):
                    rate = found.mean_cm(key, succeeded)
                    axis.errorbar(
                        rate.value, y + 0.3 * (shift - 0.5),
                        xerr=[[rate.value - rate.low], [rate.high - rate.value]], fmt="o",
                        color=(style.GREEN, style.ORANGE)[shift], capsize=2.5,
                        label=name if y == 0 else None,
                    )  # fmt: skip
            axis.axvline(floor_cm, color=style.GREY, linewidth=1, linestyle=":")
            axis.set(title=label, xlabel="cm", yticks=range(len(words)), yticklabels=words.values())
            axis.set_ylim(len(words) - 0.5, -0.5)
            axis.set_xlim(left=0)
            axis.grid(axis="y", visible=False)
        named = {
            text: line
            for axis in axes[0]
            for line, text in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=2)
    return figure


def shares(rows: Mapping[str, Rate], what: str) -> Figure:
    """One share with its interval a row.

    Args:
        rows: label -> share of 1; what: of what, under the axis.
    """
    with style.context():
        from matplotlib import pyplot

        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 0.9 + 0.34 * len(rows)))
        for y, rate in enumerate(rows.values()):
            x, low, high = (100 * v for v in (rate.value, rate.low, rate.high))
            axis.errorbar(x, y, xerr=[[x - low], [high - x]], fmt="o", color=style.BLUE, capsize=3)
        axis.set(yticks=range(len(rows)), yticklabels=rows, xlabel=what)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(left=min(0, axis.get_xlim()[0]))
        axis.grid(axis="y", visible=False)
    return figure


def forest(rows: Sequence[tuple[str, Rate, float]], xlabel: str = "ratio") -> Figure:
    """Ratios with intervals on a logarithmic axis, the goal of each as a mark.

    Args:
        rows: (label, ratio, goal).
    """
    with style.context():
        from matplotlib import pyplot

        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 0.9 + 0.36 * len(rows)))
        low_end, high_end = 0.03, 10.0
        for y, (_, rate, goal) in enumerate(rows):
            value, low, high = np.clip([rate.value, rate.low, rate.high], low_end, high_end)
            axis.errorbar(
                value, y, xerr=[[value - low], [high - value]], fmt="o", color=style.BLUE, capsize=3
            )
            axis.plot(goal, y, marker="|", markersize=14, color=style.ORANGE, markeredgewidth=2)
        axis.axvline(1, color=style.GREY, linewidth=1)
        axis.set(xscale="log", xlim=(low_end, high_end), yticks=range(len(rows)))
        ticks = {f"1/{n}": 1 / n for n in (32, 16, 8, 4, 2)} | {str(n): n for n in (1, 2, 4, 8)}
        axis.set_xticks(list(ticks.values()), list(ticks))
        axis.minorticks_off()
        axis.set_yticklabels([label for label, *_ in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(f"{xlabel} (orange: the goal)")
    return figure


def attention(frame: np.ndarray, dreamed: np.ndarray, found: Gaze, card: Embodiment) -> Figure:
    """Where the actions of a chunk look: the observed frame, and the frames that it dreams.

    Args:
        frame: uint8 ``[h, w, 3]``; dreamed: uint8 ``[t, h, w, 3]``, the frames that followed.
    """
    seen = found.observed.mean((0, 1))[-1:]
    ahead = found.dreamed.mean((0, 1))
    maps, pictures = np.concatenate([seen, ahead]), [frame]
    per_latent = card.frames_per_block // max(len(ahead), 1)
    pictures += [dreamed[(i + 1) * per_latent - 1] for i in range(len(ahead))]
    titles = [
        "observed",
        *(f"+{(i + 1) * per_latent / card.video_hz:.2f} s" for i in range(len(ahead))),
    ]
    with style.context():
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(
            2, len(maps) + 1, figsize=(style.WIDTH_IN, 4.1),
            gridspec_kw={"width_ratios": [*[1] * len(maps), 1.25]},
        )  # fmt: skip
        for column, (picture, heat, title) in enumerate(zip(pictures, maps, titles, strict=True)):
            height, width = picture.shape[:2]
            for row in (0, 1):
                axes[row, column].imshow(picture)
                axes[row, column].set(xticks=[], yticks=[])
                axes[row, column].spines[:].set_visible(False)
            axes[0, column].set_title(title)
            axes[1, column].imshow(
                heat, cmap="magma", alpha=0.65, vmin=0, vmax=float(maps.max()),
                extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear",
            )  # fmt: skip
        layers = np.arange(len(found.rest))
        for shift, (name, part) in enumerate(
            (("observed", found.observed), ("dreamed", found.dreamed))
        ):
            axes[0, -1].plot(
                layers, 100 * part.sum((2, 3, 4)).mean(1), color=style.PALETTE[shift], label=name
            )
        axes[0, -1].plot(layers, 100 * found.rest.mean(1), color=style.GREY, label="actions, state")
        axes[0, -1].set(title="share by layer (%)", xticks=layers, ylim=(0, 100))
        handles, words = axes[0, -1].get_legend_handles_labels()
        axes[1, -1].axis("off")
        axes[1, -1].legend(handles, words, loc="center")
    return figure
