"""Cells: run, found again, run anew where something they depend on changed, and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dreamzero.cli import main
from dreamzero.errors import UserError
from dreamzero.experiments.cells import Cell, Use
from dreamzero.experiments.claims import SHIPPED, grid
from dreamzero.experiments.grid import Grid
from dreamzero.experiments.recordings import Recording
from dreamzero.experiments.results import Results, join
from dreamzero.experiments.runner import Runner
from dreamzero.sim.splits import HELD_OUT, split


def small_grid(steps: int = 3) -> Grid:
    found = Grid()
    found.recordings["labels"] = Recording("so101", 6, 511)
    found.recordings["video"] = Recording("hand", 4, 505, ("zone", "push"))
    settings = {"steps": steps, "warmup": 1}
    watch = Use("video", labels=False, batch=4)
    found.add(
        Cell("trunk/all-s0", (watch,), settings=settings),
        Cell(
            "labels/wam-6-s0", (Use("labels", batch=4, weight=3.0), watch), "trunk/all-s0",
            settings=settings, suites=("seen",), scenes=2,
        ),
        Cell(
            "labels/action-only-4-s0", (Use("labels", episodes=4, batch=4),),
            settings=settings | {"dream": "none"}, suites=("seen",), scenes=2,
        ),
        Cell("steps/one-s0", (), "labels/wam-6-s0", suites=("seen",), scenes=2,
             sampler={"steps": 1}),
    )  # fmt: skip
    return found


def test_cells_are_run_and_found_again(tmp_path: Path) -> None:
    runner = Runner(small_grid(), tmp_path)
    assert runner.missing(["steps/one-s0"]) == ["trunk/all-s0", "labels/wam-6-s0", "steps/one-s0"]
    assert runner.run(list(runner.grid.cells), progress=False) == []
    assert runner.missing(runner.grid.cells) == []
    wam = runner.result("labels/wam-6-s0")
    assert wam is not None and wam["training_seconds"] > 0
    assert len(wam["outcomes"]["so101/seen"]["success"]) == 2
    assert not (tmp_path / "models/labels/wam-6-s0/checkpoints").exists()
    from dreamzero.model.bundle import WorldActionModel

    robots = WorldActionModel.load(tmp_path / "models/labels/wam-6-s0").robots
    assert set(robots) == {"tabletop_so101", "tabletop_hand"}
    # Another setting makes a cell, and what starts from it, new; the rest stays.
    changed = small_grid()
    changed.cells["labels/wam-6-s0"] = replace(changed.cells["labels/wam-6-s0"], seed=1)
    again = Runner(changed, tmp_path)
    assert again.missing(changed.cells) == ["labels/wam-6-s0", "steps/one-s0"]
    # The model of a finished cell may be thrown away, and comes back when another needs it.
    results = Results.read(tmp_path)
    rate = results["labels/wam-6"].success("so101/seen")
    assert rate.n == 2 and 0 <= rate.low <= rate.value <= rate.high <= 1
    joined = join(tmp_path, tmp_path / "report")
    assert Results.read(joined)["labels/wam-6"].success("so101/seen") == rate


def test_a_failed_cell_takes_down_those_that_start_from_it_and_no_other(tmp_path: Path) -> None:
    found = small_grid()
    broken = found.cells["trunk/all-s0"]
    found.cells["trunk/all-s0"] = replace(broken, settings={"steps": 3, "lr": float("nan")})
    runner = Runner(found, tmp_path)
    failed = runner.run(list(found.cells), progress=False)
    assert sorted(failed) == ["labels/wam-6-s0", "steps/one-s0", "trunk/all-s0"]
    assert runner.result("labels/action-only-4-s0") is not None
    assert not list((tmp_path / "models").glob("trunk/all-s0"))


def test_the_grids_are_whole() -> None:
    for profile in ("quick", "small"):
        found = grid(profile)
        for cell in found.cells.values():
            assert cell.start in ("", "hold", SHIPPED, *found.cells)
            assert all(use.recording in found.recordings for use in cell.uses)
            assert cell.uses or cell.start
        assert len(found.words()) > 100


def test_no_scene_of_a_recording_is_one_of_an_evaluation() -> None:
    from dreamzero.evaluate import SCENE_OFFSET

    for recording in grid("small").recordings.values():
        assert (recording.seed + 1) * 1_000_000 < SCENE_OFFSET


def test_labels_show_no_task_that_is_held_out() -> None:
    tasks = split("seen")
    assert not set(tasks) & HELD_OUT
    assert grid("small").recordings["labels"].tasks() is None  # the suite's own


def outcome(success: list[int], seed: int, method: str) -> dict[str, object]:
    cell = Cell(f"labels/{method}-s{seed}", seed=seed).facts()
    found = {"success": success, "progress": [float(s) for s in success], "task": ["x"] * 4}
    return {"digest": "", "cell": cell, "outcomes": {"so101/seen": found}}


def test_seeds_are_pooled_and_methods_compared() -> None:
    results = Results(
        [outcome([1, 1, 1, 0], 0, "a-40"), outcome([1, 1, 0, 0], 1, "a-40"),
         outcome([0, 0, 1, 0], 0, "b-40"), outcome([0, 0, 0, 0], 1, "b-40")]
    )  # fmt: skip
    assert results["labels/a-40"].success("so101/seen").value == 5 / 8
    assert results["labels/a-40"].by_seed("so101/seen") == [0.75, 0.5]
    found = results.contrast("labels/a-40", "labels/b-40", "so101/seen")
    assert found.difference.value == pytest.approx(0.5) and found.ratio.value == pytest.approx(5)
    assert found.difference.low < 0.5 < found.difference.high
    with pytest.raises(UserError, match="no result"):
        results["labels/c-40"]


def test_tasks_of_a_recording_are_mixed() -> None:
    mixed = Recording("hand", 4, 1, ("zone", "push")).tasks()
    assert mixed is not None and len({t.verb for t in mixed[:8]}) == 2
    only = Recording("so101", 4, 1, only=("push-red-left",)).tasks()
    assert only is not None and [t.key for t in only] == ["push-red-left"]
    assert Recording("so101", 277, 1).minutes == pytest.approx(20, abs=0.05)


def test_the_command_lists_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["experiment", "list", "--profile", "quick", "--out", str(tmp_path)]
    assert main(given) == 0
    assert "missing labels/wam-16-s0" in capsys.readouterr().out
    assert main(["experiment", "list", "labels/nothing*"]) == 2
    assert "no cell 'labels/nothing*'" in capsys.readouterr().err
    (tmp_path / "cells" / "labels").mkdir(parents=True)
    item = outcome([1, 1, 1, 0], 0, "wam-16")
    item["digest"] = Runner(grid("quick"), tmp_path).digest("labels/wam-16-s0")
    (tmp_path / "cells" / "labels" / "wam-16-s0.json").write_text(json.dumps(item))
    assert main(["experiment", "table", "--profile", "quick", "--out", str(tmp_path)]) == 0
    assert "75 %" in capsys.readouterr().out


def test_outcomes_keep_their_order() -> None:
    results = Results([outcome([1, 0, 0, 0], 1, "a-1"), outcome([0, 1, 1, 1], 0, "a-1")])
    assert np.array_equal(
        results["labels/a-1"].pooled(["so101/seen"]), [[0, 1, 1, 1], [1, 0, 0, 0]]
    )


def test_what_was_kept_counts_as_done(tmp_path: Path) -> None:
    """A model and a result that an earlier run committed: nothing is trained for them again."""
    runner = Runner(small_grid(), tmp_path / "first")
    assert runner.run(["trunk/all-s0"], progress=False) == []
    kept = tmp_path / "kept"
    join(tmp_path / "first", kept)
    (tmp_path / "first" / "models").rename(kept / "models")
    again = Runner(small_grid(), tmp_path / "second", kept)
    assert again.missing(["labels/wam-6-s0"]) == ["labels/wam-6-s0"]
    assert again.model_path("trunk/all-s0") == kept / "models" / "trunk" / "all-s0"
    assert again.run(["labels/wam-6-s0"], progress=False) == []
    found = join(tmp_path / "second", kept)
    assert [item["cell"]["name"] for item in json.loads(found.read_text())] == [
        "labels/wam-6-s0", "trunk/all-s0",
    ]  # fmt: skip
    # An older result or model of the work folder does not hide what was kept.
    stale = tmp_path / "stale"
    assert Runner(small_grid(steps=2), stale).run(["trunk/all-s0"], progress=False) == []
    beside = Runner(small_grid(), stale, kept)
    assert beside.result("trunk/all-s0") is not None
    assert beside.model_path("trunk/all-s0") == kept / "models" / "trunk" / "all-s0"
    # Where a model is gone, so may be the one that it started from.
    bare = tmp_path / "bare"
    join(tmp_path / "second", bare)
    assert Runner(small_grid(), tmp_path / "new", bare).missing(["steps/one-s0"]) == [
        "trunk/all-s0", "labels/wam-6-s0", "steps/one-s0",
    ]  # fmt: skip
    other = small_grid(steps=4)
    assert Runner(other, tmp_path / "third", kept).result("trunk/all-s0") is None
