"""Figures of notebook 00: who sees whom in the model, and what it commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dreamzero.model.attention import TeacherForcing, dense_mask
from dreamzero.report import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dreamzero.robots import RunLog

_KINDS = {
    "clean video": style.BLUE,
    "noisy video": style.SKY,
    "actions": style.ORANGE,
    "states": style.GREEN,
}


def _groups(layout: TeacherForcing) -> list[tuple[str, str, slice]]:
    """(label, kind, tokens) in the order of the sequence; empty groups left out."""
    found = []
    for i in range(-1, layout.clean_blocks):
        found.append((_label("clean", i), "clean video", layout.clean(i)))
    for i in range(-1, layout.blocks):
        found.append((_label("noisy", i), "noisy video", layout.noisy(i)))
    for i in range(layout.blocks):
        found.append((f"actions {i + 1}", "actions", layout.action(i)))
    for i in range(layout.blocks):
        found.append((f"state {i + 1}", "states", layout.state(i)))
    return [group for group in found if group[2].stop > group[2].start]


def _label(kind: str, block: int) -> str:
    return f"{kind} first frame" if block < 0 else f"{kind} block {block + 1}"


def mask(layout: TeacherForcing) -> Figure:
    """The attention mask of training as a picture: a row asks, a coloured column is seen.

    Args:
        layout: sizes; small ones can be read (two tokens a state, four a frame).
    """
    seen = dense_mask(layout).numpy()
    groups = _groups(layout)
    with style.context():
        from matplotlib import pyplot
        from matplotlib.colors import to_rgb
        from matplotlib.patches import Patch

        picture = np.ones((*seen.shape, 3))
        for _, kind, span in groups:
            picture[:, span] = np.where(seen[:, span, None], to_rgb(_KINDS[kind]), 1.0)
        figure, axis = pyplot.subplots(figsize=(style.WIDTH_IN, 6.4))
        axis.imshow(picture, interpolation="nearest")
        edges = [span.stop - 0.5 for _, _, span in groups][:-1]
        for edge in edges:
            axis.axhline(edge, color="#bbbbbb", linewidth=0.6)
            axis.axvline(edge, color="#bbbbbb", linewidth=0.6)
        middles = [(span.start + span.stop - 1) / 2 for _, _, span in groups]
        names = [label for label, _, _ in groups]
        axis.set(yticks=middles, yticklabels=names, xticks=middles)
        axis.set_xticklabels(names, rotation=90)
        axis.tick_params(length=0, labelsize=8)
        axis.set(ylabel="query: who looks", xlabel="key: what is seen")
        axis.spines[:].set_visible(True)
        axis.grid(visible=False)
        handles = [Patch(color=colour, label=kind) for kind, colour in _KINDS.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def actions(log: RunLog, joints: Sequence[str], units: Sequence[str]) -> Figure:
    """What every chunk commands, joint by joint, over where the arm then was.

    Args:
        log: one run on a simulated arm.
        joints, units: of ``Robot.features``.
    """
    with style.context():
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(
            -(-len(joints) // 3), 3, figsize=(style.WIDTH_IN, 4.2), sharex=True, squeeze=False
        )
        for axis in axes.ravel()[len(joints) :]:
            axis.set_visible(False)
        for i, (axis, name) in enumerate(zip(axes.ravel(), joints, strict=False)):
            axis.plot(log.state_s, log.state[:, i], color=style.GOLD, linewidth=4.5, alpha=0.6)
            for number, chunk in enumerate(log.chunks):
                at = chunk.anchor_s + np.arange(len(chunk.actions)) / log.stream_hz
                colour = (style.BLUE, style.PINK)[number % 2]
                axis.plot(at, chunk.actions[:, i], color=colour, linewidth=1.4)
            unit = "rad" if units[i] == "rad" else "0 closed, 1 open"
            short = name.replace("_position", "").replace("_", " ")
            axis.set_title(f"{short} ({unit})", fontsize=9)
            low, high = axis.get_ylim()
            if high - low < 0.05:  # what does not move shall not look as if it did
                axis.set_ylim((low + high) / 2 - 0.05, (low + high) / 2 + 0.05)
        for axis in axes[-1]:
            axis.set_xlabel("time (s)")
        lines = [
            pyplot.Line2D([], [], color=style.GOLD, linewidth=4.5, alpha=0.6),
            pyplot.Line2D([], [], color=style.BLUE),
            pyplot.Line2D([], [], color=style.PINK),
        ]
        labels = ["where the arm was", "commands of one chunk", "commands of the next"]
        figure.legend(lines, labels, loc="outside upper center", ncols=3)
    return figure
