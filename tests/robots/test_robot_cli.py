"""``dreamzero robot``: what it prints, and what it answers to mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamzero.cli import main
from dreamzero.robots.emulation import ARMS

from .conftest import PtyArm


@pytest.mark.parametrize(
    ("robot", "card"), [("so101", "tabletop_so101"), ("koch", "tabletop_koch")]
)
def test_emulate_prints_where_it_listens_and_ends_with_ctrl_c(robot: str, card: str) -> None:
    # A shell's background job, as this test run may be, has SIGINT ignored, and so have its children.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "dreamzero.cli"]
    command += ["robot", "emulate", robot, "--at", "pty"]
    child = subprocess.Popen(
        [*command, "--physics", "lag", "--json"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    where = json.loads(child.stdout.readline())
    assert os.path.realpath(where["port"]).startswith("/dev/pts/")
    try:
        assert main(["robot", "identify", "--robot", f"serial://{where['port']}"]) == 0
        uri = where["uri"]
        run = ["robot", "run", "--robot", uri, "--policy", "hold", "--embodiment", card]
        assert main([*run, "--chunks", "1"]) == 0
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
        child.stdout.close()


def test_emulate_names_every_arm_there_is(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["robot", "emulate", "--help"])
    said = capsys.readouterr().out
    assert all(robot in said for robot in ARMS)


def test_run_on_the_simulator_and_write_the_log(tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "actions.npy", np.zeros((16, 6), np.float32))
    out = tmp_path / "log.json"
    status = main(
        [
            *("robot", "run", "--robot", "sim://so101?task=reach-red", "--chunks", "2", "--json"),
            *("--policy", f"replay:{tmp_path}/actions.npy", "--out", str(out), "--max-start", "2"),
            *("--max-step", "0.3", "--workspace=-0.2:0.6,-0.5:0.5,-0.1:0.8", "--end", "home"),
            *("--smoothing", "savgol", "--record", str(tmp_path / "recorded")),
        ]
    )
    assert status == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ended"] == "done"
    assert said["chunks"] == 2
    assert said["score"]["instruction"] == "touch the red block"
    assert said["step_commands"] > 0
    assert said["record"] == str(tmp_path / "recorded")
    log = json.loads(out.read_text())
    assert len(log["sent"]) > 2 * 8
    np.testing.assert_allclose(log["sent"][-1], log["state"][0], atol=1e-5)
    assert main(["data", "inspect", str(tmp_path / "recorded"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"]


def test_every_run_is_recorded(tmp_path: Path, capsys) -> None:
    run = ["robot", "run", "--robot", "sim://so101?task=reach-red", "--policy", "hold"]
    assert main([*run, "--chunks", "1", "--json", "--no-record"]) == 0
    assert "record" not in json.loads(capsys.readouterr().out)
    assert not (tmp_path / "runs").exists()
    assert main([*run, "--chunks", "1"]) == 0
    assert "recorded into runs/recordings/" in capsys.readouterr().out
    (folder,) = (tmp_path / "runs" / "recordings").iterdir()
    assert main(["data", "inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"]


def test_a_fault_is_status_one(pty_arm: PtyArm, capsys) -> None:
    uri = f"serial://{pty_arm.wire.port}"
    pty_arm.servo(3).error = 4
    assert main(["robot", "run", "--robot", uri, "--policy", "hold", "--chunks", "1"]) == 2
    assert "servo id 3" in capsys.readouterr().err


def test_dry_run_says_so_and_moves_nothing(pty_arm: PtyArm, capsys) -> None:
    uri = f"serial://{pty_arm.wire.port}"
    arguments = ["robot", "run", "--robot", uri, "--policy", "hold", "--chunks", "1", "--dry-run"]
    assert main(arguments) == 0
    assert "dry run" in capsys.readouterr().out
    assert not pty_arm.bus.goals()[1].any()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--robot", "serial:///dev/ttyNONE", "--policy", "hold"], "there is no /dev/ttyNONE"),
        (["--robot", "sim://so101", "--policy", "nowhere"], "no such folder"),
        (["--robot", "sim://so101", "--policy", "replay:no.npy"], "is no .npy file"),
        (["--robot", "sim://ur5e", "--policy", "hold"], "this is no so101"),
        (["--robot", "so101", "--policy", "hold"], "no scheme"),
        (["--robot", "sim://so101", "--policy", "hold", "--speed", "2"], "speed 2.0 is outside"),
        (["--robot", "sim://so101", "--policy", "hold", "--out", "no/such/log.json"], "no folder"),
        (["--robot", "sim://so101?task=fly", "--policy", "hold"], "task 'fly'"),
        (["--robot", "sim://so101", "--policy", "hold", "--workspace", "1:2"], "--workspace 1:2"),
        (["--robot", "sim://so101", "--policy", "hold", "--approach", "2"], "approach 2.0 is"),
        (["--robot", "sim://so101", "--policy", "hold", "--end", "dance"], "unknown 'dance'"),
        (
            ["--robot", "sim://so101?task=reach-red", "--policy", "replay:zeros.npy"],
            "begins with wrist_flex at +0.00 rad",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_two(
    arguments: list[str], part: str, capsys, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("zeros.npy", np.zeros((8, 6)))
    assert main(["robot", "run", *arguments]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1
