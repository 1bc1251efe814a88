"""Two runs side by side: verdicts, what is matched, the table, the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamzero.errors import UserError
from dreamzero.report.compare import compare, judge, write
from dreamzero.report.record import Metric, RunRecord

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        # 48 of 80 against 56 of 70: Newcombe's example, 0.05 to 0.33.
        (Metric(0.6, "", 80, 0.49, 0.70), Metric(0.8, "", 70, 0.69, 0.88), "differs"),
        # 8 of 10 against 6 of 10: the intervals overlap widely.
        (Metric(0.8, "", 10, 0.49, 0.94), Metric(0.6, "", 10, 0.31, 0.83), "within noise"),
        # Intervals that overlap a little can still be apart: 0.5 [0.4, 0.6], 0.66 [0.56, 0.76].
        (Metric(0.5, "", 9, 0.4, 0.6), Metric(0.66, "", 9, 0.56, 0.76), "differs"),
        (Metric(1.0, "s"), Metric(9.0, "s"), "no interval"),
        (Metric(1.0, "s", 5, 0.9, 1.1), Metric(9.0, "s"), "no interval"),
        (Metric(1.0, "", 1, 1.0, 1.0), Metric(2.0, "", 1, 2.0, 2.0), "no interval"),
        (Metric(None, "s"), Metric(9.0, "s"), "no interval"),
        (Metric(1.0, "s", 5, 0.9, 1.1), Metric(9.0, "ms", 5, 8, 10), "other unit"),
        (Metric(1.0), None, "only in A"),
        (None, Metric(1.0), "only in B"),
    ],
)
def test_verdicts(a: Metric | None, b: Metric | None, verdict: str) -> None:
    row = judge("m", a, b)
    assert row.verdict == verdict
    if row.low is not None and row.high is not None and row.difference is not None:
        assert row.low < row.difference < row.high
        assert (verdict == "differs") == (row.low > 0 or row.high < 0)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for side, shift in (("a", 0.0), ("b", 0.4)):
        record = RunRecord(
            "02_training", {"seed": int(shift > 0), "profile": "quick"}, device="cpu"
        )
        record.notes.update(question="?", answer="!", figures=[{"path": "f.png", "caption": "F."}])
        record.add("run/ratio", 0.3 + shift, "of it", n=40, low=0.2 + shift, high=0.4 + shift)
        record.add("run/gain", 1.0, "dB", n=40, low=0.5, high=1.5)
        record.add("seconds", 10 + shift, "s")
        folder = Path(side) / "02_training"
        folder.mkdir(parents=True)
        shutil.copy(Path(__file__).parents[2] / "reports/00_tour/success.png", folder / "f.png")
        record.artifact(folder / "f.png")
        record.save(folder)
    RunRecord("x").save("b/03_more")
    return tmp_path


def test_two_runs(cli: Cli, two: Path) -> None:
    status, out, _ = cli("report", "compare", "a/02_training", "b/02_training", "--out", "c.html")
    assert status == 0 and out.splitlines()[-1] == "c.html"
    (marked,) = [line for line in out.splitlines() if line.strip().startswith("*")]
    assert "run/ratio" in marked and "+0.4 [0.2586, 0.5414]" in marked and "differs" in marked
    assert "seed: 0 | 1" in out and "profile" not in out
    assert "1 of 2 metrics with intervals differ beyond noise; 1 have no interval." in out
    page = Path("c.html").read_text()
    assert page.count('class="differs"') == 1 and page.count("data:image/png") == 2
    assert 'src="http' not in page and "A. F." in page and "B. F." in page


def test_two_folders_are_matched_by_name(cli: Cli, two: Path) -> None:
    found = compare("a", "b")
    assert [pair.name for pair in found.pairs] == ["02_training"]
    assert (found.only_a, found.only_b) == ([], ["03_more"])
    assert "03_more is in B alone" in write(found, two / "page.html").read_text()
    status, out, _ = cli("report", "compare", "a", "b", "--json")
    rows = json.loads(out)["pairs"][0]["rows"]
    assert status == 0 and [r["verdict"] for r in rows] == [
        "differs", "within noise", "no interval",
    ]  # fmt: skip
    same = compare("a/02_training/metrics.json", "a/02_training")
    assert not same.pairs[0].settings and same.summary.startswith("0 of 2")


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ("a", "nowhere", "nowhere: no metrics.json here or below"),
        ("a", "b/02_training", "one is a single run, the other a folder"),
        ("a", "c", "no record of one name in both"),
    ],
)
def test_what_cannot_be_compared(two: Path, a: str, b: str, says: str) -> None:
    RunRecord("x").save("c/05_other")
    with pytest.raises(UserError, match=says):
        compare(a, b)
