"""The emulated controller without sockets and without waiting: cycles are turned by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.errors import UserError
from dreamzero.robots.ur import dashboard, primary
from dreamzero.robots.ur.controller import CB3, Controller
from dreamzero.robots.ur.modes import RobotMode, RuntimeState, SafetyMode, what_is_wrong
from dreamzero.robots.ur.program import NAME, Command, Program, Status

PROGRAM = Program(leap_rad=0.5)
POSE = (0.1, -1.5, 1.2, -0.3, 0.4, 0.5)


class Bench:
    """A controller with our program on it, its arm where it is told to be at once."""

    def __init__(self, **options) -> None:
        self.time_s = 0.0
        self.controller = Controller(now=lambda: self.time_s, **options)
        self.said: list[primary.Message] = []
        self.controller.listen_to_messages(self.said.append)
        self.controller.measure(np.array([*POSE, 0.5]), 0.0)
        self.controller.rest()
        self.sequence = 0

    def run(self, program: Program = PROGRAM) -> None:
        self.controller.script(program.text())

    def tell(self, command: Command, target: tuple[float, ...] = POSE) -> None:
        self.sequence += 1
        for name, value in zip(PROGRAM.targets, target, strict=True):
            self.controller.write(name, (value,))
        self.controller.write(PROGRAM.sequence, (self.sequence,))
        self.controller.write(PROGRAM.command, (int(command),))

    def cycle(self, count: int = 1, beat: bool = True, follow: bool = True) -> None:
        for _ in range(count):
            if beat:
                self.controller.write(PROGRAM.beat, (self.controller.cycles,))
            self.controller.cycle()
            if follow:
                goal, live = self.controller.goals()
                here = [*self.controller.values["actual_q"], 0.5]
                self.controller.measure(np.where(live, goal, here), 0.002)

    @property
    def status(self) -> int:
        return self.controller.values[PROGRAM.status][0]

    @property
    def pan(self) -> float:
        return float(self.controller.goals()[0][0])


@pytest.fixture
def bench() -> Bench:
    return Bench()


def moved(by: float) -> tuple[float, ...]:
    return (POSE[0] + by, *POSE[1:])


def test_a_program_starts_by_holding(bench: Bench) -> None:
    bench.tell(Command.FOLLOW, moved(0.3))
    bench.run()
    bench.cycle(5)
    # What stood in the registers before it began is not followed.
    assert (bench.status, bench.pan) == (Status.HOLDING, POSE[0])
    assert bench.controller.values[PROGRAM.echo] == (bench.sequence,)
    assert bench.controller.values["runtime_state"] == (RuntimeState.PLAYING,)
    assert [str(m) for m in bench.said] == [f"PROGRAM_XXX_STARTED {NAME}"]


def test_servoj_lags_by_its_lookahead(bench: Bench) -> None:
    bench.run()
    bench.tell(Command.FOLLOW, moved(0.2))
    bench.cycle(50)
    # After one time constant (0.1 s) of a first-order lag.
    assert bench.pan == pytest.approx(POSE[0] + 0.2 * (1 - np.exp(-1)), abs=1e-6)
    assert bench.status == Status.FOLLOWING


def test_without_a_fresh_target_the_arm_brakes_and_holds(bench: Bench) -> None:
    bench.run()
    bench.tell(Command.FOLLOW, moved(0.4))
    bench.cycle(int(PROGRAM.patience_s / 0.002))
    assert bench.status == Status.FOLLOWING
    bench.cycle(200)
    assert bench.status == Status.STALE
    held = bench.pan
    bench.cycle(100)
    assert bench.pan == held
    bench.tell(Command.FOLLOW, moved(0.4))
    bench.cycle(1)
    assert bench.status == Status.FOLLOWING


def test_braking_takes_its_way(bench: Bench) -> None:
    bench.run()
    bench.tell(Command.FOLLOW, moved(0.4))
    bench.cycle(10)
    speed = bench.controller.values["target_qd"][0]
    before = bench.pan
    bench.tell(Command.HOLD)
    bench.cycle(1000)
    way = speed**2 / (2 * PROGRAM.stop_rad_s2)
    assert bench.pan - before == pytest.approx(way, rel=0.05)
    assert bench.controller.values["target_qd"] == (0.0,) * 6


def test_a_leap_is_not_followed(bench: Bench) -> None:
    bench.run()
    bench.tell(Command.FOLLOW, moved(0.6))
    bench.cycle(20)
    assert (bench.status, bench.pan) == (Status.TOO_FAR, POSE[0])
    bench.tell(Command.HOLD)
    bench.cycle(1)
    assert bench.status == Status.HOLDING


def test_targets_that_went_on_during_a_stall_are_not_run_after(bench: Bench) -> None:
    bench.run()
    bench.tell(Command.FOLLOW, moved(0.1))
    bench.cycle(int(1.0 / 0.002))
    assert bench.status == Status.STALE
    stood = bench.pan
    bench.tell(Command.FOLLOW, moved(0.1 + PROGRAM.resume_rad + 0.1))
    bench.cycle(20)
    assert (bench.status, bench.pan) == (Status.TOO_FAR, stood)
    bench.tell(Command.HOLD)
    bench.cycle(1)
    bench.tell(Command.FOLLOW, moved(0.2))
    bench.cycle(20)
    assert bench.status == Status.FOLLOWING and bench.pan > stood


def test_without_a_heartbeat_the_program_ends(bench: Bench) -> None:
    bench.run()
    bench.cycle(int(0.9 / 0.002), beat=False)
    assert bench.controller.runtime == RuntimeState.PLAYING
    bench.cycle(int(0.2 / 0.002), beat=False)
    assert bench.controller.runtime == RuntimeState.STOPPED
    assert str(bench.said[-1]) == f"PROGRAM_XXX_STOPPED {NAME}"


def test_end_brakes_first(bench: Bench) -> None:
    bench.run()
    bench.tell(Command.FOLLOW, moved(0.4))
    bench.cycle(20)
    bench.tell(Command.END)
    bench.cycle(2)
    assert bench.controller.runtime == RuntimeState.PLAYING
    bench.cycle(1000)
    assert bench.controller.runtime == RuntimeState.STOPPED


def test_a_cb3_turns_slower() -> None:
    bench = Bench(version=CB3)
    bench.run()
    assert bench.said[-1].kind == primary.Kind.RUNTIME_EXCEPTION
    bench.run(Program(step_s=0.008))
    assert bench.controller.runtime == RuntimeState.PLAYING
    bench.cycle(125)
    assert bench.controller.values["timestamp"] == (1.0,)


def test_a_foreign_program_is_refused_with_its_line(bench: Bench) -> None:
    bench.controller.script("def other():\n  movej([0, 0, 0, 0, 0, 0])\nend\n")
    (message,) = bench.said
    assert message.kind == primary.Kind.RUNTIME_EXCEPTION
    assert (message.line, message.column) == (1, 5)
    assert "def other():" in message.text
    assert bench.controller.runtime == RuntimeState.STOPPED


def test_no_program_in_local_control_or_without_power(bench: Bench) -> None:
    bench.controller.fault("local", 0)
    bench.run()
    assert bench.said[-1].code == primary.READ_ONLY
    bench.controller.fault("mend", 0)
    bench.controller.fault("off", 0)
    bench.run()
    assert "not ready" in bench.said[-1].text
    assert bench.controller.runtime == RuntimeState.STOPPED


@pytest.mark.parametrize(
    ("kind", "safety", "mode", "bits"),
    [
        ("protective", SafetyMode.PROTECTIVE_STOP, RobotMode.RUNNING, 1 << 2 | 1 << 10),
        ("estop", SafetyMode.ROBOT_EMERGENCY_STOP, RobotMode.POWER_OFF, 1 << 6 | 1 << 7 | 1 << 10),
        ("off", SafetyMode.NORMAL, RobotMode.POWER_OFF, 1),
    ],
)
def test_stops_end_the_program_and_let_go(
    bench: Bench, kind: str, safety: SafetyMode, mode: RobotMode, bits: int
) -> None:
    bench.run()
    bench.tell(Command.FOLLOW, moved(0.3))
    bench.cycle(10)
    bench.controller.fault(kind, 0)
    bench.cycle(1)
    values = bench.controller.values
    assert (values["safety_mode"], values["robot_mode"]) == ((safety,), (mode,))
    assert values["safety_status_bits"] == (bits,)
    assert not bench.controller.goals()[1].any()
    assert bench.controller.runtime == RuntimeState.STOPPED
    assert what_is_wrong(mode, safety)
    bench.controller.fault("mend", 0)
    assert bench.controller.goals()[1].all()
    assert bench.pan == values["actual_q"][0]


def test_a_stuck_joint_is_not_driven(bench: Bench) -> None:
    bench.controller.fault("stuck", 2)
    assert bench.controller.goals()[1].tolist() == [True, True, False, True, True, True, True]
    with pytest.raises(UserError, match="joints are 0 to 5"):
        bench.controller.fault("stuck", 6)


def test_the_dashboard_leads_out_of_an_emergency_stop(bench: Bench) -> None:
    ask = bench.controller.command
    bench.controller.fault("estop", 0)
    assert ask("safetystatus") == "Safetystatus: ROBOT_EMERGENCY_STOP"
    assert ask("power on") == "Failed to execute: power on"
    bench.controller.safety_mode = SafetyMode.NORMAL  # somebody turned the button
    assert ask("power on") == "Powering on"
    assert ask("robotmode") == "Robotmode: IDLE"
    assert ask("brake release") == "Brake releasing"
    assert ask("robotmode") == "Robotmode: RUNNING"
    assert ask("stop") == "Failed to execute: stop"
    assert ask("open sesame") == "could not understand: open sesame"


def test_a_protective_stop_is_unlocked_after_five_seconds(bench: Bench) -> None:
    ask = bench.controller.command
    bench.controller.fault("protective", 0)
    assert ask("unlock protective stop").startswith("Cannot unlock protective stop until 5s")
    bench.time_s += 5.0
    assert ask("unlock protective stop") == "Protective stop releasing"
    assert ask("safetymode") == "Safetymode: NORMAL"


def test_in_local_control_the_dashboard_only_tells(bench: Bench) -> None:
    bench.controller.fault("local", 0)
    assert bench.controller.command("is in remote control") == "false"
    assert bench.controller.command("robotmode") == "Robotmode: RUNNING"
    assert dashboard.LOCAL in bench.controller.command("power off")
    assert bench.controller.robot_mode == RobotMode.RUNNING


def test_the_gripper_moves_when_it_is_active(bench: Bench) -> None:
    say = bench.controller.gripper_line
    assert say("GET POS") == "POS 128\n"
    assert say("SET POS 255") == "ack"
    assert bench.controller.goals()[0][6] == 0.5
    assert (say("SET ACT 1 GTO 1"), say("GET STA")) == ("ack", "STA 3\n")
    assert say("SET POS 255 SPE 90") == "ack"
    assert bench.controller.goals()[0][6] == 0.0
    assert say("GET OBJ") == "OBJ 0\n"
    assert (say("GET XYZ"), say("SET XYZ 1"), say("hello")) == ("", "", "")


def test_a_digital_output_closes_it_too(bench: Bench) -> None:
    bench.controller.write("standard_digital_output_mask", (0b101,))
    bench.controller.write("standard_digital_output", (0b011,))
    assert bench.controller.values["actual_digital_output_bits"] == (0b001,)
    assert bench.controller.goals()[0][6] == 0.0


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_line_brings_it_down(line: str, more: str) -> None:
    controller = Controller()
    for text in (line, f"SET {line}", f"GET {line}", f"{line}\n{more}"):
        assert isinstance(controller.gripper_line(text), str)
        assert controller.command(text)
    controller.script(f"def {line}\n{more}\nend\n")
    assert controller.runtime == RuntimeState.STOPPED


def test_what_is_wrong_says_what_to_do() -> None:
    assert what_is_wrong(RobotMode.RUNNING, SafetyMode.NORMAL) == ""
    assert what_is_wrong(RobotMode.RUNNING, SafetyMode.REDUCED) == ""
    assert "unlock protective stop" in what_is_wrong(7, SafetyMode.PROTECTIVE_STOP)
    assert "brake release" in what_is_wrong(RobotMode.IDLE, 1)
    assert what_is_wrong(7, 99).startswith("SafetyMode 99")
    assert "safeguard stopped, stopped due to safety: the pendant" in what_is_wrong(
        7, 1, 1 << 4 | 1 << 10
    )
    assert "BOOTING" in what_is_wrong(RobotMode.BOOTING, 1)
