"""The emergency stop: pressed anywhere, seen everywhere, latched until cleared."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dreamzero.cli import main
from dreamzero.errors import UserError
from dreamzero.robots.estop import EStop
from dreamzero.robots.uri import parse


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DREAMZERO_ESTOP", str(tmp_path / "stop"))
    return tmp_path / "stop"


ONE = parse("serial:///dev/ttyACM0?baud=1000000")
SAME = parse("serial:///dev/ttyACM0?camera=v4l2:///dev/video0")
OTHER = parse("serial:///dev/ttyACM1")


def test_one_arm_and_all() -> None:
    assert EStop(ONE).pressed() == ""
    EStop(ONE).press("smoke")
    assert "smoke" in EStop(SAME).pressed()
    assert str(os.getpid()) in EStop(SAME).pressed()
    assert EStop(OTHER).pressed() == ""
    assert EStop().pressed() == ""
    EStop().press()
    assert EStop(OTHER).pressed()
    assert "smoke" in EStop(ONE).pressed()
    # Clearing one arm does not clear the stop of all; clearing all clears each.
    assert EStop(ONE).clear() != []
    assert EStop(ONE).pressed()
    EStop(OTHER).press()
    assert "all" in EStop().clear()
    assert EStop(ONE).pressed() == EStop(OTHER).pressed() == ""
    assert EStop().clear() == []


def test_a_device_under_another_name_is_the_same_arm(tmp_path: Path) -> None:
    device = tmp_path / "ttyACM0"
    device.touch()
    (tmp_path / "by-id").symlink_to(device)
    by_id, direct = parse(f"serial://{tmp_path}/by-id"), parse(f"serial://{device}")
    running = EStop(direct)
    EStop(by_id).press()
    assert running.pressed()
    EStop(by_id).clear()
    running = EStop(by_id)
    EStop(direct).press()
    assert running.pressed()


def test_a_shell_can_press_it(place: Path) -> None:
    stop = EStop(ONE)
    place.mkdir()
    subprocess.run(["touch", str(place / "all")], check=True)
    assert stop.pressed() == "by somebody"


def test_pressing_twice_keeps_who_was_first() -> None:
    EStop().press("first")
    EStop().press("second")
    assert "first" in EStop().pressed()


def test_one_that_cannot_be_pressed_says_what_to_do(place: Path) -> None:
    place.write_text("a file is in the way")
    with pytest.raises(UserError, match="cut the arm's power"):
        EStop().press()


def test_the_command_line(capsys) -> None:
    run = ["robot", "run", "--robot", "sim://so101", "--policy", "hold", "--chunks", "1"]
    assert main(["robot", "stop"]) == 0
    assert "every arm" in capsys.readouterr().out
    assert main(run) == 2
    assert "was stopped by process" in capsys.readouterr().err
    assert main(["robot", "stop", "--clear", "--robot", "sim://so101"]) == 0
    out = capsys.readouterr().out
    assert "no stop was pressed" in out
    assert "still stopped" in out
    assert main(["robot", "stop", "--clear"]) == 0
    assert "cleared: all" in capsys.readouterr().out
    assert main(run) == 0
    assert main(["robot", "stop", "--robot", "sim://so101"]) == 0
    assert main(run) == 2
