"""The driver and an emulated controller over real sockets: what it does, and what it says when it cannot."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dreamzero import embodiments, robots
from dreamzero.errors import UserError
from dreamzero.robots import ReplayPolicy, RobotFault, run_episode
from dreamzero.robots.base import LinkLost
from dreamzero.robots.emulation.world import EmulatorConfig, World
from dreamzero.robots.ur import dashboard, gripper
from dreamzero.robots.ur import protocol as rtde
from dreamzero.robots.ur.arm import UrRobot
from dreamzero.robots.ur.controller import CB3, Controller
from dreamzero.robots.ur.program import Status
from dreamzero.robots.uri import parse

CARD = embodiments.get("tabletop_ur5e")


class Rig:
    """A controller in this process, and a world that turns its arm."""

    def __init__(self) -> None:
        self.world = World(EmulatorConfig(robot="ur5e", physics="lag", seed=3, physics_hz=100.0))
        self.controller: Controller = self.world.device
        self.wire = self.controller.listen("tcp://127.0.0.1:0")
        self.uri = self.wire.address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.world.run, args=(self._stop,), daemon=True)
        self._thread.start()

    def open(self, options: str = "", **arguments) -> UrRobot:
        robot = robots.open(self.uri + options, CARD, **arguments)
        assert isinstance(robot, UrRobot)
        return robot

    def use(self, controller: Controller) -> None:
        """Another controller, without physics."""
        self.wire.close()
        self.controller = controller
        self.wire = controller.listen("tcp://127.0.0.1:0")
        self.uri = self.wire.address

    def close(self) -> None:
        self._stop.set()
        self._thread.join(2.0)
        self.wire.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def until(true: Callable[[], bool], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return true()


def follow(arm: UrRobot, target: np.ndarray, seconds: float = 1.0) -> None:
    """Ask for one pose until the arm is there."""

    def there() -> bool:
        arm.act(target)
        return bool(np.abs(arm.observe(views=()).state - target).max() < 0.01)

    assert until(there, seconds + 3.0)


def shifted(arm: UrRobot, by: float) -> np.ndarray:
    target = arm.observe(views=()).state.astype(float)
    target[0] += by
    return target


def test_connecting_takes_hold_where_the_arm_stands(rig: Rig) -> None:
    before = rig.world.plant.joints()
    with rig.open() as arm:
        assert arm.move
        seen = arm.observe(views=())
        assert seen.state.dtype == np.float32
        np.testing.assert_allclose(seen.state, before, atol=3e-3)
        state, time_s = arm.state()
        assert state["runtime_state"] == 2
        assert abs(time_s - time.monotonic()) < 1.0
        report = rig.controller.report()
        assert (report["program"], report["status"]) == ("PLAYING", "HOLDING")
        assert arm.features.joints[-1] == "gripper"
        time.sleep(0.1)
        np.testing.assert_allclose(rig.world.plant.joints()[:6], before[:6], atol=1e-6)
    assert until(lambda: rig.controller.report()["program"] == "STOPPED")


def test_the_arm_goes_where_it_is_told_within_limits(rig: Rig) -> None:
    with rig.open() as arm:
        target = shifted(arm, 0.2)
        target[6] = 0.25
        sent = arm.act(target)
        assert sent.dtype == np.float32
        # Counted in the gripper's own steps of 1/255.
        assert round(float(sent[6]) * 255) == pytest.approx(float(sent[6]) * 255, abs=1e-4)
        follow(arm, target)
        assert arm.observe(views=()).state[6] == pytest.approx(0.25, abs=0.005)
        arm.act(np.full(7, 50.0))
        assert arm.decision is not None
        assert arm.decision.position.all()
        assert until(lambda: arm.unread(arm.state()[0]) == 0)


def test_stop_brakes_and_holds(rig: Rig) -> None:
    with rig.open() as arm:
        start = arm.observe(views=()).state
        target = shifted(arm, 3.0)
        target[6] = 0.0
        # Two commands lead no further than 4 periods at full speed.
        for _ in range(2):
            arm.act(target)
            time.sleep(1 / 15)
        arm.stop()
        status = arm.program.status
        assert until(lambda: arm.state()[0][status] == Status.HOLDING)
        assert until(lambda: max(map(abs, arm.state()[0]["actual_qd"])) < 1e-3)
        held = arm.observe(views=()).state
        assert start[0] + 0.01 < held[0] < target[0] - 0.5
        time.sleep(0.1)
        np.testing.assert_allclose(arm.observe(views=()).state[:6], held[:6], atol=1e-3)
        follow(arm, shifted(arm, 0.05))


def test_stopping_does_not_loosen_the_grip(rig: Rig) -> None:
    with rig.open() as arm:
        closed = np.array([*shifted(arm, 0.0)[:6], 0.0])
        assert until(lambda: arm.act(closed)[6] == 0.0)
        # The fingers have met something on their way.
        rig.world.device._grip = 0.4
        arm.stop()
        assert arm.guard.last[6] == 0.0
        assert arm.act(arm.guard.last)[6] == 0.0
        assert until(lambda: rig.controller.gripper["POS"] == 255)


def test_a_silent_loop_is_held_and_goes_on(rig: Rig) -> None:
    with rig.open() as arm:
        arm.act(shifted(arm, 0.1))
        assert until(lambda: rig.controller.report()["status"] == "STALE")
        arm.act(arm.guard.last)
        assert until(lambda: rig.controller.report()["status"] == "FOLLOWING")


def test_a_dry_run_sends_nothing(rig: Rig) -> None:
    with rig.open(move=False) as arm:
        before = rig.controller.report()
        assert arm.act(shifted(arm, 0.1)).shape == (7,)
        arm.stop()
        time.sleep(0.1)
        after = rig.controller.report()
    # Version, controller version, outputs, start: what reading takes.
    assert before["packets"] == after["packets"] == 4
    assert after["program"] == "STOPPED"
    assert rig.controller.gripper["ACT"] == 0


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("protective", "PROTECTIVE_STOP: look what the arm hit .* `unlock protective stop`"),
        ("estop", "ROBOT_EMERGENCY_STOP: release the emergency stop"),
        ("off", "the arm is POWER_OFF: `power on`, then `brake release`"),
        ("pause", "program .*is PAUSED"),
    ],
)
def test_what_stops_the_arm_ends_the_run_with_one_line(
    rig: Rig, kind: str, part: str, monkeypatch
) -> None:
    from dreamzero.robots.ur import arm as module

    monkeypatch.setattr(module, "_START_S", 0.5)
    with rig.open() as arm:
        follow(arm, shifted(arm, 0.02))
        rig.controller.fault(kind, 0)
        actions = np.repeat(arm.guard.last[None], 16, axis=0)
        log = run_episode(arm, ReplayPolicy(CARD, actions), "hold", max_chunks=2)
        assert log.ended == "fault"
        assert "\n" not in log.fault
        with pytest.raises(RobotFault, match=part) as caught:
            log.raise_for_fault()
        assert not isinstance(caught.value, LinkLost)
    with pytest.raises(RobotFault, match=part):
        rig.open().connect()
    with rig.open(move=False) as arm:
        assert arm.observe(views=()).state.shape == (7,)


def test_a_program_somebody_stopped_is_started_by_connecting_again(rig: Rig) -> None:
    with rig.open() as arm:
        with arm.dashboard() as board:
            board.stop()
        assert until(lambda: arm.state()[0]["runtime_state"] == 1)
        with pytest.raises(RobotFault, match="program that follows our targets is STOPPED"):
            arm.act(shifted(arm, 0.0))
        arm.reconnect()
        follow(arm, shifted(arm, 0.05))


def test_in_local_control_the_reason_is_named(rig: Rig) -> None:
    rig.controller.fault("local", 0)
    with pytest.raises(RobotFault, match="the pendant has control; switch it to Remote Control"):
        rig.open().connect()
    with rig.open().dashboard() as board:
        assert not board.in_remote_control()
        with pytest.raises(RobotFault, match="refuses 'power off': the pendant has control"):
            board.ask("power off")


def test_a_leap_is_told_and_stop_begins_anew(rig: Rig) -> None:
    with rig.open() as arm:
        rig.controller.fault("stuck", 0)
        with pytest.raises(RobotFault, match="a joint is more than .* is it blocked"):
            for _ in range(40):
                arm.act(shifted(arm, 0.0) + np.eye(7)[0] * 6)
                time.sleep(1 / 15)
        rig.controller.fault("mend", 0)
        arm.stop()
        assert until(lambda: arm.state()[0][arm.program.status] == Status.HOLDING)
        follow(arm, shifted(arm, 0.05))


def test_the_cable_is_pulled_and_put_back(rig: Rig) -> None:
    with rig.open() as arm:
        follow(arm, shifted(arm, 0.02))
        rig.wire.unplug()
        # Arm and gripper are on one cable; either may notice first.
        with pytest.raises(LinkLost, match=r"lost the controller at 127.0.0.1:\d+|gripper at"):
            for _ in range(100):
                arm.act(arm.guard.last)
                time.sleep(0.01)
        with pytest.raises(LinkLost, match="no RTDE interface answers .* on and in this network"):
            arm.reconnect()
        assert not arm.connected
        rig.wire.replug()
        arm.reconnect()
        follow(arm, shifted(arm, 0.05))
    arm.close()


def test_a_controller_that_falls_silent_is_a_lost_link(rig: Rig) -> None:
    with rig.open() as arm:
        rig.controller.fault("freeze", 0)
        began = time.monotonic()
        with pytest.raises(LinkLost, match="has sent nothing for 1 s"):
            while time.monotonic() < began + 5.0:
                arm.act(arm.guard.last)
                time.sleep(0.02)
        assert time.monotonic() - began > 0.5
        rig.controller.fault("mend", 0)


def test_an_overloaded_controller_is_slow_but_there(rig: Rig) -> None:
    with rig.open() as arm:
        rig.controller.fault("delay", 0)
        time.sleep(0.3)
        packages = arm.link.packages
        target = shifted(arm, 0.1)
        for _ in range(15):
            arm.act(target)
            time.sleep(1 / 15)
        # One state in fifty cycles, 10 a second, and the arm still gets there.
        assert 3 <= arm.link.packages - packages <= 30
        follow(arm, target)


def test_a_controller_of_another_version(rig: Rig) -> None:
    rig.controller.speaks = (1,)
    with pytest.raises(RobotFault, match="does not speak RTDE protocol version 2"):
        rig.open().connect()


def test_a_controller_without_the_upper_registers(rig: Rig) -> None:
    rig.use(Controller(version=(5, 1, 0, 0)))
    with pytest.raises(RobotFault, match=r"5.1.0.0\) has no output_int_register_24.*=lower"):
        rig.open().connect()
    with rig.open("&registers=lower") as arm:
        assert arm.program.sequence == "input_int_register_0"


def test_a_cb3_is_streamed_at_its_own_rate(rig: Rig) -> None:
    rig.use(Controller(version=CB3))
    with rig.open() as arm:
        assert arm.program.step_s == 0.008
        assert arm.link.rate_hz == 125.0
    with pytest.raises(UserError, match="runs at 125 Hz, no faster"):
        rig.open("&frequency=500").connect()


def test_registers_in_use_are_named(rig: Rig) -> None:
    with (
        rig.open(),
        pytest.raises(RobotFault, match="input_double_register_24.* in use by another"),
    ):
        rig.open().connect()


def test_somebody_elses_program_is_not_ended(rig: Rig, monkeypatch) -> None:
    from dreamzero.robots.ur import arm as module

    monkeypatch.setattr(module, "_START_S", 0.2)
    with rig.open():
        with pytest.raises(RobotFault, match="a program is PLAYING on the controller; end it"):
            rig.open("&registers=lower").connect()
        assert rig.controller.report()["program"] == "PLAYING"


def test_several_clients_read_beside_the_one_that_writes(rig: Rig) -> None:
    with rig.open() as arm, rig.open("&frequency=50", move=False) as other:
        time.sleep(0.3)
        assert other.link.packages < arm.link.packages / 5
        np.testing.assert_allclose(
            arm.observe(views=()).state, other.observe(views=()).state, atol=1e-3
        )


def test_a_gripper_on_a_digital_output(rig: Rig) -> None:
    with rig.open("&gripper=digital:0") as arm:
        pose = shifted(arm, 0.0)
        for value, count in ((0.0, 0), (1.0, 1)):
            target = np.array([*pose[:6], value])
            assert until(lambda target=target, value=value: arm.act(target)[6] == value)
            assert until(lambda count=count: arm.observe(views=()).state[6] == count)
            assert until(lambda value=value: abs(rig.world.plant.joints()[6] - value) < 0.05)
    assert rig.controller.gripper["ACT"] == 0


def test_a_gripper_that_is_lost(rig: Rig) -> None:
    uri = parse(rig.uri)
    fingers = gripper.Robotiq(uri.host, uri.number("gripper_port", 0))
    assert fingers.command(0.5) == pytest.approx(127 / 255)
    assert until(lambda: fingers.position(0) < 0.6)
    rig.wire.unplug()

    def lost() -> bool:
        try:
            fingers.position(0)
        except LinkLost:
            return True
        return False

    assert until(lost)
    with pytest.raises(LinkLost, match="gripper at"):
        fingers.command(1.0)
    fingers.close()
    with pytest.raises(LinkLost, match="no Robotiq URCap answers"):
        gripper.Robotiq(uri.host, uri.number("gripper_port", 0))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("gripper=none", "has a gripper; give gripper=robotiq or gripper=digital:0"),
        ("gripper=vacuum", "known are robotiq, digital:0 to digital:7, and none"),
        ("gripper=digital:8", "known are robotiq"),
        ("registers=middle", "neither upper nor lower"),
        ("lookahead_ms=10", "servoj takes 0.03 to 0.2 s"),
        ("gain=5000", "servoj takes 100 to 2000"),
        ("frequenzy=5", "unknown option 'frequenzy'"),
    ],
)
def test_options_with_mistakes(options: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        robots.open(f"tcp://10.0.0.2:30004?{options}", CARD)


def test_cards_of_other_arms() -> None:
    uri = parse("tcp://127.0.0.1:30004")
    with pytest.raises(UserError, match="do not make the 6 actions"):
        UrRobot(uri, embodiments.get("tabletop_so101"))
    bare = CARD.with_(
        state=CARD.state[:1], action=CARD.action[:1], lower=CARD.lower[:6], upper=CARD.upper[:6]
    ).with_(velocity=CARD.velocity[:6])
    assert UrRobot(uri, bare).features.joints[-1] == "wrist_3"
    with pytest.raises(UserError, match="has no gripper; give gripper=none"):
        UrRobot(parse("tcp://127.0.0.1:30004?gripper=robotiq"), bare)


def test_an_emulated_arm_moves_by_itself_and_a_real_one_does_not(rig: Rig) -> None:
    assert robots.open(rig.uri, CARD).move
    assert not robots.open("tcp://10.0.0.2:30004", CARD).move


def test_addresses_where_something_else_answers(rig: Rig) -> None:
    uri = parse(rig.uri)
    board, fingers = (uri.query[key] for key in ("dashboard_port", "gripper_port"))
    with pytest.raises(RobotFault, match="is no RTDE interface .port 30004.: .*Connected: Univ"):
        robots.open(f"tcp://127.0.0.1:{board}", CARD).connect()
    with pytest.raises(LinkLost, match="no answer"):
        dashboard.Dashboard("127.0.0.1", int(fingers), timeout_s=0.2)
    with pytest.raises(LinkLost, match="no RTDE interface answers at 127.0.0.1:9 .*refused"):
        robots.open("tcp://127.0.0.1:9", CARD).connect()
    with (
        rig.open().dashboard() as known,
        pytest.raises(UserError, match="no dashboard command 'open sesame'"),
    ):
        known.ask("open sesame")


def test_a_client_that_sends_nonsense_is_dropped_and_told(rig: Rig) -> None:
    with rig.open() as arm:
        with socket.create_connection(("127.0.0.1", parse(rig.uri).port), 2.0) as sock:
            sock.sendall(rtde.setup_outputs(500, ("timestamp",)))
            data = sock.recv(4096)
            (package,) = rtde.Parser().feed(data)
            assert "no protocol version was agreed on" in rtde.read_text(package.payload).message
            assert sock.recv(4096) == b""
        follow(arm, shifted(arm, 0.02))


def test_unlocking_is_a_persons_deed(rig: Rig, capsys) -> None:
    from dreamzero.cli import main

    rig.controller.fault("protective", 0)
    address = ["robot", "dashboard", "--robot", rig.uri]
    assert main(address) == 0
    assert "Safetymode: PROTECTIVE_STOP" in capsys.readouterr().out
    assert main([*address, "unlock", "protective", "stop"]) == 2
    assert "Cannot unlock protective stop until 5s" in capsys.readouterr().err
    rig.controller._stopped_s -= 5.0
    assert main([*address, "unlock", "protective", "stop"]) == 0
    with rig.open() as arm:
        follow(arm, shifted(arm, 0.02))
