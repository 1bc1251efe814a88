"""Figures of training: losses, noise levels, noising, PSNR by frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..evaluate.openloop import OpenLoop

Rows = Sequence[Mapping[str, Any]]


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """Rows of a run's ``log.jsonl``."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def smooth(values: np.ndarray, share: float = 0.15) -> np.ndarray:
    """Mean over neighbours from i (1 - share) to i (1 + share): even on a logarithmic axis; ``[n]``."""
    number = np.arange(1, len(values) + 1)
    low = np.floor(number * (1 - share)).astype(int)
    high = np.minimum(np.ceil(number * (1 + share)).astype(int), len(values))
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((total[high] - total[low]) / (high - low))


def loss_curves(logs: Mapping[str, Rows]) -> Figure:
    """Video and action loss against steps, one colour a run; points are of held-out first chunks.

    Args:
        logs: label -> rows of ``log.jsonl`` (step, video, action, sometimes held_out_video ...).
    """
    with style.context():
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(1, 2, figsize=(style.WIDTH_IN, 3.3))
        for axis, name in zip(axes, ("video", "action"), strict=True):
            for colour, (label, rows) in zip(style.PALETTE, logs.items(), strict=False):
                steps = np.array([row["step"] for row in rows])
                values = np.array([row[name] for row in rows])
                axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
                axis.plot(steps, smooth(values), color=colour, label=label)
                held = [r for r in rows if f"held_out_{name}" in r]
                axis.plot(
                    [r["step"] for r in held],
                    [r[f"held_out_{name}"] for r in held],
                    linestyle="none",
                    marker="o",
                    markersize=4,
                    color=colour,
                    markeredgecolor="white",
                )
            axis.set(xscale="log", yscale="log", xlabel="step", title=f"{name} loss")
            _plain_ticks(axis)
        axes[0].set_ylabel("mean squared velocity error")
        # Under the plots, where no curve can run through it.
        handles, labels = axes[1].get_legend_handles_labels()
        handles += axes[0].plot([], [], "o", color=style.GREY, markersize=4)
        labels.append("held-out first chunks")
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3))
    return figure


def early_signals(logs: Mapping[str, Rows], bar: float | None = None) -> Figure:
    """What sampled actions and dreams of held-out episodes were worth, against core-minutes.

    Args:
        logs: label -> rows of ``log.jsonl``; those of evaluations hold ``open_loop``.
        bar: an error that was asked for, as a share of holding still.
    """
    with style.context():
        from matplotlib import pyplot

        figure, (left, right) = pyplot.subplots(1, 2, figsize=(style.WIDTH_IN, 3.2))
        for colour, (label, rows) in zip(style.PALETTE, logs.items(), strict=False):
            found = [row for row in rows if "open_loop" in row]
            minutes = [row.get("cpu_seconds", row["seconds"]) / 60 for row in found]
            name = f"{label}: " if len(logs) > 1 else ""
            for key, what, dash in (
                ("open_loop", "over the horizon", "-o"),
                ("open_loop_end", "at its end", ":"),
            ):
                values = [row[key] for row in found]
                left.plot(minutes, values, dash, color=colour, markersize=3, label=name + what)
            for key, what, dash in (
                ("dream_psnr", "dream", "-o"),
                ("still_psnr", "last frame repeated", "--"),
            ):
                shown = [(m, row[key]) for m, row in zip(minutes, found, strict=True) if key in row]
                tint = colour if key == "dream_psnr" else style.GREY
                right.plot(
                    *zip(*shown, strict=True), dash, color=tint, markersize=3, label=name + what
                )
        left.axhline(1.0, color=style.GREY, linewidth=1, linestyle="--", label="holding still")
        if bar is not None:
            left.axhline(
                bar, color=style.INK, linewidth=1, linestyle=":", label=f"{bar:g}, asked for"
            )
        left.set(xlabel="minutes of one core", title="Sampled actions", ylim=(0, None))
        left.set_ylabel("error / that of holding still")
        right.set(xlabel="minutes of one core", title="Dreams", ylabel="PSNR (dB)")
        for axis in (left, right):
            axis.set_xlim(left=0)
            axis.legend(fontsize=8)
    return figure


