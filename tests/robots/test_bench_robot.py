"""`dreamzero bench robot`: short runs of the real thing, and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamzero.cli import main
from dreamzero.cli._bench_robot import AIMS, PARTS
from dreamzero.report.record import load
from dreamzero.robots import fuzz
from dreamzero.robots.feetech.servos import ServoBus


def test_damaged_frames_are_borne_and_nothing_gets_through() -> None:
    found = fuzz.fuzz_frames(4000, seed=1)
    assert found["frames"] >= 4000
    assert (found["crashes"], found["accepted"]) == (0, 0)


def test_a_crash_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def feed(self: ServoBus, data: bytes) -> bytes:
        raise ValueError("not our day")

    monkeypatch.setattr(ServoBus, "feed", feed)
    assert fuzz.fuzz_frames(1000)["crashes"] >= 256


def test_parts_are_measured_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = "servos,limits,frames"
    options = ["--parts", parts, "--n", "2000", "--out", str(tmp_path)]
    assert main(["bench", "robot", *options]) == 0
    shown = capsys.readouterr().out
    assert "sync read of six Feetech servos: p50" in shown
    assert "fuzzed commands outside limits" in shown
    record = load(tmp_path / "metrics.json")
    assert record.metrics["limits/violations"].value == 0
    assert record.metrics["dynamixel/sync_read_p50_ms"].unit == "ms"
    assert main(["bench", "robot", "--parts", "limits", "--n", "1000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["limits/commands"]["value"] == 1000


def test_mistakes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "robot", "--parts", "wheels"]) == 2
    assert "known are stream" in capsys.readouterr().err
    assert main(["bench", "robot", "--n", "0"]) == 2
    assert {aim.metric.split("/")[0] for aim in AIMS} <= {*PARTS, "feetech", "dynamixel"}
