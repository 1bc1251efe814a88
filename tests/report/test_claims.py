"""Verdicts: shown, not shown, opposite, not run; and their figures."""

from __future__ import annotations

import numpy as np
import pytest

from dreamzero.evaluate.statistics import Rate
from dreamzero.experiments.cells import Cell
from dreamzero.experiments.claims import grid
from dreamzero.experiments.results import Results
from dreamzero.report import claims_study, plots_claims
from dreamzero.report.claims_study import Claim, claims, verdict


@pytest.mark.parametrize(
    ("low", "high", "goal", "expected"),
    [
        (2.1, 4.0, 2.0, "shown"),
        (1.5, 4.0, 2.0, "not shown"),
        (0.3, 0.9, 2.0, "opposite"),
        (0.91, 1.1, 0.9, "shown"),
        (0.5, 0.95, 0.9, "not shown"),
        (0.5, 0.85, 0.9, "opposite"),
    ],
)
def test_a_verdict_needs_the_whole_interval(
    low: float, high: float, goal: float, expected: str
) -> None:
    assert verdict(Rate((low + high) / 2, low, high, 100), goal) == expected


def outcomes(rng: np.random.Generator, rate: float, places: tuple[str, ...]) -> dict[str, object]:
    found = {}
    for place in places:
        success = (rng.random(60) < rate).astype(int).tolist()
        found[place] = {"success": success, "progress": [float(x) for x in success], "task": []}
    return found


@pytest.fixture
def results() -> Results:
    rng = np.random.default_rng(0)
    items = []
    for method, rate in (
        ("wam-40", 0.6),
        ("wam-640", 0.8),
        ("wam-guided-640", 0.8),
        ("action-only-640", 0.2),
    ):
        for seed in range(3):
            cell = Cell(f"labels/{method}-s{seed}", seed=seed)
            places = ("so101/seen", *claims_study.UNSEEN)
            items.append({"cell": cell.facts(), "outcomes": outcomes(rng, rate, places)})
    return Results(items)


def test_claims_are_judged_on_what_was_run(results: Results) -> None:
    found = {claim.key: claim.judge(results) for claim in claims(640)}
    assert found["recipe"].verdict == "shown"
    row = found["recipe"].row()
    assert row["verdict"] == "shown" and row["goal"] == ">= 2" and row["n"] == 3 * 4 * 60
    assert found["dream"].verdict == "not run" and found["dream"].row()["ratio"] == ""
    backwards = Claim("x", "", "labels/action-only-640", "labels/wam-640", claims_study.UNSEEN, 1.0)
    assert backwards.judge(results).verdict == "opposite"
    by_progress = Claim("x", "", "labels/wam-640", "labels/action-only-640",
                        claims_study.UNSEEN, 2.0, "progress")  # fmt: skip
    assert by_progress.judge(results).verdict == "shown"


def test_claims_name_cells_of_the_grid() -> None:
    """Every method of a claim is in the grid, and is rolled out where the claim looks."""
    for profile, usual in (("quick", 32), ("small", 640)):
        cells = {f"{c.group}/{c.method}": c for c in grid(profile).cells.values()}
        for claim in claims(usual):
            for method in (claim.a, claim.b):
                cell = cells[method]
                there = {f"{robot}/{suite}" for robot in cell.robots for suite in cell.suites}
                assert set(claim.places) <= there, (claim.key, method)


def test_rows_and_figures(results: Results) -> None:
    rows = list(claims_study.cells(results, ["labels/wam-640", "labels/nothing"]))
    assert len(rows) == 5 and "n = 180" in rows[0]["success"]
    figure = plots_claims.curves(
        results, {"wam": "WAM", "action-only": "action-only"}, (40, 640), {"seen": ("so101/seen",)}
    )
    assert len(figure.axes[0].containers) == 2
    found = claims(640)[0].judge(results).contrast
    assert found is not None
    figure = plots_claims.forest([("recipe", found.ratio, 2.0)])
    assert figure.axes[0].get_xscale() == "log"
