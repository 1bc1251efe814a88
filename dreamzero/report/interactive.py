"""Pictures to leaf through in a live notebook; one still figure of them everywhere else.

    pictures = {(name, str(n)): film(chunk.true, chunk.dream) for ...}
    report.slides(pictures, ("sampler", "chunk"), "dreams", "Four samplers.", note="Below: dreamed.")

All pictures are made beforehand and the controls are linked to them in the browser, so that they
move while the kernel is busy with a later cell.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import style
from .video import upscale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Key = str | tuple[str, ...]
_GAP_PX = 2


def live() -> bool:
    """Whether somebody may move a widget: JupyterLab, Notebook or VS Code runs this cell.

    They name the cell in what they ask the kernel to execute (``cellId``); papermill, nbconvert and
    nbval, which have no page to show a widget on, do not.
    """
    try:
        import ipywidgets  # noqa: F401
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    if shell is None or not shell.has_trait("kernel"):
        return False
    return "cellId" in (shell.kernel.get_parent("shell") or {}).get("metadata", {})


def film(*videos: np.ndarray, count: int = 6, width_px: int = 800) -> np.ndarray:
    """One picture, uint8 ``[h, w, 3]``: a row a video (uint8 ``[t, h, w, 3]``), ``count`` instants of it.

    Enlarged by whole pixels as far as ``width_px`` allows.
    """
    rows = []
    for video in videos:
        index = np.linspace(0, len(video) - 1, min(count, len(video))).round().astype(int)
        frames = np.pad(
            video[index], ((0, 0), (0, _GAP_PX), (0, _GAP_PX), (0, 0)), constant_values=255
        )
        rows.append(np.concatenate(list(frames), axis=1))
    picture = np.concatenate(rows)[:-_GAP_PX, :-_GAP_PX]
    return upscale(picture, max(1, width_px // picture.shape[1]))


def sheet(pictures: Mapping[Key, np.ndarray], controls: str | Sequence[str]) -> Figure:
    """All pictures on one figure: the last control runs to the right, the others down.

    Raises:
        ValueError: a combination of labels has no picture.
    """
    named, labels = _ordered(pictures, controls)
    lines = list(dict.fromkeys(key[:-1] for key in named))
    with style.context():
        from matplotlib import pyplot

        height, width = next(iter(named.values())).shape[:2]
        column_in = style.WIDTH_IN / len(labels[-1])
        size = (style.WIDTH_IN, len(lines) * column_in * height / width + 0.4)
        figure, axes = pyplot.subplots(len(lines), len(labels[-1]), figsize=size, squeeze=False)
        for line, row in zip(lines, axes, strict=True):
            for label, axis in zip(labels[-1], row, strict=True):
                axis.imshow(named[*line, label], interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            row[0].set_ylabel("\n".join(line), rotation=0, ha="right", va="center", labelpad=6)
        for label, axis in zip(labels[-1], axes[0], strict=True):
            axis.set_title(label, fontsize=8.5, fontweight="normal", loc="center", pad=3)
        figure.supxlabel(list(_names(controls))[-1], fontsize=9)
    return figure


def slides(
    pictures: Mapping[Key, np.ndarray], controls: str | Sequence[str], note: str = ""
) -> Any:
    """The widget: one control a name, a slider where its labels are numbers, else a list.

    Args:
        pictures: uint8 ``[h, w, 3]`` by label, or by one label a control; every combination.
        note: a sentence below, which says what is seen.

    Raises:
        ValueError: a combination of labels has no picture.
    """
    import ipywidgets

    named, labels = _ordered(pictures, controls)
    pickers = []
    for name, options in zip(_names(controls), labels, strict=True):
        kind = ipywidgets.SelectionSlider if _numbers(options) else ipywidgets.Dropdown
        wide, apart = {"description_width": "initial"}, {"margin": "2px 24px 2px 2px"}
        pickers.append(kind(options=options, description=name, style=wide, layout=apart))

    def tree(key: tuple[str, ...]) -> Any:
        if len(key) == len(pickers):
            fits = ipywidgets.Layout(max_width="100%", object_fit="contain")
            return ipywidgets.Image(value=_png(named[key]), format="png", layout=fits)
        below = [tree((*key, label)) for label in labels[len(key)]]
        stack = ipywidgets.Stack(below, selected_index=0)
        # In the browser, not in the kernel, which may be busy for minutes.
        ipywidgets.jslink((pickers[len(key)], "index"), (stack, "selected_index"))
        return stack

    parts = [ipywidgets.HBox(pickers), tree(())]
    return ipywidgets.VBox([*parts, ipywidgets.Label(note)] if note else parts)


def _names(controls: str | Sequence[str]) -> tuple[str, ...]:
    return (controls,) if isinstance(controls, str) else tuple(controls)


def _ordered(
    pictures: Mapping[Key, np.ndarray], controls: str | Sequence[str]
) -> tuple[dict[tuple[str, ...], np.ndarray], list[list[str]]]:
    """Pictures by tuple, and the labels of every control in the order in which they come."""
    named = {(key,) if isinstance(key, str) else key: value for key, value in pictures.items()}
    count = len(_names(controls))
    if not named or any(len(key) != count for key in named):
        raise ValueError(f"every picture needs {count} label(s), one a control")
    labels = [list(dict.fromkeys(key[i] for key in named)) for i in range(count)]
    if len(named) != np.prod([len(options) for options in labels]):
        raise ValueError(f"{len(named)} pictures do not show every combination of {labels}")
    return named, labels


def _numbers(labels: Sequence[str]) -> bool:
    try:
        return bool([float(label) for label in labels])
    except ValueError:
        return False


def _png(pixels: np.ndarray) -> bytes:
    from matplotlib import image

    buffer = io.BytesIO()
    image.imsave(buffer, np.ascontiguousarray(pixels), format="png")
    return buffer.getvalue()
