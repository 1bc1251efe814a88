"""Pictures behind controls: what is linked to what, what stands in elsewhere, who counts as live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

from dreamzero.report import interactive, notebooks
from tests.jupyter import started_kernel

CLIP = np.arange(9 * 4 * 6 * 3, dtype=np.uint8).reshape(9, 4, 6, 3)
GRID = {
    (name, str(step)): np.full((4, 6, 3), 10 * step, np.uint8)
    for name in ("fast", "slow")
    for step in (1, 2, 3)
}


def test_a_film_shows_first_and_last_frame_of_each_row() -> None:
    picture = interactive.film(CLIP, CLIP[::-1], count=3, width_px=22)
    assert picture.shape == (4 + 2 + 4, 3 * 6 + 2 * 2, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:4, :6], CLIP[0])
    np.testing.assert_array_equal(picture[:4, -6:], CLIP[8])
    np.testing.assert_array_equal(picture[-4:, :6], CLIP[8])
    assert (picture[4:6] == 255).all() and (picture[:, 6:8] == 255).all()
    assert interactive.film(CLIP, count=3, width_px=70).shape == (12, 66, 3)


def test_a_sheet_has_every_picture_once() -> None:
    from matplotlib import pyplot

    figure = interactive.sheet(GRID, ("sampler", "step"))
    shown = [int(axis.get_images()[0].get_array()[0, 0, 0]) for axis in figure.axes]
    assert shown == [10, 20, 30, 10, 20, 30]
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["fast", "slow"]
    assert [axis.get_title("center") for axis in figure.axes[:3]] == ["1", "2", "3"]
    pyplot.close(figure)


def test_controls_are_linked_to_the_pictures() -> None:
    import ipywidgets

    box = interactive.slides(GRID, ("sampler", "step"), "Brighter is later.")
    pickers, stack, note = box.children
    sampler, step = pickers.children
    assert isinstance(sampler, ipywidgets.Dropdown) and sampler.options == ("fast", "slow")
    assert isinstance(step, ipywidgets.SelectionSlider) and step.options == ("1", "2", "3")
    assert [len(inner.children) for inner in stack.children] == [3, 3]
    png = bytes(stack.children[1].children[2].value)
    assert png == interactive._png(GRID["slow", "3"]) and png.startswith(b"\x89PNG")
    links = {
        (link.source[0].model_id, link.target[0].model_id)
        for link in ipywidgets.widgets.widget._instances.values()
        if isinstance(link, ipywidgets.widget_link.Link)
    }
    wanted = {(sampler.model_id, stack.model_id)}
    wanted |= {(step.model_id, inner.model_id) for inner in stack.children}
    assert wanted <= links
    assert note.value == "Brighter is later."


def test_what_does_not_fit_the_controls_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 1 label"):
        interactive.slides(GRID, "sampler")
    with pytest.raises(ValueError, match="every combination"):
        interactive.sheet(dict(list(GRID.items())[1:]), ("sampler", "step"))


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    with started_kernel() as client:
        yield client


@pytest.mark.parametrize(("metadata", "live"), [({}, False), ({"cellId": "a1"}, True)])
def test_who_names_the_cell_is_live(kernel: Any, metadata: dict[str, Any], live: bool) -> None:
    """JupyterLab's and VS Code's requests carry the cell's id, nbclient's do not."""
    code = "from dreamzero.report import interactive"
    content = {
        "code": code, "silent": False, "store_history": False, "allow_stdin": False,
        "user_expressions": {"live": "interactive.live()"},
    }  # fmt: skip
    message = kernel.session.msg("execute_request", content, metadata=metadata)
    kernel.shell_channel.send(message)
    while True:
        reply = kernel.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
            break
    found = reply["content"]["user_expressions"]["live"]
    assert found["data"]["text/plain"] == str(live)


def test_outside_of_a_kernel_nothing_is_live() -> None:
    assert not interactive.live()


SLIDES = """\
pictures = {str(i): np.full((8, 8, 3), 20 * i, np.uint8) for i in range(4)}
report.slides(pictures, "step", "steps", "Four greys.")
"""


@pytest.mark.notebook
def test_papermill_keeps_the_still_figure(
    make_notebook: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_notebook("00_coin", extra=SLIDES + "report.save()")
    out = notebooks.run(notebooks.Notebook(path), "quick", "out", progress=False)
    assert (out / "steps.png").is_file()
    executed = nbformat.read(out / notebooks.EXECUTED, as_version=4)
    kinds = [set(o.get("data", {})) for c in executed.cells for o in c.get("outputs", [])]
    assert any("image/png" in kind for kind in kinds)
    assert not any("application/vnd.jupyter.widget-view+json" in kind for kind in kinds)