def noise_schedule(shift: float, sampling: Mapping[str, np.ndarray]) -> Figure:
    """How the flow shift bends noise levels: the curve, the samplers' stops, what training draws.

    Args:
        sampling: label -> sigmas ``[steps + 1]``, noise first.
    """
    from ..flow.schedule import shift_sigma, train_sigmas

    s = np.linspace(0, 1, 201)
    with style.context():
        from matplotlib import pyplot

        figure, (left, right) = pyplot.subplots(1, 2, figsize=(style.WIDTH_IN, 3.2))
        left.plot(s, s, color=style.GREY, linewidth=1, linestyle="--", label="shift 1")
        curve = np.array([float(shift_sigma(float(x), shift)) for x in s])
        left.plot(s, curve, color=style.INK, linewidth=1.3, label=f"shift {shift:g}")
        markers = "osD^"
        for i, (label, sigmas) in enumerate(sampling.items()):
            x = np.linspace(1, 0, len(sigmas))
            left.plot(
                x, sigmas, markers[i % 4], color=style.PALETTE[i], markersize=6 - i, label=label
            )
        left.set(xlabel="s", ylabel="sigma", title="Sampling")
        left.invert_xaxis()
        left.legend(loc="lower left")
        drawn = train_sigmas(shift).numpy()
        right.hist(drawn, bins=25, range=(0, 1), color=style.BLUE, alpha=0.8, density=True)
        right.axhline(1.0, color=style.GREY, linewidth=1, linestyle="--")
        right.text(0.02, 1.08, "without shift", color=style.GREY, fontsize=9)
        right.set(xlabel="sigma", ylabel="density", title="What training draws")
    return figure


def denoising(columns: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    """Two rows of pictures: what the sampler holds at each stop, and what the model makes of it.

    Args:
        columns: (title, picture, picture) with uint8 ``[h, w, 3]`` each.
    """
    with style.context():
        from matplotlib import pyplot

        height, width = columns[0][1].shape[:2]
        side = (style.WIDTH_IN - 1.2) / len(columns)
        figure, axes = pyplot.subplots(
            2,
            len(columns),
            figsize=(style.WIDTH_IN, 2 * side * height / width + 0.35),
            squeeze=False,
        )
        pads = {"w_pad": 0.015, "h_pad": 0.015, "wspace": 0.0, "hspace": 0.0}
        figure.set_layout_engine("constrained", **pads)
        for pair, (title, above, below) in zip(axes.T, columns, strict=True):
            for axis, picture in zip(pair, (above, below), strict=True):
                axis.imshow(picture, interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            pair[0].set_title(title, fontsize=9, fontweight="normal", loc="center", pad=3)
        for axis, label in zip(axes[:, 0], ("sampler", "model's\nguess"), strict=True):
            axis.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
    return figure


def psnr_by_frame(runs: Mapping[str, OpenLoop], rate_hz: float) -> Figure:
    """PSNR of dreams against time since the last frame seen: all pixels, and those that move.

    The grey lines are of the first run's recordings: repeating the last frame, and the codec.
    """
    with style.context():
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(1, 2, figsize=(style.WIDTH_IN, 3.3))
        first = next(iter(runs.values()))
        frames = len(first.chunks[0].true)
        seconds = np.arange(1, frames + 1) / rate_hz
        lines = [
            (label, run, "dream", colour, "-")
            for colour, (label, run) in zip(style.PALETTE, runs.items(), strict=False)
        ]
        lines.append(("truth through the codec", first, "codec", style.INK, ":"))
        lines.append(("repeat the last frame", first, "repeat", style.GREY, "--"))
        for axis, moving in zip(axes, (False, True), strict=True):
            for label, run, source, colour, dash in lines:
                points = [run.psnr(source, moving, t) for t in range(frames)]  # type: ignore[arg-type]
                axis.plot(seconds, [p.value for p in points], dash, color=colour, label=label)
                if source == "dream":
                    low, high = [p.low for p in points], [p.high for p in points]
                    axis.fill_between(seconds, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.set(xlabel="seconds since the last frame seen")
            axis.set_title("pixels that move" if moving else "all pixels")
        axes[0].set_ylabel("PSNR (dB)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _plain_ticks(axis: Axes) -> None:
    """Numbers as people write them on a logarithmic axis, few enough to be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        side.set_minor_formatter(NullFormatter())
