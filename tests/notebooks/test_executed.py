"""The executed copies under ``reports/`` against a fresh run: nbval compares the marked cells.

nbval passes cells without stored outputs without comparing anything, so that it runs on the
executed copies, not on the stripped notebooks. They run as small as in a browser (``smaller``), except for
what a marked cell prints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
MARK = "# NBVAL_CHECK_OUTPUT"
EXECUTED = sorted((ROOT / "reports").glob("[0-9][0-9]_*/executed.ipynb"))
NAMES = [path.parent.name for path in EXECUTED]
PRINTED = {"01_data": ("episodes",), "02_training": ("dataset",)}


def cells(path: Path) -> list[Any]:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def test_every_notebook_has_an_executed_copy() -> None:
    assert NAMES == sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.parametrize("path", EXECUTED, ids=NAMES)
def test_the_copy_is_of_this_notebook(path: Path) -> None:
    source = cells(ROOT / "notebooks" / f"{path.parent.name}.ipynb")
    copy = [c for c in cells(path) if "injected-parameters" not in c.metadata.get("tags", [])]
    assert [(c.id, c.source) for c in copy] == [(c.id, c.source) for c in source], (
        f"{path} is older than its notebook: run it again with --out reports"
    )
    marked = [c for c in copy if MARK in c.source]
    assert marked, "no cell is held against the fresh run"
    assert all(c.outputs for c in marked), "a marked cell has no output to compare"


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize("path", EXECUTED, ids=NAMES)
def test_nbval(path: Path, smaller: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    name = path.parent.name
    given = {k: v for k, v in smaller.get(name, {}).items() if k not in PRINTED.get(name, ())}
    given["out_dir"] = str(tmp_path / "report")
    notebook = nbformat.read(path, as_version=4)
    profile = json.loads((path.parent / "metrics.json").read_text())["parameters"]["profile"]
    if profile != "quick":
        pytest.skip(f"the committed result is a {profile!r} run: too long to run again here")
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source += "".join(f"\n{key} = {value!r}" for key, value in given.items())
    copy = tmp_path / f"{name}.ipynb"
    nbformat.write(notebook, copy)
    run = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax",
            "--nbval-current-env", "--nbval-cell-timeout", "900", "--rootdir", str(tmp_path),
            "-c", os.devnull, str(copy),
        ],
        cwd=tmp_path,
        env=os.environ | {"DREAMZERO_WORK": str(tmp_path / "work")},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert (tmp_path / "report" / "metrics.json").exists()
