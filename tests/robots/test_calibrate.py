"""Calibration by hand, on both buses: recorded, asked for, imported; the file drives the arm after."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dreamzero import robots
from dreamzero.cli import main
from dreamzero.errors import UserError
from dreamzero.robots import calibration
from dreamzero.robots.calibration import Calibration
from dreamzero.robots.dynamixel.table import Mode
from dreamzero.robots.servos import calibrate
from dreamzero.robots.servos.calibrate import Recorder

from .conftest import PtyArm


@pytest.fixture(params=["so101", "koch"])
def arm(request: pytest.FixtureRequest) -> Iterator[PtyArm]:
    made = PtyArm(request.param)
    yield made
    made.wire.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "SAMPLE_HZ", 1000.0)


def pose(radians: float, grip: float) -> np.ndarray:
    return np.array([radians] * 5 + [grip])


# One end to the other and back to somewhere; small steps, as a hand makes them.
WAY = [
    pose(a, g) for a, g in [*zip(np.linspace(0, 1.2, 8), np.linspace(0.5, 1, 8), strict=True)]
] + [pose(a, g) for a, g in [*zip(np.linspace(1.2, -1.0, 12), np.linspace(1, 0, 12), strict=True)]]


def follow(recorder: Recorder, arm: PtyArm, way: list[np.ndarray]) -> None:
    """Record while the arm goes along ``way``: one sample a pose."""
    left = iter(way)

    def gone() -> bool:
        here = next(left, None)
        if here is not None:
            arm.bus.measure(here, 0.02)
        return here is None

    recorder.record(done=gone)


def test_middle_and_ranges(arm: PtyArm) -> None:
    arm.bus.measure(pose(0.0, 0.5), 0.0)
    driver = arm.driver(move=False)
    with driver:
        recorder = Recorder(driver)
        recorder.mark_middle()
        follow(recorder, arm, WAY)
        made = recorder.calibration()
    scale = calibration.JointCalibration.scale
    for joint in made.joints[:5]:
        assert joint.zero_tick == 2048
        assert joint.max_tick == pytest.approx(2048 + 1.2 / scale, abs=1)
        assert joint.min_tick == pytest.approx(2048 - 1.0 / scale, abs=1)
        assert joint.homing_offset == 0
    grip = made.joints[5]
    assert (grip.min_tick, grip.max_tick, grip.zero_tick) == (2048, 3072, 2048)
    assert grip.scale == pytest.approx(1 / 1024)
    assert not arm.bus.goals()[1].any()
    with arm.driver(calib=made) as holding:
        state = holding.observe(views=()).state
        np.testing.assert_allclose(state, WAY[-1], atol=1e-3)


def test_an_arm_that_was_put_together_otherwise(arm: PtyArm) -> None:
    """Horns sit anywhere, and the middle pose is what counts."""
    arm.bus.measure(pose(0.4, 0.7), 0.0)
    driver = arm.driver(move=False)
    with driver:
        recorder = Recorder(driver)
        recorder.mark_middle()
        follow(recorder, arm, [step + pose(0.4, 0.0) * [1, 1, 1, 1, 1, 0] for step in WAY])
        made = recorder.calibration()
    with arm.driver(calib=made, move=False) as reading:
        arm.bus.measure(pose(0.4 + 0.25, 0.5), 0.02)
        np.testing.assert_allclose(reading.observe(views=()).state, pose(0.25, 0.5), atol=2e-3)


def test_a_range_through_the_end_of_the_turn() -> None:
    """The Koch counts on; a Feetech servo cannot, and is told to count from elsewhere."""
    way = [step + pose(2.8, 0.0) for step in WAY]
    for robot in ("koch", "so101"):
        arm = PtyArm(robot)
        try:
            arm.bus.measure(way[0], 0.0)
            driver = arm.driver(move=False)
            with driver:
                recorder = Recorder(driver)
                recorder.mark_middle()
                follow(recorder, arm, way)
                if robot == "so101":
                    with pytest.raises(UserError, match=r"shoulder_pan .servo id 1. goes through"):
                        recorder.calibration()
                    arm.bus.measure(way[0], 0.02)
                    recorder.mark_middle(center=True)
                    shown = driver.ask("present_position")
                    assert set(shown.values()) == {2048}
                    assert all(s.get("lock") for s in arm.bus.servos)
                    follow(recorder, arm, way)
                made = recorder.calibration()
                zeros = {joint.zero_tick for joint in made.joints[:5]}
                expected = (
                    {2048} if robot == "so101" else {2048 + round(2.8 / made.joints[0].scale)}
                )
                assert zeros == expected
            # Switched off and on somewhere else: the same pose is read.
            arm.bus.measure(pose(2.8 - 0.9, 0.3), 0.0)
            with arm.driver(calib=made) as holding:
                state = holding.observe(views=()).state
                np.testing.assert_allclose(state, pose(-0.9, 0.3), atol=3e-3)
        finally:
            arm.wire.close()


def test_in_position_mode_a_dynamixel_is_like_the_others(koch: PtyArm) -> None:
    for servo in koch.bus.servos:
        servo.set("operating_mode", Mode.POSITION)
    way = [step + pose(2.8, 0.0) for step in WAY]
    koch.bus.measure(way[0], 0.0)
    driver = koch.driver(move=False)
    with driver:
        recorder = Recorder(driver)
        follow(recorder, koch, way)
        with pytest.raises(UserError, match="extended position mode"):
            recorder.calibration()
        with pytest.raises(UserError, match="keep their homing offsets"):
            recorder.mark_middle(center=True)


def test_half_a_calibration_keeps_the_other_half(arm: PtyArm) -> None:
    arm.bus.measure(pose(0.1, 0.5), 0.0)
    driver = arm.driver(move=False)
    with driver:
        recorder = Recorder(driver)
        recorder.mark_middle()
        only_middle = recorder.calibration()
        follow(Recorder(driver), arm, WAY)
        recorder = Recorder(driver)
        follow(recorder, arm, WAY)
        only_ranges = recorder.calibration()
    shift = round(0.1 / calibration.JointCalibration.scale)
    old = driver.calibration.joints
    for before, middle, ranges in zip(old, only_middle.joints, only_ranges.joints, strict=True):
        if before.name == "gripper":
            assert middle.zero_tick == before.zero_tick
            continue
        assert middle.zero_tick == before.zero_tick + shift
        assert ranges.zero_tick == before.zero_tick
        assert ranges.max_tick < before.max_tick


def test_a_joint_that_was_forgotten(arm: PtyArm) -> None:
    driver = arm.driver(move=False)
    with driver:
        recorder = Recorder(driver)
        still = [step * [1, 1, 0, 1, 1, 1] for step in WAY]
        follow(recorder, arm, still)
        assert recorder.unmoved() == ["elbow_flex"]
        with pytest.raises(UserError, match="elbow_flex hardly moved.*nothing is saved"):
            recorder.calibration()


def test_an_arm_that_is_held_cannot_be_moved(arm: PtyArm) -> None:
    arm.servo(2).set("torque_enable", 1)
    driver = arm.driver(move=False)
    with driver:
        with pytest.raises(UserError, match="torque is on at servo id 2.*--relax"):
            Recorder(driver)
        driver.relax()
        Recorder(driver)


class Hand(threading.Thread):
    """Moves the arm along a way, each pose for as long as it takes to be seen, then does something."""

    def __init__(self, arm: PtyArm, way: list[np.ndarray], then: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.arm, self.way, self.then = arm, way, then
        self.start()

    def run(self) -> None:
        for here in self.way:
            self.arm.bus.measure(here, 0.02)
            seen, deadline = self.arm.bus.packets, time.monotonic() + 5
            while self.arm.bus.packets < seen + 2 and time.monotonic() < deadline:
                time.sleep(0.001)
        self.then()


def test_the_wizard(arm: PtyArm, tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "arm.json"
    reader, writer = os.pipe()
    keys, stdin = os.fdopen(writer, "w", buffering=1), os.fdopen(reader)
    monkeypatch.setattr(sys, "stdin", stdin)
    arm.bus.measure(WAY[0], 0.0)
    keys.write("\n")

    # The hand forgets the elbow, is told so, and does it again.
    def again() -> None:
        keys.write("\n")
        Hand(arm, WAY, lambda: keys.write("\n"))

    # It stands still until connecting and marking the middle, some twenty packets, are done with.
    still = [WAY[0]] * 20
    Hand(arm, still + [step * [1, 1, 0, 1, 1, 1] for step in WAY], again)
    card = arm.card.name
    status = main(
        ["robot", "calibrate", "--robot", str(arm.uri), "--embodiment", card, "--out", str(out)]
    )
    said = capsys.readouterr().out
    assert status == 0, said
    assert "every joint in the middle of its range" in said
    assert "elbow_flex hardly moved; go on" in said
    made = Calibration.load(out)
    assert made.joints[2].max_tick - made.joints[2].min_tick > 1400
    address = said.strip().splitlines()[-1]
    with robots.open(address, arm.card) as holding:
        assert arm.bus.goals()[1].all()
        np.testing.assert_allclose(holding.observe(views=()).state, WAY[-1], atol=2e-3)
    keys.close()
    stdin.close()
    assert list(tmp_path.iterdir()) == [out]


def test_the_wizard_shows_a_table_on_a_terminal(koch: PtyArm, monkeypatch) -> None:
    from dreamzero.cli import _robot_calibrate

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(_robot_calibrate, "_TABLE_S", 0.0)
    with koch.driver(move=False) as driver:
        recorder = Recorder(driver)
        monkeypatch.setattr(sys, "stdout", Terminal())
        show = _robot_calibrate._live_table(recorder)
        show()
        koch.bus.measure(pose(0.5, 0.5), 0.02)
        recorder.sample()
        show()
        shown = sys.stdout.getvalue()
    tick = 2048 + round(0.5 / calibration.JointCalibration.scale)
    assert shown.count("\033[7A") == 1
    assert f"shoulder_pan       2048   {tick}   {tick}" in shown.split("\033[7A")[1]


def test_scripts(arm: PtyArm, tmp_path: Path, capsys) -> None:
    out = tmp_path / "arm.json"
    where = ["robot", "calibrate", "--robot", str(arm.uri), "--embodiment", arm.card.name]
    arm.bus.measure(pose(0.1, 0.5), 0.0)
    assert main([*where, "--middle", "--out", str(out)]) == 0
    shift = round(0.1 / calibration.JointCalibration.scale)
    assert Calibration.load(out).joints[0].zero_tick == 2048 + shift

    # What stands in the address is kept where it is not recorded.
    where[3] = f"{arm.uri}?calibration={out}"
    hand = Hand(arm, WAY, lambda: None)
    assert main([*where, "--ranges", "--seconds", "1.5", "--out", str(out)]) == 0
    hand.join()
    made = Calibration.load(out)
    assert made.joints[0].zero_tick == 2048 + shift
    assert made.joints[0].max_tick == pytest.approx(2048 + 1.2 / made.joints[0].scale, abs=1)
    assert not arm.bus.goals()[1].any()
    capsys.readouterr()

    before = out.read_bytes()
    for arguments, part in [
        ([*where, "--ranges", "--seconds", "0.1"], "hardly moved"),
        ([*where, "--out", f"{tmp_path}/no/arm.json", "--middle"], "there is no folder"),
        ([*where[:2], "--middle"], "--robot is missing"),
        ([*where, "--ranges", "--seconds", "0"], "--seconds 0.0: give seconds > 0"),
        ([*where, "--ranges", "--center"], "give --middle too"),
        ([*where[:3], "serial:///dev/ttyNONE", "--middle"], "there is no /dev/ttyNONE"),
        ([*where[:5], "tabletop_franka", "--middle"], "no driver for franka over serial"),
        ([*where, "--import", f"{tmp_path}/nothing.json"], "nothing.json does not exist"),
    ]:
        assert main(["robot", "calibrate", "--out", str(out), *arguments[2:]]) == 2
        error = capsys.readouterr().err
        assert part in error
        assert error.count("\n") == 1
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_configure_first(koch: PtyArm, tmp_path: Path, capsys) -> None:
    koch.servo(2).set("operating_mode", Mode.VELOCITY)
    koch.servo(2).set("torque_enable", 1)
    where = ["robot", "calibrate", "--robot", str(koch.uri), "--embodiment", "tabletop_koch"]
    out = str(tmp_path / "arm.json")
    assert main([*where, "--middle", "--out", out]) == 2
    assert "`dreamzero robot calibrate --configure` sets it" in capsys.readouterr().err
    assert main([*where, "--middle", "--configure", "--out", out]) == 0
    assert "servo id 2: operating_mode 1 -> 4" in capsys.readouterr().out
    koch.servo(5).set("torque_enable", 1)
    assert main([*where, "--middle", "--out", out]) == 2
    assert "torque is on at servo id 5" in capsys.readouterr().err
    assert main([*where, "--middle", "--relax", "--out", out]) == 0
    assert koch.servo(5).get("torque_enable") == 0


# As LeRobot writes it for an SO-101 follower.
LEROBOT = {
    "shoulder_pan": {
        "id": 1,
        "drive_mode": 0,
        "homing_offset": -1470,
        "range_min": 758,
        "range_max": 3292,
    },
    "shoulder_lift": {
        "id": 2,
        "drive_mode": 0,
        "homing_offset": 157,
        "range_min": 612,
        "range_max": 3401,
    },
    "elbow_flex": {
        "id": 3,
        "drive_mode": 0,
        "homing_offset": 1040,
        "range_min": 850,
        "range_max": 3078,
    },
    "wrist_flex": {
        "id": 4,
        "drive_mode": 0,
        "homing_offset": -12,
        "range_min": 876,
        "range_max": 3221,
    },
    "wrist_roll": {
        "id": 5,
        "drive_mode": 0,
        "homing_offset": 902,
        "range_min": 0,
        "range_max": 4095,
    },
    "gripper": {
        "id": 6,
        "drive_mode": 0,
        "homing_offset": 1199,
        "range_min": 2030,
        "range_max": 3495,
    },
}


def test_a_calibration_of_lerobot(pty_arm: PtyArm, tmp_path: Path, capsys) -> None:
    theirs, ours = tmp_path / "lerobot.json", tmp_path / "ours.json"
    theirs.write_text(json.dumps(LEROBOT))
    assert main(["robot", "calibrate", "--import", str(theirs), "--out", str(ours)]) == 0
    made = Calibration.load(ours)
    assert made == Calibration.load(theirs)
    assert made.names == tuple(LEROBOT)
    pan, grip = made.joints[0], made.joints[5]
    assert pan.to_value(2025) == 0.0  # the middle of its range, as LeRobot's degrees have it
    assert pan.to_value(3292) == pytest.approx(np.radians((3292 - 2025) * 360 / 4096))
    assert (grip.to_value(2030), grip.to_value(3495)) == (0.0, pytest.approx(1.0))
    assert pan.homing_offset == -1470

    # It is of no use on servos whose offsets are not those that LeRobot wrote.
    uri = f"{pty_arm.uri}?calibration={theirs}"
    with pytest.raises(robots.RobotFault, match="id 1 .shoulder_pan. has homing offset 0"):
        robots.open(uri, pty_arm.card).connect()
    for servo, entry in zip(pty_arm.bus.servos, LEROBOT.values(), strict=True):
        servo.set("homing_offset", entry["homing_offset"])
        middle = (entry["range_min"] + entry["range_max"]) // 2
        servo.set("present_position", middle)
    with robots.open(uri, pty_arm.card) as arm:
        state = arm.observe(views=()).state
        np.testing.assert_allclose(state, [0] * 5 + [0.5], atol=2e-3)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"drive_mode": 1}, "elbow_flex: drive_mode 1 .reversed. means different things"),
        ({"range_min": 4000}, "range_min 4000 is not below range_max 3078"),
        ({"id": 300}, "servo id 300"),
        ({"range_max": "far"}, "neither one of ours nor LeRobot's"),
    ],
)
def test_lerobots_files_with_mistakes(tmp_path: Path, change: dict, part: str) -> None:
    data = {name: dict(entry) for name, entry in LEROBOT.items()}
    data["elbow_flex"] |= change
    (tmp_path / "arm.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=part):
        Calibration.load(tmp_path / "arm.json")


def test_lerobots_shadows_are_left_out_and_the_order_is_ours(tmp_path: Path, viper: PtyArm) -> None:
    entry = LEROBOT["wrist_roll"] | {"homing_offset": 0}
    names = ["gripper", "waist", "shoulder", "shoulder_shadow", "elbow", "elbow_shadow"]
    names += ["forearm_roll", "wrist_angle", "wrist_rotate"]
    ids = [9, 1, 2, 3, 4, 5, 6, 7, 8]
    data = {name: entry | {"id": i} for name, i in zip(names, ids, strict=True)}
    (tmp_path / "arm.json").write_text(json.dumps(data))
    arm = viper.driver(f"calibration={tmp_path}/arm.json", move=False)
    assert arm.calibration.ids == (1, 2, 4, 6, 7, 8, 9)
    del data["waist"]
    (tmp_path / "arm.json").write_text(json.dumps(data))
    with pytest.raises(
        UserError, match="the calibration is of gripper, shoulder.*vx300s has waist"
    ):
        viper.driver(f"calibration={tmp_path}/arm.json")


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "arm.json").mkdir()
    with pytest.raises(UserError, match="cannot be written to .*arm.json"):
        calibration.SO101.save(tmp_path / "arm.json")
    assert list(tmp_path.iterdir()) == [tmp_path / "arm.json"]
