"""Figures of notebook 01: what a recording holds, and what the model is given of it.

Every function takes arrays and returns a matplotlib ``Figure``; matplotlib is imported when one is
called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamzero.data.canvas import cells
from dreamzero.embodiments import Embodiment
from dreamzero.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def short(view: str) -> str:
    """``observation.images.front`` -> ``front``."""
    return view.rsplit(".", 1)[-1]


def canvas(views: Mapping[str, np.ndarray], picture: np.ndarray, card: Embodiment) -> Figure:
    """Each view as it was recorded, and the canvas that the codec sees, with its cells named.

    Args:
        views: view -> uint8 ``[h, w, 3]``, in the card's order.
        picture: uint8 ``[H, W, 3]`` of ``dreamzero.data.canvas.compose``.
        card: whose layout it is.
    """
    with style.context():
        from matplotlib import pyplot
        from matplotlib.patches import Rectangle

        figure = pyplot.figure(figsize=(style.WIDTH_IN, 3.4))
        panels: Any = figure.subfigures(1, 2, width_ratios=(1, 1.6))
        left, right = panels
        for axis, (name, frame) in zip(
            np.ravel(left.subplots(len(views), 1)), views.items(), strict=True
        ):
            axis.imshow(frame)
            axis.set_title(f"{short(name)}, {frame.shape[0]} x {frame.shape[1]} px", fontsize=8.5)
            _bare(axis)
        axis = right.subplots()
        axis.imshow(picture)
        height, width = picture.shape[:2]
        axis.set_title(f"canvas, layout '{card.layout}', {height} x {width} px", fontsize=10)
        places = cells(card.layout, len(views), (height, width))
        for name, (top, start, h, w) in zip(views, places, strict=True):
            box = Rectangle((start - 0.5, top - 0.5), w, h, fill=False, edgecolor="white", lw=1.5)
            axis.add_patch(box)
            label = {"boxstyle": "square,pad=0.2", "facecolor": style.INK, "edgecolor": "none"}
            x, y = start + 0.02 * width, top + 0.02 * height
            axis.text(x, y, short(name), color="white", fontsize=8, va="top", bbox=label)
        _bare(axis)
    return figure


def window(video: np.ndarray, action: np.ndarray, names: Sequence[str], card: Embodiment) -> Figure:
    """One training sample on its time axis: latents, frames, actions, states, blocks.

    Args:
        video: uint8 ``[t, H, W, 3]``, t = 1 + n * frames per block.
        action: float ``[m, a]`` in SI units, m up to n * k: a window may run past a recording's end;
            width 0 where none are recorded.
        names: one a column of ``action``.
        card: rates and sizes of a block.
    """
    blocks = (len(video) - 1) // card.frames_per_block
    frame_s = np.arange(len(video)) / card.video_hz
    action_s = np.arange(len(action)) / card.action_hz
    with style.context():
        from matplotlib import pyplot

        tall = min(1.6, 0.85 * video.shape[1] / video.shape[2])
        figure, (top, middle, bottom) = pyplot.subplots(
            3,
            1,
            figsize=(style.WIDTH_IN, 3.9 + tall),
            sharex=True,
            gridspec_kw={"height_ratios": (tall, 1.0, 2.0)},
        )
        _filmstrip(top, video, frame_s)
        rows = {
            "states": np.arange(blocks) * card.block_s,
            "actions": action_s,
            "frames": frame_s,
            "latents": frame_s[::4],
        }
        for y, (times, colour) in enumerate(zip(rows.values(), style.PALETTE, strict=False)):
            middle.scatter(times, np.full(len(times), y), s=13, color=colour, clip_on=False)
        labels = [f"{len(times)} {name}" for name, times in rows.items()]
        middle.set(yticks=range(len(rows)), yticklabels=labels, ylim=(-0.6, len(rows) - 0.4))
        middle.grid(axis="y", visible=False)
        middle.tick_params(axis="y", length=0)
        for i, (column, name) in enumerate(zip(action.T, names, strict=True)):
            dots = ".-" if i < len(style.PALETTE) else ".:"
            bottom.plot(action_s, column, dots, markersize=3, linewidth=1.1, label=name)
        bottom.set_xlabel("time (s)")
        bottom.set_ylabel("action (rad; gripper)")
        if len(names) <= 9 and len(names):
            figure.legend(*bottom.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        for axis in (middle, bottom):
            _blocks(axis, blocks, card.block_s)
        for i in range(blocks):
            middle.text((i + 0.5) * card.block_s, len(rows) - 0.25, f"block {i + 1}", ha="center")
    return figure


def sawtooth(
    absolute: np.ndarray, relative: np.ndarray, anchors: np.ndarray, name: str, card: Embodiment
) -> Figure:
    """One joint's commands, absolute and as the model predicts them: per block, from its start.

    Args:
        absolute: float ``[n * k]``, rad.
        relative: float ``[n * k]``, rad.
        anchors: float ``[n]``, the state at each block's first step, rad.
    """
    blocks = len(anchors)
    time_s = np.arange(len(absolute)) / card.action_hz
    with style.context():
        from matplotlib import pyplot

        figure, (left, right) = pyplot.subplots(1, 2, figsize=(style.WIDTH_IN, 2.7), sharex=True)
        left.plot(time_s, absolute, color=style.BLUE)
        begins = np.arange(blocks) * card.block_s
        left.plot(begins, anchors, "o", color=style.ORANGE, label="state at a block's start")
        left.set(title=f"absolute: {name}", xlabel="time (s)", ylabel="rad")
        left.legend()
        for i in range(blocks):
            mine = slice(i * card.horizon, (i + 1) * card.horizon)
            right.plot(time_s[mine], relative[mine], color=style.GREEN)
        right.axhline(0, color=style.GREY, linewidth=0.8)
        right.set(title="relative: minus that state", xlabel="time (s)")
        for axis in (left, right):
            _blocks(axis, blocks, card.block_s)
    return figure


def anchoring(
    quantiles: Mapping[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str], most: int = 8
) -> Figure:
    """From the 1 % to the 99 % quantile of every joint under several ways to anchor an action.

    Args:
        quantiles: way -> (q01, q99), each float ``[a]``, rad.
        names: one a joint.
        most: joints shown, those that move farthest.
    """
    widest = np.max([high - low for low, high in quantiles.values()], axis=0)
    shown = np.sort(np.argsort(-widest)[:most])
    quantiles = {way: (low[shown], high[shown]) for way, (low, high) in quantiles.items()}
    names = [names[i] for i in shown]
    with style.context():
        from matplotlib import pyplot

        size = (style.WIDTH_IN, 1.2 + 0.42 * len(names))
        figure, axis = pyplot.subplots(figsize=size)
        count = len(quantiles)
        for number, ((way, (low, high)), colour) in enumerate(
            zip(quantiles.items(), style.PALETTE, strict=False)
        ):
            y = np.arange(len(names)) + (number - (count - 1) / 2) * 0.8 / count
            axis.barh(y, high - low, 0.7 / count, left=low, color=colour, label=way)
        axis.axvline(0, color=style.INK, linewidth=0.8)
        axis.set(yticks=range(len(names)), yticklabels=names, xlabel="1 % to 99 % quantile (rad)")
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        figure.legend(loc="outside upper center", ncols=count)
    return figure


def normalised(values: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]]) -> Figure:
    """How states and actions fill [-1, 1]: a histogram a dimension, dark where there is much.

    Args:
        values: kind ("state", "action") -> float ``[n, d]`` in [-1, 1].
        names: kind -> one name a dimension.
    """
    edges = np.linspace(-1, 1, 42)
    with style.context():
        from matplotlib import pyplot

        most = max(x.shape[1] for x in values.values())
        figure, axes = pyplot.subplots(
            1, len(values), figsize=(style.WIDTH_IN, 1.2 + 0.24 * most), squeeze=False
        )
        for axis, (kind, x) in zip(axes[0], values.items(), strict=True):
            shares = np.stack([np.histogram(column, edges)[0] / len(x) for column in x.T])
            image = axis.imshow(
                100 * shares,
                extent=(-1, 1, x.shape[1] - 0.5, -0.5),
                aspect="auto",
                cmap="Blues",
                vmax=12,
            )
            axis.set(yticks=range(x.shape[1]), yticklabels=names[kind], title=f"normalised {kind}")
            axis.grid(visible=False)
            axis.set_xlabel("value")
        figure.colorbar(image, ax=axes[0].tolist(), label="% of rows a bin", extend="max")
    return figure


def gallery(rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str] = ()) -> Figure:
    """Pictures in rows: row label -> uint8 ``[h, w, 3]`` each; ``titles`` over the first row."""
    with style.context():
        from matplotlib import pyplot

        count = max(len(pictures) for pictures in rows.values())
        label_in = 0.25 + 0.075 * max(len(label) for label in rows)
        inch = (style.WIDTH_IN - label_in) / count
        figure, axes = pyplot.subplots(
            len(rows),
            count,
            figsize=(style.WIDTH_IN, inch * len(rows) + (0.3 if titles else 0.05)),
            squeeze=False,
        )
        pads = {"w_pad": 0.015, "h_pad": 0.015, "wspace": 0.0, "hspace": 0.0}
        figure.set_layout_engine("constrained", **pads)
        for line, (label, pictures) in zip(axes, rows.items(), strict=True):
            for axis, picture in zip(line, pictures, strict=False):
                axis.imshow(picture)
            for axis in line:
                _bare(axis)
            line[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
        for axis, title in zip(axes[0], titles, strict=False):
            axis.set_title(title, fontsize=8, fontweight="normal", loc="center", pad=3)
    return figure


def task_grid(colours: Sequence[str], kinds: Sequence[str], held_out: np.ndarray) -> Figure:
    """Which combinations of colour and kind are trained on, and which never are.

    Args:
        colours: one a row.
        kinds: one a column ("reach", "push left" ...).
        held_out: bool ``[colours, kinds]``.
    """
    with style.context():
        from matplotlib import pyplot
        from matplotlib.colors import ListedColormap

        figure, axis = pyplot.subplots(figsize=(0.55 * style.WIDTH_IN + 0.3 * len(kinds), 2.3))
        colour_map = ListedColormap([style.SKY, style.ORANGE])
        axis.imshow(held_out, cmap=colour_map, vmin=0, vmax=1, aspect="auto", alpha=0.85)
        for y, x in np.ndindex(held_out.shape):
            text = "held out" if held_out[y, x] else "trained"
            axis.text(x, y, text, ha="center", va="center", fontsize=8.5)
        axis.set(xticks=range(len(kinds)), xticklabels=kinds)
        axis.set(yticks=range(len(colours)), yticklabels=colours)
        axis.set_xticks(np.arange(len(kinds) + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(len(colours) + 1) - 0.5, minor=True)
        axis.grid(visible=False)
        axis.grid(which="minor", color="white", linewidth=2)
        axis.tick_params(which="both", length=0)
        axis.spines[:].set_visible(False)
    return figure


def _filmstrip(axis: Axes, video: np.ndarray, frame_s: np.ndarray) -> None:
    """Every fourth frame (the last one a latent sees) at its time."""
    step = float(frame_s[4] - frame_s[0])
    for t in range(0, len(video), 4):
        middle = frame_s[t]
        axis.imshow(
            video[t], extent=(middle - 0.46 * step, middle + 0.46 * step, 0, 1), aspect="auto"
        )
    axis.set(xlim=(-0.5 * step, frame_s[-1] + 0.5 * step), ylim=(0, 1), yticks=[])
    axis.spines[:].set_visible(False)
    axis.tick_params(bottom=False, labelbottom=False)
    axis.grid(visible=False)


def _blocks(axis: Axes, blocks: int, block_s: float) -> None:
    for i in range(0, blocks, 2):
        axis.axvspan(i * block_s, (i + 1) * block_s, color=style.SKY, alpha=0.12, linewidth=0)


def _bare(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
