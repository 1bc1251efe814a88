"""Every notebook in JupyterLab, in a real browser: it runs, bars are live, controls move.

Screenshots of the whole pages are kept in ``build/notebooks``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamzero.report import load, notebooks
from dreamzero.report.record import verify

NOTEBOOKS = notebooks.all_notebooks()
WIDGET = "application/vnd.jupyter.widget-view+json"


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
