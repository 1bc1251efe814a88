"""GEAR's additional files, in and out, and statistics that came with a dataset against its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamzero import embodiments
from dreamzero.cli import main
from dreamzero.data import gear
from dreamzero.data.check import check
from dreamzero.data.normalize import compute
from dreamzero.data.published import compare
from dreamzero.data.reader import Dataset
from dreamzero.data.stats import describe, merge
from dreamzero.embodiments import Field
from dreamzero.errors import UserError

from .recordings import VIEW, ramp, real_data, write_v2

CARD = embodiments.get("tabletop_so101").with_(
    name="mine",
    robot="arm",
    views=(VIEW,),
    state=(Field("x", 0, 1), Field("y", 1, 2, unit="1")),
    action=(Field("x", 0, 1, relative=True), Field("y", 1, 2, unit="1")),
    lower=(),
    upper=(),
    velocity=(),
)


def add(root: Path, name: str, data: Any) -> None:
    (root / name).write_text(json.dumps(data))


def swing(rows: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(0, 0.1, (rows, 2)), axis=0).astype(np.float32)
    return {"observation.state": x, "action": x + rng.normal(0, 0.05, x.shape).astype(np.float32)}


def by_hand(dataset: Dataset, horizon: int) -> np.ndarray:
    """Actions minus their block's first state, every row but the last ``horizon`` beginning a block."""
    values = []
    for episode in dataset.episodes:
        rows = dataset.rows(episode.index)
        for start in range(episode.length - horizon):
            for step in range(horizon):
                values.append(rows["action"][start + step, 0] - float(rows["state"][start, 0]))
    return np.asarray(values)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_v2(tmp_path / "d", [40], vectors=swing(40, 0))
    dataset = Dataset.open(tmp_path / "d")
    assert gear.write(dataset.root, dataset, CARD) == []
    again = Dataset.open(tmp_path / "d")
    assert (again.gear.tag, again.gear.views) == ("mine", {"front": VIEW})
    assert again.gear.state["y"] == gear.Slice("observation.state", 1, 2)
    assert gear.fields(again, "state") == (Field("x", 0, 1), Field("y", 1, 2))
    modality = json.loads((tmp_path / "d" / gear.MODALITY).read_text())
    assert set(modality) == {"state", "action", "video", "annotation"}
    assert set(modality["action"]["x"]) == {
        "original_key", "start", "end", "rotation_type", "absolute", "dtype", "range",
    }  # fmt: skip
    values = by_hand(again, CARD.horizon)
    relative = again.gear.relative["x"]
    np.testing.assert_allclose(relative.q99, [np.quantile(values, 0.99)], rtol=1e-6)
    np.testing.assert_allclose(relative.mean, [values.mean()], atol=1e-7)
    assert all(row.agrees for row in compare(again, CARD))
    # Training leaves out nothing that a block fits into: one more block an episode.
    ours = compute(again, CARD.with_(video_hz=15.0, action_hz=15.0)).action["x"]
    assert ours.count == len(values) + CARD.horizon


def test_statistics_of_other_data_are_found(tmp_path: Path) -> None:
    root = tmp_path / "d"
    write_v2(root, [40, 30])
    dataset = Dataset.open(root)
    gear.write(root, dataset, CARD)
    rows = np.concatenate([dataset.rows(e)["action"] for e in (0, 1)])
    good = describe(rows)
    add(root, "meta/stats.json", {"action": good})
    lines = [
        {"episode_index": e, "stats": {"action": describe(dataset.rows(e)["action"])}}
        for e in (0, 1)
    ]
    path = root / "meta/episodes_stats.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = compare(Dataset.open(root), CARD)
    assert [row.file for row in found] == [
        "stats.json", "episodes_stats.jsonl", "episodes_stats.jsonl", "relative statistics",
    ]  # fmt: skip
    assert all(row.agrees and row.deviation < 1e-6 for row in found)
    add(root, "meta/stats.json", {"action": good | {"q99": [9, 9]}})
    lines[1]["stats"]["action"]["std"] = [1.0, 2.0]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    relative = json.loads((root / gear.RELATIVE[0]).read_text())
    relative["x"]["q01"] = [-1.0]
    add(root, gear.RELATIVE[0], relative)
    found = [row for row in compare(Dataset.open(root), CARD) if not row.agrees]
    assert [(row.file, row.episode) for row in found] == [
        ("stats.json", None), ("episodes_stats.jsonl", 1), ("relative statistics", None),
    ]  # fmt: skip
    assert "q99 differs by" in found[0].text
    named = [f for f in check(Dataset.open(root), CARD) if f.name == "stats-foreign"]
    assert len(named) == 3 and named[-1].episode == 1


