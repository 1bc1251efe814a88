"""Every notebook through papermill, the way ``dreamzero run`` does it, with a few episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamzero.report import load, notebooks
from dreamzero.report.record import verify

# Fewer episodes and steps than `quick`; a notebook that is not named here runs as it is.
SMALLER: dict[str, dict[str, Any]] = {
    "00_tour": {"episodes": 4},
    "01_data": {"episodes": 12},
    "02_training": {"steps": 12},
    "03_inference": {"episodes": 4, "chunks": 6},
    "04_robot_control": {"episodes": 1},
    "05_cross_embodiment": {"episodes": 12, "steps": 12},
}
NOTEBOOKS = notebooks.all_notebooks()


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[n.name for n in NOTEBOOKS])
def test_it_runs_and_leaves_a_record(
    notebook: notebooks.Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMZERO_WORK", str(tmp_path / "work"))
    folder = notebooks.run(
        notebook, "quick", tmp_path / "out", SMALLER.get(notebook.name), progress=False
    )
    record = load(folder)
    assert record.parameters["profile"] == "quick"
    assert record.metrics, "a report without a single number"
    assert verify(record, folder) == [], "files changed since the record was written"
    assert list(folder.glob("*.png")), "a report without a picture"
    assert (folder / "executed.ipynb").exists()
