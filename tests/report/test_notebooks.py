"""Finding notebooks, their parameters, and running them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamzero.errors import UserError
from dreamzero.report import NotebookReport, load, notebook_report, notebooks, paths, site
from dreamzero.report.notebook_report import kept_answer
from dreamzero.report.parameters import parse_cell, read_parameters, typed
from dreamzero.report.record import RunRecord, verify

Make = Callable[..., Path]


def test_find_by_number_and_name(make_notebook: Make) -> None:
    folder = make_notebook("03_inference").parent
    make_notebook("10_later")
    make_notebook("draft")  # no number: not one of the laboratory's
    for text in ("3", "03", "inference", "03_inference", "notebooks/03_inference.ipynb"):
        assert notebooks.find(text, folder).name == "03_inference"
    assert [n.number for n in notebooks.all_notebooks(folder)] == ["03", "10"]
    with pytest.raises(UserError, match="did you mean 03_inference.*known: 03_inference, 10_later"):
        notebooks.find("03_inferense", folder)
    with pytest.raises(UserError, match="no notebooks"):
        notebooks.all_notebooks(folder / "none")


def test_parameters_are_read_with_their_comments(make_notebook: Make) -> None:
    known = read_parameters(make_notebook("00_coin"))
    assert list(known) == ["profile", "seed", "device", "out_dir", "trials", "name"]
    assert (known["trials"].default, known["trials"].comment) == (50, "coin throws")


def test_parameters_are_typed() -> None:
    cell = 'a = 1  # int\nb = 0.5\nc = "x"\nd = (1, 2)  # pair\ne = None\nf = True\ng = ["p"]'
    known = parse_cell(cell)
    pairs = [("a", "2"), ("b", "1"), ("c", "3"), ("d", "4,5,6"), ("e", "7"), ("f", "no")]
    values = typed(known, [*pairs, ("g", "q,r")])
    assert values == {
        "a": 2, "b": 1.0, "c": "3", "d": (4, 5, 6), "e": 7, "f": False, "g": ["q", "r"],
    }  # fmt: skip
    assert isinstance(values["b"], float)
    with pytest.raises(UserError, match=r"parameter a must be an integer, got 'x' \(int\)"):
        typed(known, [("a", "x")])
    with pytest.raises(UserError, match=r"unknown parameter 'aa'.*a \(int\)"):
        typed(known, [("aa", "1")])


def test_the_type_beside_a_parameter_decides() -> None:
    cell = 'a: float = 1  # rate\nb: list[str] = []\nc: tuple[int, ...] = ()\nd: str = ""  # name'
    known = parse_cell(cell)
    assert [str(p) for p in known.values()][::3] == ["a: float = 1  # rate", "d: str = ''  # name"]
    values = typed(known, [("a", "2"), ("b", "1,x"), ("c", "4,5"), ("d", "7")])
    assert values == {"a": 2.0, "b": ["1", "x"], "c": (4, 5), "d": "7"}
    assert isinstance(values["a"], float)
    for wrong, says in (("a: int = 'x'", "'x' is no int"), ("a: Path = ''", "use str, int")):
        with pytest.raises(UserError, match=says):
            parse_cell(wrong)


@pytest.mark.parametrize("cell", ["a = f(1)", "import os", "a, b = 1, 2"])
def test_parameters_are_literals(cell: str) -> None:
    with pytest.raises(UserError, match="literal"):
        parse_cell(cell)


def test_a_file_that_is_no_notebook(tmp_path: Path) -> None:
    (tmp_path / "00_x.ipynb").write_text("{}")
    with pytest.raises(UserError, match="not a notebook|0 cells"):
        read_parameters(tmp_path / "00_x.ipynb")


@pytest.mark.notebook
def test_run_writes_the_whole_report(
    make_notebook: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = notebooks.Notebook(make_notebook("00_coin"))
    out = notebooks.run(notebook, "quick", "out", {"trials": 30, "seed": 4}, progress=False)
    assert out == Path("out/00_coin")
    assert {p.name for p in out.iterdir()} == {
        "executed.ipynb", "metrics.json", "report.md", "share.png",
    }  # fmt: skip
    record = load(out)
    assert record.parameters["trials"] == 30 and record.seed == 4
    assert record.parameters["out_dir"] == "out/00_coin"
    assert record.metrics["heads"].n == 30
    assert verify(record, out) == []
    text = (out / "executed.ipynb").read_text()
    assert str(tmp_path) not in text and ".partial" not in text
    assert "\\r" not in text and "40/40" in text, "a progress bar is one line"
    outputs = [o for c in json.loads(text)["cells"] for o in c.get("outputs", [])]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert "![Share of heads so far.](share.png)" in (out / "report.md").read_text()


@pytest.mark.notebook
def test_failures_leave_the_earlier_report(
    make_notebook: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = notebooks.Notebook(make_notebook("00_coin", extra="1 / 0"))
    RunRecord("earlier", {"profile": "quick"}).save("out/00_coin")
    with pytest.raises(notebooks.NotebookFailed, match="cell 6: ZeroDivisionError") as caught:
        notebooks.run(broken, "quick", "out", progress=False)
    assert load("out/00_coin").name == "earlier"
    assert "out/00_coin.failed/executed.ipynb" in str(caught.value)
    assert Path("out/00_coin.failed/executed.ipynb").is_file()
    assert not list(Path("out").glob(".*"))


@pytest.mark.notebook
def test_a_kernel_that_dies_is_named(
    make_notebook: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = notebooks.Notebook(make_notebook("00_coin", end="import os\nos._exit(1)"))
    with pytest.raises(notebooks.NotebookFailed, match="00_coin: its kernel died"):
        notebooks.run(notebook, "quick", "out", progress=False)


@pytest.mark.notebook
def test_a_user_error_in_a_notebook_stays_one(
    make_notebook: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    end = "from dreamzero.errors import UserError\nraise UserError('data/x: no data set here')"
    notebook = notebooks.Notebook(make_notebook("00_coin", end=end))
    with pytest.raises(UserError, match="00_coin: data/x: no data set here"):
        notebooks.run(notebook, "quick", "out", progress=False)
    assert not list(Path("out").iterdir())


def test_quick_never_replaces_a_longer_result(make_notebook: Make, tmp_path: Path) -> None:
    notebook = notebooks.Notebook(make_notebook("00_coin"))
    RunRecord("00_coin", {"profile": "small"}).save(tmp_path / "out" / "00_coin")
    with pytest.raises(UserError, match="holds a 'small' result"):
        notebooks.run(notebook, "quick", tmp_path / "out", progress=False)
    with pytest.raises(UserError, match="holds a 'small' result"):
        _report(tmp_path / "out" / "00_coin")
    paths.refuse_downgrade(tmp_path / "out" / "00_coin", "small")  # the same profile may


def test_unknown_profile_and_parameter(make_notebook: Make, tmp_path: Path) -> None:
    notebook = notebooks.Notebook(make_notebook("00_coin"))
    with pytest.raises(UserError, match="quick, small, full"):
        notebooks.run(notebook, "huge", tmp_path, progress=False)
    with pytest.raises(UserError, match="did you mean trials"):
        notebooks.run(notebook, "quick", tmp_path, {"trails": 1}, progress=False)
    assert not [p for p in tmp_path.iterdir() if p.name != "notebooks"]


def test_report_wants_an_answer_and_its_parameters(tmp_path: Path) -> None:
    report = _report(tmp_path / "r")
    with pytest.raises(ValueError, match="answer"):
        report.save()
    with pytest.raises(ValueError, match="lack seed, device"):
        NotebookReport("x", "?", {"profile": "quick", "out_dir": str(tmp_path)})
    with pytest.raises(ValueError, match="every row"):
        report.table("t", [{"a": 1}, {"b": 1}], "No.")


def test_a_notebook_opens_with_the_committed_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook_report.paths, "repository_root", lambda: tmp_path)
    here, kept = tmp_path / "runs", tmp_path / "reports" / "00_coin"
    assert kept_answer("00_coin", here) == ""
    report = _report(kept)
    report.answer("Yes, in 3 of 4.")
    report.save()
    said = kept_answer("00_coin", here)
    assert "Yes, in 3 of 4." in said and "`quick`" in said and report.record.device in said
    assert kept_answer("00_coin", kept) == "", "what is to be replaced is no answer"


def test_report_keeps_the_last_of_a_cell_run_twice(tmp_path: Path) -> None:
    import numpy as np

    report = _report(tmp_path / "r")
    for shade in (10, 200):
        report.image(np.full((8, 8, 3), shade, np.uint8), "look", f"Shade {shade}.")
    report.answer("Yes.")
    report.save()
    assert load(tmp_path / "r").notes["figures"] == [{"path": "look.png", "caption": "Shade 200."}]
    assert verify(load(tmp_path / "r"), tmp_path / "r") == []


def test_metrics_of_single_cells_are_folded(tmp_path: Path) -> None:
    report = _report(tmp_path / "r")
    report.metric("claims/dream", 1.5)
    report.metric("cells/labels/wam-640/so101/seen", 0.25)
    report.answer("Yes.")
    report.save()
    shown, folded = (tmp_path / "r" / "report.md").read_text().split("<details>")
    assert "claims/dream" in shown and "cells/labels" not in shown
    assert "1 more, of single cells" in folded and "wam-640/so101/seen | 0.25" in folded
    site.write(tmp_path)
    page = (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    assert page.index("dream") < page.index("1 more, of single cells") < page.index("so101: seen")


def _report(out: Path) -> NotebookReport:
    parameters = {"profile": "quick", "seed": 0, "device": "cpu", "out_dir": str(out)}
    return NotebookReport("00_coin", "Is it?", parameters)
