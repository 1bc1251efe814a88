"""The driver of Dynamixel arms: takes hold without a jump, counts turns, refuses what is set up wrong."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero import embodiments, robots
from dreamzero.errors import UserError
from dreamzero.robots import ReplayPolicy, RobotFault, run_episode
from dreamzero.robots.calibration import Calibration
from dreamzero.robots.dynamixel import arms
from dreamzero.robots.dynamixel import protocol as dynamixel
from dreamzero.robots.dynamixel.bus import Bus, Silence
from dreamzero.robots.dynamixel.driver import DynamixelArm
from dreamzero.robots.dynamixel.servos import ServoBus
from dreamzero.robots.dynamixel.table import X_SERIES, Drive, Mode
from dreamzero.robots.servos.timing import time_sync_read
from dreamzero.robots.uri import parse

from .conftest import PtyArm

KOCH_CARD = embodiments.get("tabletop_koch")
POSE = np.array([0.3, -0.2, 0.4, 0.1, -0.5, 0.6])


class Wire:
    """A link straight into emulated servos: no port, no waiting."""

    name, detail = "/dev/ttyTEST", "57600 baud"

    def __init__(self, bus: ServoBus) -> None:
        self.bus, self.answers, self.log = bus, b"", b""

    def write(self, data: bytes) -> None:
        self.log += data
        self.answers += self.bus.feed(data)

    def read(self, timeout_s: float) -> bytes:
        if not self.answers:
            time.sleep(timeout_s)
        data, self.answers = self.answers, b""
        return data

    def discard_input(self) -> None:
        self.answers = b""

    def close(self) -> None: ...


def driver(bus: ServoBus, query: str = "", **options) -> DynamixelArm:
    uri = parse("serial:///dev/ttyTEST" + (f"?{query}" if query else ""))
    return DynamixelArm(uri, KOCH_CARD, link=lambda _: Wire(bus), **options)


def test_connecting_takes_hold_where_the_arm_stands(koch: PtyArm) -> None:
    koch.bus.measure(POSE, 0.0)
    with koch.driver() as arm:
        goal, live = koch.bus.goals()
        np.testing.assert_allclose(goal, POSE, atol=2e-3)
        assert live.all()
        np.testing.assert_allclose(arm.observe(views=()).state, POSE, atol=1e-3)
        sent = arm.act(POSE + 0.1)
        arm.observe(views=())
        np.testing.assert_allclose(koch.bus.goals()[0], sent, atol=1e-6)


def test_torque_comes_after_the_goals(koch: PtyArm) -> None:
    bus = koch.bus
    bus.measure(POSE, 0.0)
    wire = Wire(bus)
    arm = DynamixelArm(koch.uri, koch.card, link=lambda _: wire)
    torque = b"\x03" + X_SERIES["torque_enable"].address.to_bytes(2, "little") + b"\x01"
    goal = b"\x83" + X_SERIES["goal_position"].address.to_bytes(2, "little")
    with arm:
        assert 0 < wire.log.index(goal) < wire.log.index(torque)
        assert wire.log.count(torque) == 6


def test_one_packet_for_all_positions(koch: PtyArm) -> None:
    koch.bus.measure(POSE, 0.0)
    with koch.driver("fast=1") as arm:
        np.testing.assert_allclose(arm.observe(views=()).state, POSE, atol=1e-3)
        koch.servo(4).silent = True
        with pytest.raises(RobotFault, match="no answer from servo id 4 within"):
            arm.observe(views=())
        koch.servo(4).silent = False
    koch.servo(2).set("firmware", 44)
    with pytest.raises(UserError, match="id 2 has firmware 44, and fast=1 needs 45"):
        koch.driver("fast=1").connect()


def test_a_dry_run_sends_nothing(koch: PtyArm) -> None:
    memory = [bytes(servo.memory) for servo in koch.bus.servos]
    with koch.driver("profile_velocity=100&grip_ma=200", move=False) as arm:
        arm.act(np.full(6, 0.1))
        arm.observe(views=())
    assert [bytes(servo.memory) for servo in koch.bus.servos] == memory


def test_profiles_and_grip_are_left_alone_unless_asked(koch: PtyArm) -> None:
    koch.servo(1).set("profile_velocity", 33)
    koch.servo(6).set("goal_current", 900)
    with koch.driver():
        assert koch.servo(1).get("profile_velocity") == 33
        assert koch.servo(6).get("goal_current") == 900
    with koch.driver("profile_velocity=100&profile_acceleration=20&grip_ma=200"):
        assert {s.get("profile_velocity") for s in koch.bus.servos} == {100}
        assert {s.get("profile_acceleration") for s in koch.bus.servos} == {20}
        assert koch.servo(6).get("goal_current") == 200
    koch.servo(6).set("torque_enable", 0)
    koch.servo(6).set("operating_mode", Mode.EXTENDED_POSITION)
    with pytest.raises(UserError, match="grip_ma needs the gripper in current-based"):
        koch.driver("grip_ma=200").connect()


def test_an_overload_is_named_and_ends_the_run(koch: PtyArm) -> None:
    with koch.driver() as arm:
        koch.bus.fault("overload", 2)
        log = run_episode(arm, ReplayPolicy(koch.card, np.zeros((8, 6))), "go", max_chunks=1)
        assert log.ended == "fault"
        for part in ("servo id 2", koch.wire.port, "reports overload", "--reboot 2"):
            assert part in log.fault
        koch.bus.fault("mend", 2)


def test_a_silent_servo_is_named(koch: PtyArm) -> None:
    koch.servo(4).silent = True
    with pytest.raises(Silence) as caught:
        koch.driver().connect()
    for part in (koch.wire.port, "1000000 baud", "servo id 4", "id 1, 2, 3, 5, 6 did answer"):
        assert part in str(caught.value)


def test_a_joint_a_little_beyond_its_servos_limits_is_drawn_in(koch: PtyArm) -> None:
    koch.servo(3).set("operating_mode", Mode.POSITION)
    koch.servo(3).set("max_position", 2030)
    with koch.driver():
        assert koch.servo(3).get("goal_position") == 2030


def test_a_goal_that_is_not_kept_leaves_torque_off(koch: PtyArm) -> None:
    wire = Wire(koch.bus)
    original = wire.write

    def write(data: bytes) -> None:
        original(data)
        koch.servo(3).set("goal_position", 1500)

    wire.write = write  # type: ignore[method-assign]
    with pytest.raises(RobotFault, match="servo id 3 stands at 2048 and has 1500 as its goal"):
        DynamixelArm(koch.uri, koch.card, link=lambda _: wire).connect()
    assert not any(servo.get("torque_enable") for servo in koch.bus.servos)


def set_up(**values: int):
    def change(arm: PtyArm) -> None:
        for name, value in values.items():
            arm.servo(3).set(name, value)

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (set_up(model=1060), "servo id 3 says it is model 1060, not an XL330-M288 .1200."),
        (set_up(operating_mode=Mode.VELOCITY), r"operating mode 1 \(velocity\)"),
        (set_up(operating_mode=77), "an unknown one"),
        (set_up(drive_mode=Drive.REVERSE), "turns the wrong way round"),
        (set_up(drive_mode=Drive.TORQUE_ON_BY_GOAL), "switches torque on by itself"),
        (
            set_up(operating_mode=Mode.POSITION, max_position=1900),
            r"servo id 3 stands at 2048 and has 1900 as its goal.*\(0..1900\)",
        ),
    ],
)
def test_servos_set_up_wrong_are_refused_without_torque(koch: PtyArm, change, part: str) -> None:
    change(koch)
    with pytest.raises(RobotFault, match=part):
        koch.driver().connect()
    assert not any(servo.get("torque_enable") for servo in koch.bus.servos)


def test_configure_sets_servos_up(koch: PtyArm) -> None:
    servo = koch.servo(3)
    servo.set("operating_mode", Mode.VELOCITY)
    servo.set("drive_mode", Drive.REVERSE | Drive.TIME_PROFILE)
    servo.set("return_delay", 250)
    servo.set("torque_enable", 1)
    arm = koch.driver()
    assert arm.configure() == [
        "servo id 3: return_delay 250 -> 0",
        "servo id 3: operating_mode 1 -> 4",
        "servo id 3: drive_mode 5 -> 4",
    ]
    assert not servo.get("torque_enable")
    assert arm.configure() == []
    with arm:
        assert koch.bus.goals()[1].all()


def test_calibrated_with_other_offsets(koch: PtyArm) -> None:
    joints = [replace(j, homing_offset=0) for j in arms.KOCH.calibration.joints]
    with koch.driver(calib=Calibration(tuple(joints))):
        pass
    koch.servo(2).set("torque_enable", 0)
    koch.servo(2).set("homing_offset", 77)
    with pytest.raises(RobotFault, match=r"id 2 \(shoulder_lift\) has homing offset 77"):
        koch.driver(calib=Calibration(tuple(joints))).connect()


@given(
    st.integers(0, 4095),
    st.floats(-1.4, 1.4),
    st.integers(-2, 2),
    st.sampled_from([Mode.POSITION, Mode.EXTENDED_POSITION]),
)
def test_wherever_the_encoder_begins_the_pose_is_the_same(
    zero: int, angle: float, turns: int, mode: Mode
) -> None:
    """Servos forget turns without power; the calibrated range says which one it must be."""
    quarter = 1024
    if mode == Mode.POSITION and not quarter <= zero < 4096 - quarter:
        zero = 2048  # goals beyond the end of the turn are not to be had in this mode
    joints = tuple(
        replace(
            j,
            zero_tick=zero,
            scale=arms.KOCH.calibration.joints[0].scale,
            min_tick=zero - quarter,
            max_tick=zero + quarter,
        )
        for j in arms.KOCH.calibration.joints
    )
    build = replace(arms.KOCH, calibration=Calibration(joints), mode=mode)
    bus = ServoBus(build)
    # The arm was turned around by hand, or has been switched on where it stands.
    bus.measure(np.full(6, angle), 0.0)
    for servo in bus.servos:
        servo._turns += turns
    bus.measure(np.full(6, angle), 0.1)
    arm = driver(bus, calib=Calibration(joints))
    with arm:
        np.testing.assert_allclose(arm.observe(views=()).state, angle, atol=1e-3)
        goal, live = bus.goals()
        assert live.all()
        # Current-based position, the gripper's mode, counts turns as well.
        np.testing.assert_allclose(goal, angle, atol=1e-3)
        sent = arm.act(np.full(6, angle) * 0.9)
        np.testing.assert_allclose(bus.goals()[0], sent, atol=1e-3)


def test_two_servos_on_one_joint_hold_together(viper: PtyArm) -> None:
    pose = np.array([0.1, -0.5, 0.4, 0.0, 0.3, -0.2, 0.5])
    viper.bus.measure(pose, 0.0)
    with viper.driver() as arm:
        goal, live = viper.bus.goals()
        np.testing.assert_allclose(goal, pose, atol=2e-3)
        assert live.all()
        assert arm.servos == (1, 2, 4, 6, 7, 8, 9, 3, 5)
        assert viper.servo(3).get("goal_position") == viper.servo(2).get("goal_position")
        arm.act(pose + 0.05)
        arm.observe(views=())
        assert viper.bus.goals()[1].all()
        assert viper.servo(5).get("goal_position") == viper.servo(4).get("goal_position")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"secondary_id": 255}, r"id 3 does not follow id 2 on the shoulder \(secondary id 255"),
        ({"operating_mode": Mode.EXTENDED_POSITION}, "operating mode 4"),
        ({"drive_mode": Drive.REVERSE}, "id 3 turns the wrong way round"),
        ({"present_position": 2500}, "stand 452 ticks apart"),
        ({"model": 1020}, "servo id 3 says it is model 1020, not an XM540-W270"),
    ],
)
def test_two_servos_that_would_fight_are_refused(viper: PtyArm, changes: dict, part: str) -> None:
    for name, value in changes.items():
        viper.servo(3).set(name, value)
    with pytest.raises(RobotFault, match=part):
        viper.driver().connect()
    assert not any(servo.get("torque_enable") for servo in viper.bus.everyone)


def test_the_servos_own_limits_narrow_what_is_commanded(viper: PtyArm) -> None:
    viper.servo(1).set("min_position", 2000)
    viper.servo(1).set("max_position", 2100)
    with viper.driver() as arm:
        for _ in range(10):
            sent = arm.act(np.array([3.0, 0, 0, 0, 0, 0, 0.5]))
            time.sleep(0.02)
        arm.observe(views=())
        assert viper.servo(1).get("goal_position") <= 2100
        assert sent[0] <= (2100 - 2048) * arm.calibration.joints[0].scale + 1e-6
    viper.servo(1).set("torque_enable", 0)
    viper.servo(2).set("min_position", 0)
    viper.servo(2).set("max_position", 100)
    with pytest.raises(UserError, match="shoulder: ticks 841..2867 are not what servo id 2"):
        viper.driver().connect()


def test_refusals_say_what_and_why() -> None:
    bus = Bus(Wire(ServoBus(arms.KOCH)))
    with pytest.raises(RobotFault, match="servo id 1 on /dev/ttyTEST refused the write of present"):
        bus.write(1, X_SERIES["present_position"], 5)
    bus.write(1, X_SERIES["torque_enable"], 1)
    with pytest.raises(RobotFault, match="access error"):
        bus.write(1, X_SERIES["homing_offset"], 5)


def test_a_request_that_arrived_damaged_is_repeated() -> None:
    """A servo that found a wrong CRC says so (error 3); once is no fault."""
    wire = Wire(ServoBus(arms.KOCH))
    original, spoilt = wire.write, []

    def write(data: bytes) -> None:
        if not spoilt:
            spoilt.append(data)
            wire.answers = dynamixel.status(1, 3)
        else:
            original(data)

    wire.write = write  # type: ignore[method-assign]
    assert Bus(wire).read(1, X_SERIES["present_position"]) == 2048
    spoilt.clear()
    with pytest.raises(RobotFault, match="CRC error"):
        Bus(wire, retries=0).read(1, X_SERIES["present_position"])


@pytest.mark.parametrize(
    ("answer", "instead"),
    [
        (b"", "nothing came back"),
        (b"\x00\x1c\xf0\x03", "what came instead was 00 1c f0 03, which is no packet (baud?)"),
        (dynamixel.status(7, 0, bytes(4)), "id 7 answered instead"),
    ],
)
def test_errors_say_what_answered_instead(answer: bytes, instead: str) -> None:
    wire = Wire(ServoBus(arms.KOCH))

    def write(data: bytes) -> None:
        wire.answers = answer

    wire.write = write  # type: ignore[method-assign]
    with pytest.raises(Silence) as caught:
        Bus(wire, retries=0, timeout_s=0.01).read(1, X_SERIES["present_position"])
    for part in ("/dev/ttyTEST", "57600 baud", "servo id 1", instead):
        assert part in str(caught.value)


@pytest.mark.parametrize("robot", ["koch", "openmanipulator_x", "vx300s"])
def test_cards_and_builds_belong_together(robot: str) -> None:
    entry = robots.emulation.ARMS[robot]
    card, build = embodiments.get(entry.card), arms.ARMS[robot]
    assert card.robot == robot
    assert card.action_dim == len(build.calibration.joints)
    assert card.action[-1].unit == "1"
    assert set(build.models) == set(build.calibration.names)
    arm = robots.open("serial:///dev/ttyUSB0?fast=1", card)
    assert arm.features.joints == build.calibration.names
    assert not arm.move
    # What the card allows can be commanded, to within a degree (the gripper: a hundredth).
    for joint, low, high in zip(build.calibration.joints, card.lower, card.upper, strict=True):
        for value in (low, high):
            assert joint.to_value(joint.to_tick(value)) == pytest.approx(value, abs=0.03)


def test_an_emulated_arm_without_a_body() -> None:
    with pytest.raises(UserError, match="vx300s has no simulated body"):
        robots.emulation.world.World(robots.EmulatorConfig("vx300s", physics="tabletop"))
    world = robots.emulation.world.World(robots.EmulatorConfig("vx300s"))
    assert world.device.names[-1] == "gripper"


def test_the_koch_moves_the_so101s_body() -> None:
    world = robots.emulation.world.World(robots.EmulatorConfig("koch", seed=3))
    assert world.plant.score()["instruction"]
    before = world.plant.joints()
    for servo in world.device.servos:
        servo.set("torque_enable", 1)
        servo.set("goal_position", servo.get("present_position") + 100)
    for _ in range(30):
        world.tick(1 / 60)
    moved = world.plant.joints() - before
    world.plant.close()
    assert (np.abs(moved[:5]) > 0.02).all()


def test_reads_are_timed_over_both_buses(koch: PtyArm, pty_arm: PtyArm) -> None:
    for arm in (koch, pty_arm):
        seconds = time_sync_read(str(arm.uri), arm.card, n=5)
        assert seconds.shape == (5,)
        assert (seconds > 0).all()
        assert not arm.bus.goals()[1].any()
    with pytest.raises(UserError, match="no servo bus"):
        time_sync_read("sim://so101", embodiments.get("tabletop_so101"))
