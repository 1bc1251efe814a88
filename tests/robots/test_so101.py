"""The driver over a real pseudo-terminal: round trips, and what it says when something is wrong."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.errors import UserError
from dreamzero.robots import HoldPolicy, RobotFault, calibration, feetech, run_episode, transport
from dreamzero.robots.calibration import Calibration, JointCalibration
from dreamzero.robots.clock import ManualClock
from dreamzero.robots.feetech.bus import Bus, Silence
from dreamzero.robots.transport import SerialLink
from dreamzero.robots.uri import parse

from .conftest import CARD


@given(st.floats(-2.7, 2.8), st.sampled_from([1, -1]), st.integers(1950, 2150))
def test_ticks_and_radians(value: float, sign: int, zero: int) -> None:
    joint = JointCalibration("elbow_flex", 3, zero_tick=zero, sign=sign)
    tick = joint.to_tick(value)
    assert 0 <= tick <= 4095
    assert abs(joint.to_value(tick) - value) <= joint.scale / 2 + 1e-12


def test_a_quarter_turn_opens_the_gripper() -> None:
    gripper = calibration.SO101.joints[-1]
    assert (gripper.to_tick(0.0), gripper.to_tick(1.0)) == (2048, 3072)
    assert gripper.to_tick(9.0) == gripper.max_tick


def test_calibration_survives_a_file(tmp_path) -> None:
    calibration.SO101.save(tmp_path / "arm.json")
    assert Calibration.load(tmp_path / "arm.json") == calibration.SO101


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"sign": 2}, "sign 2"),
        ({"scale": 0}, "scale 0"),
        ({"id": 300}, "servo id 300"),
        ({"min_tick": 9, "max_tick": 3}, "ascending"),
        ({"colour": "red"}, "neither one of ours"),
    ],
)
def test_calibration_files_with_mistakes(tmp_path, change: dict, part: str) -> None:
    data = calibration.SO101.to_json()
    data["joints"][2] |= change
    (tmp_path / "arm.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=part):
        Calibration.load(tmp_path / "arm.json")


def test_two_servos_with_one_id_are_refused() -> None:
    with pytest.raises(UserError, match="same id"):
        Calibration((JointCalibration("a", 1), JointCalibration("b", 1)))


def test_connecting_takes_hold_where_the_arm_stands(pty_arm) -> None:
    pose = np.array([0.3, -0.2, 0.4, 0.1, -0.5, 0.6])
    pty_arm.bus.measure(pose, 0.0)
    with pty_arm.driver() as arm:
        goal, live = pty_arm.bus.goals()
        np.testing.assert_allclose(goal, pose, atol=2e-3)
        assert live.all()
        np.testing.assert_allclose(arm.observe(views=()).state, pose, atol=1e-3)


def test_act_returns_what_was_sent_in_whole_ticks(pty_arm) -> None:
    with pty_arm.driver() as arm:
        wanted = np.array([0.1, -0.1, 0.05, 0.0, 0.2, 0.1], np.float32)
        sent = arm.act(wanted)
        goal, _ = pty_arm.bus.goals()
        assert sent.dtype == np.float32
        np.testing.assert_allclose(sent, wanted, atol=1e-3)
        # A sync write has no answer; the next request shows that it has been taken in.
        arm.observe(views=())
        goal, _ = pty_arm.bus.goals()
        np.testing.assert_allclose(goal, sent, atol=1e-6)


def test_limits_stand_between_policy_and_bus(pty_arm) -> None:
    with pty_arm.driver() as arm:
        sent = arm.act(np.full(6, 50.0))
        assert arm.decision is not None
        assert arm.decision.position.all()
        assert sent[0] < 4.7 * 2 / 15 + 1e-3
        assert arm.act(np.full(6, np.nan)) == pytest.approx(sent)
        assert arm.decision.refused


def test_a_dry_run_sends_nothing(pty_arm) -> None:
    with pty_arm.driver(move=False) as arm:
        assert arm.act(np.full(6, 0.1))[0] == pytest.approx(0.1, abs=1e-3)
        arm.observe(views=())
    goal, live = pty_arm.bus.goals()
    assert not live.any()
    np.testing.assert_array_equal(goal, np.zeros(6))


def test_stop_makes_the_present_pose_the_goal(pty_arm) -> None:
    with pty_arm.driver() as arm:
        arm.act(np.full(6, 0.2))
        pty_arm.bus.measure(np.full(6, 0.1), 0.1)
        arm.stop()
        arm.observe(views=())
        goal, _ = pty_arm.bus.goals()
        np.testing.assert_allclose(goal, 0.1, atol=2e-3)


def test_relax_lets_go_on_close(pty_arm) -> None:
    pty_arm.uri = parse(f"{pty_arm.uri}?relax=1")
    with pty_arm.driver() as arm:
        arm.observe(views=())
    link = SerialLink(parse(f"serial://{pty_arm.wire.port}"))
    assert link.read(0.0) == b""
    link.close()
    with pty_arm.driver(move=False) as arm:
        assert not pty_arm.bus.goals()[1].any()


def test_a_silent_servo_is_named(pty_arm) -> None:
    pty_arm.servo(4).silent = True
    with pytest.raises(RobotFault) as caught:
        pty_arm.driver().connect()
    text = str(caught.value)
    assert pty_arm.wire.port in text
    assert "servo id 4" in text
    assert "1000000 baud" in text
    assert "id 1, 2, 3, 5, 6 did answer" in text


def test_a_servo_in_trouble_is_named(pty_arm) -> None:
    with pty_arm.driver() as arm:
        pty_arm.servo(2).error = 0x20
        with pytest.raises(RobotFault, match="servo id 2 .* reports overload"):
            arm.observe(views=())
        pty_arm.servo(2).error = 0


def test_a_running_loop_makes_do_with_the_last_reading_for_a_while(pty_arm) -> None:
    clock = ManualClock(50.0)
    with pty_arm.driver(clock=clock) as arm:
        before = arm.observe(views=())
        pty_arm.servo(4).silent = True
        clock.advance(0.1)
        again = arm.observe(views=(), within_s=0.005)
        assert again.time_s == before.time_s == 50.0
        np.testing.assert_array_equal(again.state, before.state)
        # Whoever may wait is told, and so is a loop whose bus stays silent.
        with pytest.raises(RobotFault, match=r"servo id 4 within 50 ms"):
            arm.observe(views=())
        clock.advance(0.2)
        with pytest.raises(RobotFault, match=r"servo id 4 within 5 ms"):
            arm.observe(views=(), within_s=0.005)
        pty_arm.servo(4).silent = False
        assert arm.observe(views=(), within_s=0.5).time_s == clock.now()


def test_another_model_is_refused(pty_arm) -> None:
    pty_arm.servo(5).set("model", 1284)
    with pytest.raises(RobotFault, match="id 5 says it is model 1284"):
        pty_arm.driver().connect()


def test_a_pulled_cable_ends_the_run_with_one_sentence(pty_arm) -> None:
    arm = pty_arm.driver()
    arm.connect()
    policy = HoldPolicy(CARD)
    think = policy.act

    def act_and_pull():
        pty_arm.wire.unplug()
        return think()

    policy.act = act_and_pull
    log = run_episode(arm, policy, "hold", max_chunks=2, reconnect_s=0)
    arm.close()
    assert log.ended == "fault"
    assert [fault.back_s for fault in log.faults] == [None]
    assert pty_arm.wire.port in log.fault
    assert "cable" in log.fault
    with pytest.raises(RobotFault, match="cable"):
        log.raise_for_fault()


def test_using_an_arm_that_is_not_connected(pty_arm) -> None:
    arm = pty_arm.driver()
    with pytest.raises(RobotFault, match="not connected"):
        arm.act(np.zeros(6))
    arm.stop()
    arm.close()


def test_scan_finds_the_six(pty_arm) -> None:
    link = SerialLink(pty_arm.uri)
    bus = Bus(link)
    assert bus.scan(range(9), timeout_s=0.02) == dict.fromkeys(range(1, 7), 777)
    assert bus.timeout_s == 0.05
    assert bus.read(3, feetech.STS3215["present_temperature"]) == 30
    bus.ping(3)
    link.close()


class Script:
    """A link that answers from a list, in time that does not pass unless it is silent."""

    name, detail = "/dev/ttyTEST", "57600 baud"

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.written: list[bytes] = []
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def read(self, timeout_s: float) -> bytes:
        if self.answers:
            return self.answers.pop(0)
        self.now_s += timeout_s + 1e-6
        return b""

    def discard_input(self) -> None: ...

    def close(self) -> None: ...


def status(servo: int, params: bytes = b"") -> bytes:
    return feetech.encode(feetech.Packet(servo, 0, params))


@pytest.mark.parametrize(
    ("answers", "instead"),
    [
        ([], "nothing came back"),
        ([b"\x00\x1c\xf0\x03"], "what came instead was 00 1c f0 03, which is no packet (baud?)"),
        ([status(7, b"\x00\x08")], "id 7 answered instead"),
    ],
)
def test_errors_say_what_answered_instead(answers: list[bytes], instead: str) -> None:
    link = Script(*answers)
    bus = Bus(link, retries=0, now=link.now)
    with pytest.raises(Silence) as caught:
        bus.read(1, feetech.STS3215["present_position"])
    for part in ("/dev/ttyTEST", "57600 baud", "servo id 1", instead):
        assert part in str(caught.value)


def test_a_lost_answer_is_asked_for_again() -> None:
    link = Script(b"\xff\xff\x01\x04", b"", status(1, b"\x01\x08"))
    link.answers[1:2] = []
    bus = Bus(link, retries=1, now=link.now)
    # The first answer breaks off; silence until the timeout, then the whole one.
    link.answers = [b"\xff\xff\x01\x04"]
    original = link.read

    def read(timeout_s: float) -> bytes:
        data = original(timeout_s)
        if not data and len(link.written) == 1:
            link.answers = [status(1, b"\x01\x08")]
        return data if len(link.written) == 1 or data else original(timeout_s)

    link.read = read  # type: ignore[method-assign]
    assert bus.read(1, feetech.STS3215["present_position"]) == 0x0801
    assert len(link.written) == 2


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "add yourself to dialout"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "there is no /dev/ttyACM9; serial ports"),
        (OSError(errno.EBUSY, "busy"), "in use by another program"),
        (ValueError("Invalid baud rate: 3"), "does not take this baud rate"),
        (OSError(errno.EIO, "I/O error"), "cannot open /dev/ttyACM9"),
    ],
)
def test_why_a_port_does_not_open(error: Exception, part: str) -> None:
    assert part in transport.explain_open_error(error, "/dev/ttyACM9")


def test_a_forbidden_port(pty_arm, monkeypatch) -> None:
    monkeypatch.setattr(transport.os, "access", lambda *_: False)
    with pytest.raises(UserError, match="dialout"):
        SerialLink(pty_arm.uri)


def test_a_port_that_is_not_there() -> None:
    with pytest.raises(UserError, match="there is no /dev/ttyNONE"):
        SerialLink(parse("serial:///dev/ttyNONE"))


def test_a_port_that_is_taken(pty_arm) -> None:
    first = SerialLink(pty_arm.uri)
    with pytest.raises(UserError, match="in use by another program"):
        SerialLink(pty_arm.uri)
    first.close()
    SerialLink(pty_arm.uri).close()


def test_nobody_behind_a_tcp_port() -> None:
    with pytest.raises(UserError, match=r"nobody answers at 127.0.0.1:9"):
        SerialLink(parse("tcp://127.0.0.1:9"))
