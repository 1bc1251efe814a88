"""A notebook through papermill, the way ``dreamzero run`` does it, with a few episodes.

The others run this small in a browser (``test_browser.py``), and where there is none, here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamzero.report import load, notebooks
from dreamzero.report.record import verify

NOTEBOOKS = notebooks.all_notebooks()
ALWAYS = "01_data"


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[n.name for n in NOTEBOOKS])
def test_it_runs_and_leaves_a_record(
    notebook: notebooks.Notebook,
    smaller: dict[str, dict[str, Any]],
    chromium: tuple[str, str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if chromium and notebook.name != ALWAYS:
        pytest.skip("runs in JupyterLab instead")
    monkeypatch.setenv("DREAMZERO_WORK", str(tmp_path / "work"))
    folder = notebooks.run(
        notebook, "quick", tmp_path / "out", smaller.get(notebook.name), progress=False
    )
    record = load(folder)
    assert record.parameters["profile"] == "quick"
    assert record.metrics, "a report without a single number"
    assert verify(record, folder) == [], "files changed since the record was written"
    assert list(folder.glob("*.png")), "a report without a picture"
    assert (folder / "executed.ipynb").exists()
