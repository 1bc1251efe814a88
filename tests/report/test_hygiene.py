"""What is committed under notebooks/ and reports/ keeps the rules of CONTRIBUTING.md."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from dreamzero.report.notebook_report import FIRST_PARAMETERS
from dreamzero.report.parameters import read_parameters
from dreamzero.report.record import FILE_NAME, load, verify

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RECORDS = sorted((ROOT / "reports").glob(f"*/{FILE_NAME}"))
MACHINE_PATHS = ("/home/", "/Users/", "/tmp/", f"{Path.home()}/", f"{ROOT}/")


def _name(path: Path) -> str:
    return path.stem if path.suffix == ".ipynb" else path.parent.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=_name)
def test_notebook_is_clean(path: Path) -> None:
    notebook = nbformat.read(str(path), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor >= 5) == (4, True)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        assert cell.source.strip(), f"cell {cell.id} is empty"
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, f"cell {cell.id} was run"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=_name)
def test_notebook_keeps_the_form(path: Path) -> None:
    notebook = nbformat.read(str(path), as_version=4)
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    known = read_parameters(path)
    assert tuple(known)[:4] == FIRST_PARAMETERS
    assert len(known) <= 9, "at most five parameters of its own"
    assert (known["profile"].default, known["out_dir"].default) == ("quick", "")
    for parameter in known.values():
        assert parameter.comment, f"{parameter.name} has no comment"
        assert parameter.kind, (
            f"{parameter.name} has no type, which papermill --help-notebook shows"
        )
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert f'"{path.stem}"' in code, "NotebookReport must carry the notebook's name"
    for needed in ("report.answer(", "report.save()", "assert "):
        assert needed in code, f"no {needed}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=_name)
def test_papermill_shows_types_and_comments(path: Path) -> None:
    """What ``papermill --help-notebook`` prints is inferred by this very call."""
    from papermill.inspection import inspect_notebook

    shown = inspect_notebook(str(path))
    for parameter in read_parameters(path).values():
        found = shown[parameter.name]
        assert found["inferred_type_name"] == parameter.kind
        assert found["help"] == parameter.comment


@pytest.mark.parametrize("path", RECORDS, ids=_name)
def test_committed_report_is_whole(path: Path) -> None:
    record = load(path)
    assert verify(record, path.parent) == [], "files changed since the record was written"
    for name in (FILE_NAME, "report.md", "executed.ipynb"):
        file = path.parent / name
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            found = [where for where in MACHINE_PATHS if where in _without_pictures(file, text)]
            assert not found, f"{name} names paths of the machine it was made on"


def _without_pictures(file: Path, text: str) -> str:
    if file.suffix != ".ipynb":
        return text
    notebook = nbformat.reads(text, as_version=4)
    shown = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            shown.append(output.get("text", "") + "".join(output.get("traceback", [])))
            shown.append(str(output.get("data", {}).get("text/plain", "")))
        shown.append(cell.source)
    return "\n".join(shown)
