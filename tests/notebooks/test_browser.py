"""Every notebook in JupyterLab, in a real browser: it runs, bars are live, controls move.

Screenshots of the whole pages are kept in ``build/notebooks``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from dreamzero.report import load, notebooks
from dreamzero.report.record import verify

NOTEBOOKS = notebooks.all_notebooks()
WIDGET = "application/vnd.jupyter.widget-view+json"

TOY = (
    """\
import time
import numpy as np
from IPython.display import display
from tqdm.auto import tqdm
from dreamzero.report import interactive
pictures = {
    (kind, str(i)): np.full((40, 60, 3), 60 * i + 30 * (kind == "dark"), np.uint8)
    for kind in ("light", "dark") for i in range(3)
}
assert interactive.live()
display(interactive.slides(pictures, ("kind", "step")))""",
    "for _ in tqdm(range(40), desc='busy'):\n    time.sleep(0.2)",
    "1 / 0",
)


@pytest.mark.notebook
def test_controls_move_while_the_kernel_is_busy_and_errors_are_seen(lab: Any) -> None:
    path = lab.root / "toy.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in TOY]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    lab.open(path)
    try:
        lab.page("runAll")
        lab.until(lambda: lab.page("bars"), 60)
        (moves,) = lab.slides()
        assert len(moves) == 2 and lab.page("state")["kernel"] == "busy"
        with pytest.raises(AssertionError, match="ZeroDivisionError: division by zero"):
            lab.rest()
        assert max(lab.bars()) > 2
    finally:
        lab.close()


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[n.name for n in NOTEBOOKS])
def test_it_runs_in_jupyterlab(
    notebook: notebooks.Notebook, lab: Any, smaller: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    wanted = {**smaller.get(notebook.name, {}), "profile": "quick", "out_dir": str(out)}
    path = lab.put(notebook.path, wanted)
    lab.open(path)
    try:
        lab.run_all()
        code = [c for c in lab.save(path).cells if c.cell_type == "code"]
        assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
        outputs = [output for c in code for output in c.outputs]
        assert not [o for o in outputs if o.output_type == "error"]

        record = load(out)
        assert record.metrics, "a report without a single number"
        assert verify(record, out) == [], "files changed since the record was written"
        assert list(out.glob("*.png")), "a report without a picture"

        shown = [o.data for o in outputs if WIDGET in o.get("data", {})]
        bars = [data for data in shown if "%|" in data.get("text/plain", "")]
        assert not bars or max(lab.bars()) > 2, "no progress bar was seen to move"
        moved = lab.slides()
        assert len(moved) == sum(c.source.count("report.slides(") for c in code)
        assert all(moved), "pictures without a control"
        lab.picture(root / "build" / "notebooks" / f"{notebook.name}.png")
    finally:
        lab.close()
