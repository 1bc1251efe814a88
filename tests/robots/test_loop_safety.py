"""What the loop does when something is wrong, on a clock of its own: nothing here is timed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.errors import UserError
from dreamzero.robots import HoldPolicy, ReplayPolicy, RobotFault, Stopped, run_episode
from dreamzero.robots.estop import EStop
from dreamzero.robots.uri import parse

from .conftest import CARD, VIEW, ClockworkArm
from .test_loop import STEP_S, Counting

BEGIN_S = 100.0


def test_after_an_outage_the_policy_begins_anew_from_where_the_arm_is(arm: ClockworkArm) -> None:
    policy = Counting()
    arm.outage_s = (BEGIN_S + 10.5 * STEP_S, BEGIN_S + 10.5 * STEP_S + 1.0)
    arm.moved_to = np.full(6, 0.3, np.float32)
    log = run_episode(arm, policy, "x", max_chunks=2)
    assert log.ended == "done"
    (fault,) = log.faults
    assert fault.text == "the wire is cut"
    assert fault.time_s == pytest.approx(11 * STEP_S)
    # The wire was tried often enough to be found at once.
    assert fault.back_s == pytest.approx(10.5 * STEP_S + 1.0, abs=0.051)
    assert log.outage_s == pytest.approx([fault.back_s - fault.time_s])
    # One fresh frame, with the pose the arm was found in, though a part of a block had been seen.
    assert [len(frames) for frames in policy.seen] == [1, 1, 8]
    np.testing.assert_allclose(policy.states[1], 0.3)
    after = log.sent[log.due_s > fault.back_s]
    assert abs(after[0] - 0.3).max() <= CARD.velocity[0] * 2 * STEP_S + 1e-6
    # No command was due in vain: the deadlines of the outage are told as an outage.
    assert log.missed == 0
    assert log.summary()["faults"] == 1
    slots = log.due_s / STEP_S
    np.testing.assert_allclose(slots, np.round(slots), atol=1e-6)


def test_an_answer_from_before_the_outage_is_thrown_away(arm: ClockworkArm) -> None:
    policy = Counting()
    begin = BEGIN_S + 3.5 * STEP_S
    arm.outage_s = (begin, begin + STEP_S)
    log = run_episode(arm, policy, "x", max_chunks=1, latency_s=10 * STEP_S)
    assert log.ended == "done"
    assert policy.chunks == 2
    moved = log.wanted[~log.held, 0]
    np.testing.assert_allclose(moved, policy.values(1), atol=1e-6)


@pytest.mark.parametrize(("patience_s", "held_s"), [(0.0, 0.0), (0.7, 0.7)])
def test_a_wire_that_stays_away_ends_the_run(arm, patience_s: float, held_s: float) -> None:
    arm.outage_s = (BEGIN_S + 5.5 * STEP_S, np.inf)
    log = run_episode(arm, Counting(), "x", max_chunks=3, reconnect_s=patience_s)
    assert (log.ended, log.fault) == ("fault", "the wire is cut")
    assert [f.back_s for f in log.faults] == [None]
    assert arm.manual.now() - BEGIN_S == pytest.approx(6 * STEP_S + held_s, abs=0.051)
    with pytest.raises(RobotFault, match="cut"):
        log.raise_for_fault()


def test_a_first_command_that_is_far_away_is_refused_by_name(arm: ClockworkArm) -> None:
    actions = np.zeros((16, 6))
    actions[:, 2] = 0.6
    with pytest.raises(UserError, match=r"begins with joint_position_2 at \+0.60 rad"):
        run_episode(arm, ReplayPolicy(CARD, actions), "x", max_chunks=1)
    assert (arm.pose == 0).all()
    # A gripper may jump, and so may joints where a person allows it.
    actions[:, 5] = 1.0
    log = run_episode(
        arm, ReplayPolicy(CARD, actions), "x", max_chunks=1, max_start_offset_rad=None
    )
    assert log.ended == "done"


def test_approach_goes_there_slowly_and_asks_again(arm: ClockworkArm) -> None:
    policy = Counting()
    policy.values = lambda chunk: np.full(CARD.horizon, 0.8)  # type: ignore[method-assign]
    log = run_episode(arm, policy, "x", max_chunks=1, approach=0.1)
    assert log.ended == "done"
    assert len(policy.seen) == 2
    assert len(log.chunks) == 1
    steps = np.abs(np.diff(log.sent, axis=0, prepend=np.zeros((1, 6))))
    assert steps.max() <= 0.1 * max(CARD.velocity) * STEP_S + 1e-6
    np.testing.assert_allclose(policy.states[1], 0.8, atol=1e-6)
    np.testing.assert_allclose(log.sent[-CARD.horizon :], 0.8, atol=1e-6)


def test_a_policy_that_runs_away_from_the_approach_is_refused(arm: ClockworkArm) -> None:
    policy = Counting()
    policy.values = lambda chunk: np.full(CARD.horizon, 0.7 * (chunk + 1))  # type: ignore[method-assign]
    with pytest.raises(UserError, match="more than 0.5 rad"):
        run_episode(arm, policy, "x", max_chunks=1, approach=0.5)


def ramp() -> ReplayPolicy:
    return ReplayPolicy(CARD, np.repeat(np.linspace(0.02, 0.32, 16)[:, None], 6, axis=1))


def test_home_is_where_the_run_began(arm: ClockworkArm) -> None:
    log = run_episode(arm, ramp(), "x", max_chunks=1, end="home")
    assert log.ended == "done"
    np.testing.assert_allclose(log.sent[-1], 0.0, atol=1e-6)
    back = np.abs(np.diff(log.sent[15:], axis=0))
    assert back.max() <= 0.2 * max(CARD.velocity) * STEP_S + 1e-6


def test_relax_lets_go_and_nothing_is_sent_afterwards(arm: ClockworkArm) -> None:
    log = run_episode(arm, ramp(), "x", max_chunks=1, end="relax")
    assert log.ended == "done"
    assert arm.relaxed
    assert len(arm.sent) == 1 + CARD.horizon


def test_after_a_fault_the_arm_holds_whatever_the_end_is(arm: ClockworkArm) -> None:
    arm.fail_after = 8
    log = run_episode(arm, ramp(), "x", max_chunks=1, end="relax")
    assert log.ended == "fault"
    assert not hasattr(arm, "relaxed")


def test_an_emergency_stop_holds_within_one_tick_and_latches(arm, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DREAMZERO_ESTOP", str(tmp_path / "stop"))
    arm.estop = EStop(parse("sim://so101"))
    policy = Counting(rate=0.01)
    observe = arm._observe

    def press(views):
        if len(arm.sent) == 6:
            EStop().press("somebody's hand")
        return observe(views)

    arm._observe = press
    log = run_episode(arm, policy, "x", max_chunks=3, end="home")
    assert log.ended == "estop"
    assert "somebody's hand" in log.fault
    # One hold before the first chunk, five steps, and then only where it stands.
    assert len(log.sent) == 5
    np.testing.assert_allclose([sent for _, sent in arm.sent[6:]], 0.04, atol=1e-6)
    with pytest.raises(Stopped, match="--clear"):
        run_episode(arm, policy, "x", max_chunks=1)
    with pytest.raises(Stopped, match="--clear"):
        arm.act(np.zeros(6))
    EStop().clear()
    assert run_episode(arm, HoldPolicy(CARD), "x", max_chunks=1).ended == "done"


def test_crossfade_takes_the_jump_out_of_a_hand_over(arm: ClockworkArm) -> None:
    def jumpy(blend_s: float) -> np.ndarray:
        policy = Counting()
        policy.values = lambda chunk: np.full(CARD.horizon, 0.2 * (chunk % 2))  # type: ignore[method-assign]
        with ClockworkArm() as one:
            log = run_episode(
                one,
                policy,
                "x",
                max_chunks=6,
                mode="overlapped",
                latency_s=2 * STEP_S,
                smoothing="none",
                blend_s=blend_s,
            )
        assert log.ended == "done"
        return np.abs(np.diff(log.wanted[~log.held, 0]))

    assert jumpy(0.0).max() == pytest.approx(0.2)
    assert jumpy(0.4).max() < 0.06


def test_smoothing_reaches_the_motors_and_leaves_the_gripper_alone(arm: ClockworkArm) -> None:
    rng = np.random.default_rng(0)
    actions = np.repeat(np.linspace(0, 0.4, 64)[:, None], 6, axis=1)
    actions += rng.normal(0, 0.02, actions.shape)
    actions[:, 5] = np.arange(64) % 16 > 7
    with ClockworkArm() as other:
        plain = run_episode(other, ReplayPolicy(CARD, actions), "x", max_chunks=4)
    smooth = run_episode(arm, ReplayPolicy(CARD, actions), "x", max_chunks=4, smoothing="savgol")

    def roughness(log) -> float:
        return float(np.abs(np.diff(log.wanted[:, :5], n=2, axis=0)).mean())

    assert roughness(smooth) < 0.35 * roughness(plain)
    np.testing.assert_array_equal(smooth.wanted[:, 5], actions[:, 5].astype(np.float32))
    # The log keeps what the policy said.
    np.testing.assert_array_equal(smooth.chunks[0].actions, actions[:16].astype(np.float32))


@given(
    mode=st.sampled_from(["synchronous", "overlapped"]),
    cut_s=st.floats(0.01, 3.0),
    out_s=st.floats(0.01, 2.0),
    latency_s=st.floats(0, 0.5),
)
def test_whenever_the_wire_goes_the_run_goes_on(mode, cut_s, out_s, latency_s) -> None:
    with ClockworkArm(0.002) as arm:
        arm.outage_s = (BEGIN_S + cut_s, BEGIN_S + cut_s + out_s)
        policy = Counting()
        log = run_episode(arm, policy, "x", seconds=2.5, mode=mode, latency_s=latency_s)
        assert log.ended == "done", log.fault
        assert all(fault.back_s is not None for fault in log.faults)
        assert len(log.faults) <= 1
        assert all(len(frames) in (1, CARD.frames_per_block) for frames in policy.seen)
        assert (np.diff(log.due_s) > 0).all()
        assert VIEW in log.frames


def test_holding_is_not_going_to_the_nearest_pose_allowed(arm: ClockworkArm) -> None:
    """An arm that is found outside its limits is held there, and led back no faster than allowed."""
    outside = np.array(arm.guard.limits.upper) + 0.4
    arm.pose = outside.astype(np.float32)
    arm.stop()
    np.testing.assert_allclose(arm.sent[-1][1], outside, atol=1e-6)
    arm.manual.advance(1 / 15)
    arm.act(arm.guard.last)
    steps = np.abs(arm.sent[-1][1] - outside)
    assert steps.max() > 0 and (steps <= np.array(arm.guard.limits.velocity) * 2 / 15 + 1e-6).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_what_is_no_number_proves_no_start(arm: ClockworkArm, rows: int) -> None:
    actions = np.tile(np.array(arm.guard.limits.upper), (CARD.horizon, 1))
    actions[:rows, -1] = np.nan
    with pytest.raises(UserError, match="begins with .* more than 0.5 rad away"):
        run_episode(arm, ReplayPolicy(CARD, actions), "x", max_chunks=1, max_start_offset_rad=0.5)


def test_a_pressed_stop_keeps_an_arm_from_being_taken_up(arm: ClockworkArm) -> None:
    class Pressed:
        def pressed(self) -> str:
            return "by a person"

    arm.close()
    arm.estop = Pressed()  # type: ignore[assignment]
    with pytest.raises(Stopped, match="was stopped by a person"):
        arm.connect()
    assert arm.opened == 1
    arm.move = False
    arm.connect()
