"""Limits hold for every stream of commands, whatever is in it and whenever it comes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero import embodiments
from dreamzero.errors import UserError
from dreamzero.robots.safety import Guard, Limits, Watchdog
from dreamzero.robots.workspace import Workspace

CARD = embodiments.get("tabletop_so101")
LIMITS = Limits.from_card(CARD)
LOWER, UPPER, VELOCITY = (np.array(x) for x in (LIMITS.lower, LIMITS.upper, LIMITS.velocity))

numbers = st.floats(width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0])
actions = st.lists(numbers, min_size=6, max_size=6).map(np.array)
commands = st.lists(st.tuples(st.floats(0, 3), actions), max_size=20)
poses = st.lists(st.floats(-0.5, 0.5), min_size=6, max_size=6).map(np.array)


@given(poses, commands)
def test_no_command_leaves_the_limits_or_the_velocity(pose, stream) -> None:
    guard, now = Guard(LIMITS), 0.0
    guard.reset(pose, now)
    last = pose
    for i, (wait_s, action) in enumerate(stream):
        now += wait_s
        decision = guard.check(action, now)
        sent = decision.action.astype(np.float64)
        assert np.isfinite(sent).all()
        assert (
            (sent >= np.minimum(LOWER, last) - 1e-6) & (sent <= np.maximum(UPPER, last) + 1e-6)
        ).all()
        elapsed_s = min(wait_s + (LIMITS.period_s if i == 0 else 0), 2 * LIMITS.period_s)
        if decision.refused:
            assert not np.isfinite(action).all()
            np.testing.assert_allclose(sent, last, atol=1e-6)
        elif i == 0 or not np.isnan(last).any():
            # Time since the last command that was obeyed may be longer than ``wait_s``.
            assert (np.abs(sent - last) <= VELOCITY * 2 * LIMITS.period_s + 1e-5).all()
            if not any(not np.isfinite(a).all() for _, a in stream[:i]):
                assert (np.abs(sent - last) <= VELOCITY * elapsed_s + 1e-5).all()
        last = sent


@given(poses, poses)
def test_what_is_allowed_passes_unchanged(pose, action) -> None:
    pose, action = np.clip(pose, LOWER, UPPER), np.clip(action, LOWER, UPPER)
    reach = VELOCITY * LIMITS.period_s
    action = np.clip(action, pose - 0.99 * reach, pose + 0.99 * reach)
    guard = Guard(LIMITS)
    guard.reset(pose, 5.0)
    decision = guard.check(action, 5.0)
    assert not decision.clipped
    np.testing.assert_array_equal(decision.action, action.astype(np.float32))


def test_what_was_clipped_is_told_by_joint() -> None:
    guard = Guard(LIMITS)
    guard.reset(np.zeros(6), 0.0)
    decision = guard.check(np.array([0.0, 9.0, 0.0, 0.0, 0.0, 0.1]), 0.0)
    assert decision.position.tolist() == [False, True] + [False] * 4
    assert decision.velocity.tolist() == [False, True] + [False] * 4
    assert decision.action[1] == pytest.approx(4.7 / 15)
    assert {k for k, n in guard.counts.items() if n} == {"position", "velocity"}
    assert decision.rules == ("position", "velocity")


def test_nan_repeats_the_last_command() -> None:
    guard = Guard(LIMITS)
    guard.reset(np.zeros(6), 0.0)
    first = guard.check(np.full(6, 0.1), 0.1).action
    decision = guard.check(np.array([0, 0, np.nan, 0, 0, 0]), 0.2)
    assert decision.refused
    assert decision.clipped
    np.testing.assert_array_equal(decision.action, first)


def test_a_pose_outside_is_led_back_in_at_the_velocity_limit() -> None:
    guard, now = Guard(LIMITS), 0.0
    guard.reset(np.array([2.5, 0, 0, 0, 0, 0]), now)
    sent = [guard.check(np.zeros(6), now := now + 1 / 15).action[0] for _ in range(12)]
    assert sent[0] == pytest.approx(2.5 - 4.7 * 2 / 15)
    assert sent[-1] == 0.0


def test_nothing_is_let_through_before_the_pose_is_known() -> None:
    with pytest.raises(UserError, match="connect before acting"):
        Guard(LIMITS).check(np.zeros(6), 0.0)


@pytest.mark.parametrize("wrong", [np.zeros(5), np.full(6, np.nan)])
def test_a_pose_that_is_none_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(UserError, match="measured pose"):
        Guard(LIMITS).reset(wrong, 0.0)


def test_an_action_of_another_width_is_an_error() -> None:
    guard = Guard(LIMITS)
    guard.reset(np.zeros(6), 0.0)
    with pytest.raises(UserError, match=r"shape \[7\] for an arm of 6"):
        guard.check(np.zeros(7), 0.0)


@pytest.mark.parametrize("speed", [0.0, 1.5, -1.0])
def test_speed_is_a_share(speed: float) -> None:
    with pytest.raises(UserError, match="outside"):
        Limits.from_card(CARD, speed)


def test_half_speed_halves_velocities() -> None:
    assert Limits.from_card(CARD, 0.5).velocity[0] == pytest.approx(2.35)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lower": (0.0,), "upper": (1.0, 2.0), "velocity": (1.0,)},
        {"lower": (1.0,), "upper": (0.0,), "velocity": (1.0,)},
        {"lower": (0.0,), "upper": (1.0,), "velocity": (0.0,)},
        {"lower": (0.0,), "upper": (np.inf,), "velocity": (1.0,)},
        {"lower": (0.0,), "upper": (1.0,), "velocity": (1.0,), "step": (0.0,)},
        {"lower": (0.0,), "upper": (1.0,), "velocity": (1.0,), "step": (1.0, 1.0)},
    ],
)
def test_limits_that_are_none_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError):
        Limits(**wrong)


def test_watchdog() -> None:
    dog = Watchdog(1.0)
    assert not dog.expired(100.0)
    dog.feed(100.0)
    assert not dog.expired(101.0)
    assert dog.expired(101.1)
    dog.feed(101.2)
    assert not dog.expired(102.0)


@given(poses, commands, st.floats(0.001, 0.2))
def test_no_command_differs_by_more_than_its_step(pose, stream, step_rad) -> None:
    guard, now, last = Guard(Limits.from_card(CARD, step_rad=step_rad)), 0.0, pose
    guard.reset(pose, now)
    for wait_s, action in stream:
        now += wait_s
        decision = guard.check(action, now)
        moved = np.abs(decision.action - last)
        assert (moved[:5] <= step_rad + 1e-6).all()
        # A gripper opens in one go: no joint hangs on it.
        assert moved[5] <= VELOCITY[5] * 2 * LIMITS.period_s + 1e-5
        last = decision.action.astype(np.float64)


BOX = ((0.05, 0.30), (-0.15, 0.15), (0.02, 0.30))


@given(poses, commands)
def test_the_tool_stays_in_its_box_or_comes_back_to_it(pose, stream) -> None:
    workspace = Workspace.of(CARD, BOX)
    assert workspace is not None
    guard, now = Guard(LIMITS, workspace), 0.0
    guard.reset(pose, now)
    outside_m = workspace.outside_m(pose)
    for wait_s, action in stream:
        now += wait_s
        decision = guard.check(action, now)
        next_m = workspace.outside_m(decision.action)
        assert next_m <= outside_m + 1e-6
        if decision.workspace:
            np.testing.assert_allclose(decision.action, guard.last, atol=1e-6)
        outside_m = next_m


def test_a_command_out_of_the_box_is_refused_and_counted() -> None:
    workspace = Workspace(BOX, lambda action: action[:3])
    guard = Guard(LIMITS, workspace)
    guard.reset(np.array([0.1, 0.0, 0.1, 0, 0, 0]), 0.0)
    assert not guard.check(np.array([0.29, 0.0, 0.1, 0, 0, 0]), 0.1).clipped
    decision = guard.check(np.array([0.31, 0.0, 0.1, 0, 0, 0]), 0.2)
    assert decision.rules == ("workspace",)
    assert guard.counts["workspace"] == 1
    assert decision.action[0] == pytest.approx(0.29)
    # Found outside, it may only come closer.
    guard.reset(np.array([0.5, 0.0, 0.1, 0, 0, 0]), 1.0)
    assert guard.check(np.array([0.51, 0.0, 0.1, 0, 0, 0]), 1.1).workspace
    assert not guard.check(np.array([0.4, 0.0, 0.1, 0, 0, 0]), 1.2).workspace


@pytest.mark.parametrize("box", [((0, 1), (0, 1)), ((1, 0),) * 3, ((0, np.nan),) * 3])
def test_a_box_that_is_none_is_refused(box) -> None:
    with pytest.raises(UserError, match="is no box"):
        Workspace.of(CARD, box)


def test_an_arm_of_unknown_shape_has_no_workspace() -> None:
    with pytest.raises(UserError, match="shape of koch is not known"):
        Workspace.of(CARD.with_(robot="koch"), BOX)
    assert Workspace.of(CARD.with_(robot="koch"), None) is None


def test_the_fuzz_finds_nothing_and_would_find_something(monkeypatch) -> None:
    from dreamzero.robots import benchmark

    figures = benchmark.fuzz_guard(11_000, seed=1)
    assert (figures["commands"], figures["violations"]) == (11_000, 0)
    assert 0 < figures["limited"] < 11_000
    check = Guard.check

    def leaky(self, action, time_s):
        decision = check(self, action, time_s)
        decision.action[0] += 0.05 * (abs(action[0]) > 100)
        return decision

    monkeypatch.setattr(Guard, "check", leaky)
    assert benchmark.fuzz_guard(2_000)["violations"] > 10
