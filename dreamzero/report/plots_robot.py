"""Figures of notebook 04: packets, joint traces, and how well the control loop kept time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dreamzero.report import style
from dreamzero.report.robot_study import Incident, Motion, Timing
from dreamzero.report.wire import Spoken

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dreamzero.robots import RunLog

_ROLES = {
    "header": style.GREY,
    "id": style.BLUE,
    "length": style.GOLD,
    "code": style.PINK,
    "parameters": style.GREEN,
    "checksum": style.ORANGE,
}


def packets(spoken: Sequence[Spoken], columns: int = 26) -> Figure:
    """Packets as rows of bytes coloured by their role, each with its meaning."""
    with style.context():
        from matplotlib import pyplot
        from matplotlib.patches import Patch, Rectangle

        rows = []  # (packet, whether its meaning goes beside it, lines of meaning below)
        for one in spoken:
            beside = len(one.data) + len(one.meaning) * 0.27 < columns + 4
            rows.append((one, beside, [] if beside else _wrap(one.meaning, 92)))
        height = sum(1.25 + 0.75 * len(lines) for _, _, lines in rows)
        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 0.24 * height + 0.45))
        y = 0.0
        for one, beside, lines in rows:
            arrow = "\N{RIGHTWARDS ARROW}" if one.direction == "out" else "\N{LEFTWARDS ARROW}"
            axis.text(-0.35, y + 0.5, arrow, ha="right", va="center", fontsize=12)
            x = 0
            for role, data in one.parts:
                for byte in data:
                    box = Rectangle((x, y), 0.94, 1, color=_ROLES[role], alpha=0.3, linewidth=0)
                    axis.add_patch(box)
                    text = f"{byte:02x}"
                    axis.text(
                        x + 0.47, y + 0.52, text, ha="center", va="center", fontsize=7.5,
                        family="monospace",
                    )  # fmt: skip
                    x += 1
            if beside:
                axis.text(x + 0.5, y + 0.52, one.meaning, va="center", fontsize=8)
            y += 1.25
            for line in lines:
                axis.text(0.05, y + 0.25, line, va="center", fontsize=8)
                y += 0.75
        axis.set(xlim=(-1.2, columns + 3), ylim=(y, -0.1), xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.grid(visible=False)
        handles = [Patch(color=c, alpha=0.3, label=role) for role, c in _ROLES.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _wrap(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)


def traces(wire: Motion, sim: Motion | None, joints: Sequence[str], units: Sequence[str]) -> Figure:
    """Joint by joint: what was commanded, what the arm did, what the simulated arm did.

    Pauses in which the arm held still while the model thought are cut out.
    """
    with style.context():
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(
            -(-len(joints) // 3), 3, figsize=(style.WIDTH_IN, 4.4), sharex=True, squeeze=False
        )
        for axis in axes.ravel()[len(joints) :]:
            axis.set_visible(False)
        for i, (axis, name) in enumerate(zip(axes.ravel(), joints, strict=False)):
            if sim is not None:
                wide = {"color": style.GOLD, "linewidth": 4.5, "alpha": 0.6}
                axis.plot(sim.time_s, sim.measured[:, i], label="simulated arm", **wide)
            axis.plot(wire.time_s, wire.measured[:, i], color=style.BLUE, label="arm on the wire")
            dots = {"color": style.INK, "linewidth": 0.9, "linestyle": ":"}
            axis.plot(wire.time_s, wire.command[:, i], label="command on the wire", **dots)
            unit = "rad" if units[i] == "rad" else "0 closed, 1 open"
            axis.set_title(f"{name} ({unit})", fontsize=9)
            low, high = axis.get_ylim()
            if high - low < 0.05:  # what does not move shall not look as if it did
                axis.set_ylim((low + high) / 2 - 0.05, (low + high) / 2 + 0.05)
        for axis in axes[-1]:
            axis.set_xlabel("time moving (s)")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def timeline(logs: Mapping[str, RunLog], seconds: float = 5.0) -> Figure:
    """When the arm moved and when the model thought, one pair of rows a mode."""
    with style.context():
        from matplotlib import pyplot
        from matplotlib.patches import Patch

        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 0.9 + 0.75 * len(logs)))
        labels = []
        for number, (mode, log) in enumerate(logs.items()):
            arm, model = 2 * number + 0.35 * number, 2 * number + 0.35 * number + 0.9
            period = 1 / log.stream_hz
            held = [(t, period) for t in log.due_s[log.held]]
            moved = [(t, period) for t in log.due_s[~log.held]]
            axis.broken_barh(moved, (arm - 0.35, 0.7), color=style.GREEN, linewidth=0)
            axis.broken_barh(held, (arm - 0.35, 0.7), color=style.GREY, alpha=0.5, linewidth=0)
            thought = [(c.observed_s, c.ready_s - c.observed_s) for c in log.chunks]
            axis.broken_barh(thought, (model - 0.35, 0.7), color=style.BLUE, linewidth=0)
            labels += [(arm, f"{mode}: arm"), (model, "model")]
        places, names = zip(*labels, strict=True)
        axis.set(yticks=places, yticklabels=names, xlim=(0, seconds), xlabel="time (s)")
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        kinds = {"moves": style.GREEN, "holds still": style.GREY, "thinks": style.BLUE}
        handles = [
            Patch(color=c, alpha=0.5 if c == style.GREY else 1, label=n) for n, c in kinds.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def outage(one: Incident, joints: Sequence[str], seconds: float = 1.0) -> Figure:
    """What was commanded and where the arm was around an incident; the joints that move most."""
    with style.context():
        from matplotlib import pyplot

        log = one.log
        swing = np.ptp(log.sent, axis=0)
        chosen = np.sort(np.argsort(swing)[::-1][:3])
        figure, axes = pyplot.subplots(
            len(chosen), 1, figsize=(style.WIDTH_IN, 1.4 * len(chosen) + 0.6), sharex=True
        )
        end_s = one.mended_s or one.happened_s
        # Nothing is known of the arm while it cannot be reached: no line there.
        gap = 1 + np.flatnonzero(np.diff(log.state_s) > 0.1)
        state_s = np.insert(log.state_s, gap, np.nan)
        for axis, i in zip(np.atleast_1d(axes), chosen, strict=True):
            axis.axvspan(one.happened_s, end_s, color=style.ORANGE, alpha=0.15, linewidth=0)
            for held, colour in ((False, style.GREEN), (True, style.GREY)):
                rows = log.held == held
                label = "command, holding" if held else "command of the policy"
                axis.plot(
                    log.sent_s[rows],
                    log.sent[rows, i],
                    ".",
                    color=colour,
                    markersize=3,
                    label=label,
                )
            state = np.insert(log.state[:, i], gap, np.nan)
            axis.plot(state_s, state, color=style.BLUE, linewidth=1, label="arm")
            axis.set_ylabel(joints[i], fontsize=8)
        last = np.atleast_1d(axes)[-1]
        last.set_xlabel("time (s)")
        last.set_xlim(max(0.0, one.happened_s - seconds), end_s + 2 * seconds)
        handles, labels = last.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def clockwork(timings: Mapping[str, Timing], period_ms: float) -> Figure:
    """Left: share of commands at most so far from their interval. Right: thinking time a chunk."""
    with style.context():
        from matplotlib import pyplot

        figure, (left, right) = pyplot.subplots(1, 2, figsize=(style.WIDTH_IN, 3.0))
        for (mode, one), colour in zip(timings.items(), style.PALETTE, strict=False):
            jitter = np.sort(np.maximum(one.jitter_ms, 1e-3))
            share = 100 * np.arange(1, len(jitter) + 1) / len(jitter)
            p50, p99 = np.percentile(one.jitter_ms, (50, 99))
            label = f"{mode}: p50 {p50:.2f}, p99 {p99:.2f}, max {jitter[-1]:.1f} ms"
            left.plot(jitter, share, color=colour, label=label)
        left.axvline(period_ms, color=style.GREY, linestyle=":")
        left.text(period_ms * 0.9, 3, "one period", rotation=90, ha="right", fontsize=8)
        left.set(xscale="log", xlabel="jitter (ms)", ylabel="% of commands", ylim=(0, 101))
        left.set_title("commands", fontsize=10)
        spread = [one.think_ms for one in timings.values()]
        for y, (values, colour) in enumerate(zip(spread, style.PALETTE, strict=False)):
            offsets = np.linspace(-0.2, 0.2, max(len(values), 2))[: len(values)]
            right.plot(values, y + offsets, "o", color=colour, alpha=0.6, markersize=4)
            if len(values):
                right.plot([np.median(values)] * 2, [y - 0.35, y + 0.35], color=style.INK)
        right.set(
            yticks=range(len(timings)), yticklabels=list(timings), ylim=(-0.6, len(spread) - 0.4)
        )
        right.invert_yaxis()
        right.set_xlim(left=0)
        right.set(xlabel="thinking (ms a chunk; bar: median)")
        right.set_title("chunks", fontsize=10)
        right.grid(axis="y", visible=False)
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