def test_the_published_statistics_of_real_recordings_are_equal() -> None:
    g1 = Dataset.open(real_data("g1_inspire"))
    rows = compare(g1)
    assert len(rows) == 8 and all(row.agrees for row in rows)
    assert max(row.deviation for row in rows) < 1e-5
    franka = compare(Dataset.open(real_data("franka_usb")))
    assert [row.text for row in franka] == ["holds all rows on disk"] * 2


def test_columns_of_other_names(tmp_path: Path) -> None:
    """LIBERO's names, with state and action in several columns."""
    root = tmp_path / "d"
    write_v2(root, [20])
    path = next(root.rglob("*.parquet"))
    table = pq.read_table(path)
    names = {"observation.state": "state", "action": "actions"}
    table = table.rename_columns([names.get(n, n) for n in table.column_names])
    pq.write_table(table, path)
    add(
        root,
        gear.MODALITY,
        {
            "state": {"y": {"original_key": "state", "start": 1, "end": 2}},
            "action": {"gripper": {"original_key": "actions", "start": 0, "end": 1}},
        },
    )
    dataset = Dataset.open(root)
    assert [n.partition(":")[0] for n in dataset.notes] == ["renamed-columns"] * 2
    np.testing.assert_array_equal(dataset.rows(0)["state"], ramp(20, 2, 15))
    assert dataset.columns["action"] == {"actions": (0, 2)}
    assert gear.fields(dataset, "action") == (Field("gripper", 0, 1, unit="1"),)


def test_split_columns_keep_their_slices(tmp_path: Path) -> None:
    root = tmp_path / "d"
    write_v2(root, [20])
    path = next(root.rglob("*.parquet"))
    table = pq.read_table(path)
    state = table["observation.state"]
    table = table.drop(["observation.state"])
    for part in ("arm", "hand"):
        table = table.append_column(f"observation.state.{part}", state)
    pq.write_table(table, path)
    key = {"original_key": "observation.state.hand", "start": 1, "end": 2}
    add(root, gear.MODALITY, {"state": {"thumb": key}})
    dataset = Dataset.open(root)
    assert dataset.rows(0)["state"].shape == (20, 4)
    assert gear.fields(dataset, "state") == (Field("thumb", 3, 4),)
    wide = CARD.with_(state=(Field("both", 1, 3),), action=())
    with pytest.raises(UserError, match="spans several columns"):
        gear.write(tmp_path / "out", dataset, wide)


def test_instructions_in_the_rows(tmp_path: Path) -> None:
    root = tmp_path / "d"
    write_v2(root, [5, 6])
    (root / "meta/episodes.jsonl").write_text(
        "".join(json.dumps({"episode_index": e, "length": n}) + "\n" for e, n in ((0, 5), (1, 6)))
    )
    column = "annotation.language.task"
    for number, path in enumerate(sorted(root.rglob("*.parquet"))):
        table = pq.read_table(path)
        texts = pa.array([f"push {number}"] * table.num_rows)
        pq.write_table(table.append_column(column, texts), path)
    add(root, gear.MODALITY, {"annotation": {"language.task": {"original_key": column}}})
    dataset = Dataset.open(root)
    assert [e.task for e in dataset.episodes] == ["push 0", "push 1"]
    assert [n.partition(":")[0] for n in dataset.notes] == ["task-annotation"]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    root = tmp_path / "d"
    write_v2(root, [5])
    (root / gear.MODALITY).write_text("{")
    add(root, gear.RELATIVE[1], {"x": {"mean": [0]}})
    notes = Dataset.open(root).notes
    assert [n.partition(":")[0] for n in notes] == ["gear-unreadable", "relative-stats"]
    add(root, gear.MODALITY, {"state": {"x": {"start": 0}}, "video": 3})
    assert "state 'x' has no start and end" in Dataset.open(root).notes[0]


def test_merged_statistics_are_those_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(i, 1 + i, (10 + 5 * i, 3)) for i in range(4)]
    merged, whole = merge([describe(p) for p in parts]), describe(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(merged[name], whole[name], rtol=1e-12)


def test_stats_show_the_published_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "d"
    write_v2(root, [40])
    add(root, "meta/stats.json", {"action": {"min": [0, 0], "max": [1, 1]}})
    assert main(["data", "stats", str(root)]) == 0
    assert "Published statistics against the rows" in capsys.readouterr().out
    assert main(["data", "stats", str(root), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["published"]
    assert row["file"] == "stats.json" and not row["agrees"]
