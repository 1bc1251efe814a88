"""The first cells of every notebook run wherever its kernel is started from.

VS Code starts ``python -m ipykernel_launcher`` of the chosen environment in the notebook's folder,
without what ``make`` or an activated shell would have set: so does this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from dreamzero.report import notebooks
from tests.jupyter import started_kernel

NOTEBOOKS = notebooks.all_notebooks()
IDS = [n.name for n in NOTEBOOKS]
TRICKS = ("sys.path", "PYTHONPATH", "chdir", "%run", "%cd", "%load_ext", "!pip", "%pip")


def code_cells(notebook: notebooks.Notebook) -> list[Any]:
    cells = nbformat.read(notebook.path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=IDS)
def test_no_path_tricks_and_the_kernel_of_the_environment(notebook: notebooks.Notebook) -> None:
    for cell in code_cells(notebook):
        found = [trick for trick in TRICKS if trick in cell.source]
        assert not found, f"cell {cell.id} has {found}"
    metadata = nbformat.read(notebook.path, as_version=4).metadata
    # The name that every environment with ipykernel has: what is chosen is that environment.
    assert metadata.kernelspec.name == "python3"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    keep = ("HOME", "PYTHONPATH", "OMP_NUM_THREADS", "HF_HUB_OFFLINE")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment |= {"PATH": "/usr/bin:/bin"}
    environment |= {"DREAMZERO_WORK": str(tmp_path_factory.mktemp("work"))}
    with started_kernel(cwd=str(notebooks.notebooks_dir()), env=environment) as client:
        yield client


@pytest.mark.notebook
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=IDS)
def test_they_run(notebook: notebooks.Notebook, kernel: Any, tmp_path: Path) -> None:
    """Parameters and set-up, one notebook after the other: imports are paid for once."""
    cells = code_cells(notebook)
    last = next(i for i, cell in enumerate(cells) if "NotebookReport(" in cell.source)
    sources = [cell.source for cell in cells[: last + 1]]
    sources.insert(1, f"out_dir = {str(tmp_path)!r}")
    for source in sources:
        reply = kernel.execute(source, reply=True, timeout=120)["content"]
        assert reply["status"] == "ok", "\n".join(reply.get("traceback", []))
