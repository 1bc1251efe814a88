"""Notebook 04: packets decoded, motion without pauses, punctuality, a pulled cable."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from dreamzero import embodiments, robots
from dreamzero.errors import UserError
from dreamzero.report import plots_robot, robot_study, wire
from dreamzero.robots import calibration, feetech
from dreamzero.robots.runlog import ChunkRecord, RunLog

CARD = embodiments.get("tabletop_so101")
POSITION = feetech.STS3215["present_position"]
GOAL = feetech.STS3215["goal_position"]


@dataclass
class Link:
    """Answers every request with what it was given."""

    answers: list[bytes] = field(default_factory=list)
    name: str = "here"
    detail: str = "test"

    def write(self, data: bytes) -> None:
        pass

    def read(self, timeout_s: float) -> bytes:
        return self.answers.pop(0) if self.answers else b""

    def discard_input(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_packets_are_decoded_by_what_was_asked() -> None:
    answer = feetech.encode(feetech.Packet(3, 0, POSITION.to_bytes(2113)))
    heard = [
        ("out", feetech.sync_read(POSITION.address, 2, [3])),
        ("in", answer[:5]),  # split on the wire
        ("in", answer[5:]),
        ("out", feetech.sync_write(GOAL.address, {1: GOAL.to_bytes(2048), 6: GOAL.to_bytes(2560)})),
        ("out", feetech.write(4, 40, b"\x01")),
        ("in", feetech.encode(feetech.Packet(4, 0))),
        ("in", feetech.encode(feetech.Packet(2, 1 << 5))),
    ]
    spoken = wire.decode(heard, calibration.SO101)
    assert [one.meaning for one in spoken] == [
        "sync read: present_position of servos 3",
        "elbow_flex 2113 (+0.100 rad)",
        "sync write: goal_position: shoulder_pan 2048 (+0.000 rad), gripper 2560 (+0.500 open)",
        "write of servo 4: torque_enable",
        "servo 4: done",
        "servo 2 reports overload",
    ]
    assert spoken[1].data == answer
    assert b"".join(data for _, data in spoken[1].parts) == answer


def test_tap_hears_and_lets_go() -> None:
    @dataclass
    class Arm:
        bus: Link

    link = Link([b"abc"])
    arm = Arm(bus=Link())
    arm.bus.link = link  # type: ignore[attr-defined]
    with wire.tapped(arm) as tap:
        arm.bus.link.write(b"x")  # type: ignore[attr-defined]
        assert tap.read(0.0) == b"abc"
        assert tap.read(0.0) == b""
    assert tap.heard == [("out", b"x"), ("in", b"abc")]
    assert arm.bus.link is link  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="no wire"), wire.tapped(object()):
        pass


def run(lateness_s: float = 0.0, success: bool | None = True, still: int = 4) -> robot_study.Run:
    """20 commands at 15 Hz, of which the first ``still`` hold; joint 0 is at its command."""
    due = np.arange(20) / 15.0
    pose = np.tile(np.linspace(0, 1, 20)[:, None], (1, 6)).astype(np.float32)
    chunk = ChunkRecord(0.0, 0.2, 0.2, 0.15, 1, 0, pose[still:])
    log = RunLog(
        "go", "synchronous", 15.0, due, due + lateness_s, pose, pose, np.arange(20) < still,
        np.zeros(20, bool), due, pose, np.zeros(0), {}, [chunk], {}, "done", missed=2,
    )  # fmt: skip
    return robot_study.Run(7, "go", log, success)


def test_pauses_are_cut_out() -> None:
    found = robot_study.motion(run().log)
    assert found.command.shape == (16, 6)
    np.testing.assert_allclose(found.time_s, np.arange(16) / 15)
    np.testing.assert_allclose(found.measured, found.command, atol=1e-6)
    other = robot_study.Motion(found.time_s, found.command, found.measured + 0.5)
    assert robot_study.first_chunk_difference_rad(found, other, CARD) == pytest.approx(0.5)
    assert robot_study.first_chunk_difference_rad(found, found, CARD) == 0.0


def test_timing_and_success_of_several_runs() -> None:
    timing = robot_study.timing([run(), run(0.01)])
    assert (timing.commands, timing.missed, timing.held_share) == (40, 4, 0.2)
    assert len(timing.jitter_ms) == 38
    assert timing.jitter_ms.max() < 1e-6
    assert timing.lateness_ms.max() == pytest.approx(10.0)
    row = timing.row("synchronous")
    assert (row["thinking p50 (ms)"], row["holding"]) == ("150.00", "20 %")
    rate = robot_study.success_rate([run(), run(success=False)])
    assert rate is not None
    assert (rate.value, rate.n) == (0.5, 2)
    assert robot_study.success_rate([run(success=None)]) is None
    rows = robot_study.table({"sim": [run(), run()], "wire": [run(success=None)]})
    assert [row["wire"] for row in rows] == ["not scored, 1 chunks", "-"]


def test_scenes_are_set_driven_and_scored() -> None:
    policy = robots.HoldPolicy(CARD)
    with robots.open("sim://so101?seed=0", CARD) as arm:
        runs = robot_study.run_scenes(arm, policy, [900_000_001, 5], arm, max_chunks=1)
        again = robot_study.run_scenes(arm, policy, [0], None, "wait", max_chunks=1)
    assert [one.success for one in runs] == [False, False]
    assert runs[0].instruction != runs[1].instruction
    assert (again[0].success, again[0].log.instruction) == (None, "wait")


def test_incidents_are_timed_and_told() -> None:
    with (
        robots.Emulator("so101", physics="lag") as emulator,
        robots.open(emulator.uri, CARD) as arm,
    ):
        policy = robots.HoldPolicy(CARD)

        def told(what: str, happen, mend=None) -> robot_study.Incident:
            return robot_study.incident(what, arm, policy, "hold", happen, mend, 0.3, 0.5)

        cable = told("cable", lambda: emulator.fault("unplug"), lambda: emulator.fault("replug"))
        assert cable.log.ended == "done", cable.log.fault
        assert cable.noticed_ms is not None and 0 <= cable.noticed_ms < 2000
        assert cable.back_ms is not None and cable.back_ms > 0
        row = cable.row()
        assert row["the run"] == "done" and emulator.port in row["in words"]
        figure = plots_robot.outage(cable, arm.features.joints)
        assert len(figure.axes) == 3
        broken = told("overload", lambda: emulator.fault("overload", 3))
        emulator.fault("mend", 3)
        assert broken.log.ended == "fault" and "servo id 3" in broken.row()["in words"]
        assert broken.back_ms is None and broken.row()["moves again after"] == "-"
        arm.connect()
        try:
            stopped = told("stop", lambda: robot_study.press_stop(emulator.uri))
            assert stopped.log.ended == "estop"
        finally:
            arm.estop.clear()


def test_figures_show_what_they_were_given() -> None:
    from matplotlib import pyplot

    spoken = wire.decode([("out", feetech.ping(1))], calibration.SO101)
    axis = plots_robot.packets(spoken).axes[0]
    texts = [text.get_text() for text in axis.texts]
    assert texts[1:] == ["ff", "ff", "01", "02", "01", "fb", "ping of servo 1"]

    moved = robot_study.motion(run().log)
    figure = plots_robot.traces(moved, moved, list("abcdef"), ["rad"] * 5 + ["1"])
    assert [len(axis.get_lines()) for axis in figure.axes] == [3] * 6

    figure = plots_robot.timeline({"synchronous": run().log})
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["synchronous: arm", "model"]

    figure = plots_robot.clockwork({"synchronous": robot_study.timing([run()])}, 66.7)
    assert figure.axes[0].get_lines()[0].get_ydata()[-1] == 100.0
    pyplot.close("all")
