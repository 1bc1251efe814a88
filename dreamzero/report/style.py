"""How every figure of the project looks, and the few kinds of figure that all notebooks share.

    from dreamzero.report import style
    style.use()
    figure = style.strip(frames, labels=["true", "dreamed"])

Matplotlib is imported when a function is called: importing this module costs nothing. Colours are
Okabe and Ito's, which readers with any colour vision tell apart (jfly.uni-koeln.de/color).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
SKY, GOLD, GREY, INK = "#56b4e9", "#e69f00", "#7a7a7a", "#222222"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, GOLD, GREY)
DPI = 200  # twice the nominal 100: sharp on dense screens
WIDTH_IN = 7.5

_STYLE: dict[str, Any] = {
    "figure.figsize": (WIDTH_IN, 3.6),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.dpi": DPI,
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "image.interpolation": "nearest",
}


def _parameters() -> Any:
    from cycler import cycler

    return {**_STYLE, "axes.prop_cycle": cycler(color=PALETTE)}


def use() -> None:
    """Make the style matplotlib's default for this process (first cell of a notebook)."""
    import matplotlib

    matplotlib.rcParams.update(_parameters())


@contextmanager
def context() -> Iterator[None]:
    """The style for the figures made inside a ``with`` block."""
    import matplotlib

    with matplotlib.rc_context(_parameters()):
        yield


def save(figure: Figure, out_dir: str | Path, name: str) -> Path:
    """Write ``out_dir/name.png`` at twice the nominal resolution; returns its path."""
    path = Path(out_dir) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the Software entry the same figure gives the same bytes under every matplotlib.
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def strip(
    frames: np.ndarray | Mapping[str, np.ndarray],
    count: int = 8,
    rate_hz: float | None = None,
    title: str | None = None,
) -> Figure:
    """Film strips: time runs to the right, one row a video, equal columns at equal times.

    Args:
        frames: uint8 ``[t, h, w, 3]``, or row label -> such an array (all of one length).
        count: frames shown, evenly spaced, the first and the last among them.
        rate_hz: frames per second; columns are then labelled in seconds, else by index.
        title: over the whole figure.

    Raises:
        ValueError: an array of another shape, or rows of different length.
    """
    rows = dict(frames) if isinstance(frames, Mapping) else {"": frames}
    lengths = {len(video) for video in rows.values()}
    if not rows or len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"rows must have one length of at least one frame, got {sorted(lengths)}")
    for label, video in rows.items():
        if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8:
            raise ValueError(f"row {label!r}: expected uint8 [t, h, w, 3], got {video.shape}")
    total = lengths.pop()
    index = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))

    with context():
        from matplotlib import pyplot

        column_in = WIDTH_IN / max(len(index), 4)
        heights = [video.shape[1] / video.shape[2] * column_in for video in rows.values()]
        extra = 0.22 + (0.3 if title else 0.0)
        figure, axes = pyplot.subplots(
            len(rows),
            len(index),
            figsize=(column_in * len(index) + 0.9 * any(rows), sum(heights) + extra),
            squeeze=False,
            gridspec_kw={"height_ratios": heights},
        )
        pads = {"w_pad": 0.015, "h_pad": 0.015, "wspace": 0.0, "hspace": 0.0}
        figure.set_layout_engine("constrained", **pads)
        for line, (label, video) in zip(axes, rows.items(), strict=True):
            for axis, t in zip(line, index, strict=True):
                axis.imshow(video[t], interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            line[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
        close = rate_hz and (index[-1] - index[0]) < 0.1 * rate_hz * (len(index) - 1)
        digits = 2 if close else 1
        for axis, t in zip(axes[0], index, strict=True):
            text = f"{t / rate_hz:.{digits}f} s" if rate_hz else f"{t}"
            axis.set_title(text, fontsize=8.5, fontweight="normal", loc="center", pad=3)
        if title:
            figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    return figure


def interval_bars(
    rows: Sequence[tuple[Any, ...]],
    xlabel: str = "success",
    percent: bool = True,
    title: str | None = None,
) -> Figure:
    """Horizontal bars with 95 % intervals, the value written beside each.

    Args:
        rows: (label, value, low, high) or (label, value, low, high, note such as "n = 200").
        percent: values are fractions in [0, 1] and are shown as percentages.
    """
    with context():
        from matplotlib import pyplot

        figure, axis = pyplot.subplots(figsize=(WIDTH_IN, 0.75 + 0.42 * len(rows)))
        scale = 100.0 if percent else 1.0
        limit = 100.0 if percent else max(row[3] for row in rows) * scale
        for y, row in enumerate(rows):
            value, low, high = (number * scale for number in row[1:4])
            axis.barh(y, value, height=0.6, color=PALETTE[y % len(PALETTE)], alpha=0.85)
            axis.errorbar(
                value,
                y,
                xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                color=INK,
                capsize=3.5,
                linewidth=1.3,
            )
            note = f"   {row[4]}" if len(row) > 4 else ""
            unit = " %" if percent else ""
            text = f"{value:.0f}{unit} [{low:.0f}, {high:.0f}]" if percent else f"{value:.3g}"
            axis.text(1.02, y, text + note, transform=axis.get_yaxis_transform(), va="center")
        axis.set(yticks=range(len(rows)), yticklabels=[row[0] for row in rows], xlim=(0, limit))
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(f"{xlabel} (%)" if percent else xlabel)
        if title:
            axis.set_title(title)
    return figure
