"""The run record: round trip, atomic writing, honest about what is not finite."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamzero.errors import UserError
from dreamzero.report.machine import describe_device, git_state, versions
from dreamzero.report.record import FILE_NAME, Metric, RunRecord, format_number, load, verify


def test_round_trip(tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text("step,loss\n0,1\n")
    record = RunRecord("train", {"steps": 3, "path": Path("a/b"), "bad": math.nan}, seed=7)
    record.add("psnr", np.float32(30.5), unit="dB", n=np.int64(64), low=30.0, high=31.0)
    record.add("count", np.int64(3))
    record.artifact(tmp_path / "curve.csv")
    file = record.save(tmp_path)
    loaded = load(tmp_path)
    assert load(file).to_dict() == loaded.to_dict() == json.loads(file.read_text())
    assert loaded.metrics["psnr"] == Metric(30.5, "dB", 64, 30.0, 31.0)
    assert loaded.metrics["count"].value == 3
    assert loaded.parameters == {"steps": 3, "path": "a/b", "bad": None}
    assert loaded.seconds is not None and loaded.seconds >= 0
    assert verify(loaded, tmp_path) == []
    (tmp_path / "curve.csv").write_text("changed")
    assert verify(loaded, tmp_path) == ["curve.csv"]


def test_a_diverged_value_is_null_and_said_so(tmp_path: Path) -> None:
    record = RunRecord("train")
    metric = record.add("loss", math.inf)
    record.save(tmp_path)
    assert load(tmp_path).metrics["loss"].value is None
    assert str(metric) == "not finite"


def test_a_yes_or_no_is_no_metric() -> None:
    with pytest.raises(TypeError, match="number"):
        RunRecord("x").add("worked", True)


def test_artifacts_lie_in_the_folder(tmp_path: Path) -> None:
    record = RunRecord("x")
    (tmp_path / "outside").write_text("")
    record.artifact(tmp_path / "outside")
    with pytest.raises(ValueError, match="outside"):
        record.save(tmp_path / "inside")
    assert not (tmp_path / "inside" / FILE_NAME).exists()


def test_a_failed_write_leaves_the_old_record(tmp_path: Path) -> None:
    RunRecord("first").save(tmp_path)
    broken = RunRecord("second", notes={"text": "\ud800"})  # no UTF-8 for a lone surrogate
    with pytest.raises(UnicodeEncodeError):
        broken.save(tmp_path)
    assert load(tmp_path).name == "first"
    assert os.listdir(tmp_path) == [FILE_NAME]


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"name": "x"}', "null"])
def test_what_is_no_record_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(UserError, match="run record"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"), (0.0, "0"), (0.61, "0.61"), (8.3124, "8.312"), (1234.56, "1235"),
        (123456.7, "123457"), (1e-5, "1e-05"), (2e7, "2e+07"), (-0.5, "-0.5"), (100.0, "100"),
    ],
)  # fmt: skip
def test_numbers_for_readers(value: float, text: str) -> None:
    assert format_number(value) == text


def test_machine_facts(root: Path) -> None:
    assert "cores" in describe_device("cpu")
    assert describe_device("tpu") == "tpu"
    assert versions()["torch"]
    state = git_state()
    head = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    assert state["commit"] == (head.stdout.strip() if head.returncode == 0 else None)


def test_recording_imports_nothing_heavy() -> None:
    code = (
        "import sys, dreamzero.report, dreamzero.report.style, dreamzero.cli\n"
        "dreamzero.report.RunRecord('x')\n"
        "print([m for m in ('torch', 'matplotlib', 'IPython', 'av', 'papermill') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
