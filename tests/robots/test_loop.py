"""The control loop on a clock of its own: order, cadence, deadlines. Nothing here is timed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamzero.errors import UserError
from dreamzero.robots import HoldPolicy, ReplayPolicy, run_episode
from dreamzero.robots.thinker import InlineThinker, ThreadThinker
from dreamzero.types import ActionChunk

from .conftest import CARD, VIEW, ClockworkArm

STEP_S = 1 / CARD.action_hz
# Chunks of ``Counting`` have nothing to do with each other: as they are.
AS_PLANNED = {"smoothing": "none", "blend_s": 0.0}


class Counting:
    """Chunk c, step k asks for the same number in every joint; remembers what it was shown."""

    def __init__(self, rate: float = 0.001) -> None:
        self.rate = rate
        self.seen: list[np.ndarray] = []
        self.states: list[np.ndarray] = []
        self.chunks = 0
        self.prompt = ""

    def reset(self, prompt: str) -> None:
        self.prompt = prompt

    def observe(self, frames, state) -> None:
        self.seen.append(frames[VIEW][:, 0, 0, 0])
        self.states.append(state)

    def values(self, chunk: int) -> np.ndarray:
        return self.rate * (100 * chunk + np.arange(CARD.horizon))

    def act(self) -> ActionChunk:
        actions = np.repeat(self.values(self.chunks)[:, None], CARD.action_dim, axis=1)
        self.chunks += 1
        return ActionChunk(actions.astype(np.float32), CARD.action_hz)


def test_synchronous_is_what_simulation_does(arm: ClockworkArm) -> None:
    policy = Counting()
    log = run_episode(arm, policy, "touch the red block", max_chunks=3)
    assert log.ended == "done"
    assert policy.prompt == "touch the red block"
    # One frame, then eight of each chunk, without a gap: every picture exactly once.
    assert [len(s) for s in policy.seen] == [1, 8, 8]
    assert np.concatenate(policy.seen).tolist() == list(range(17))
    # Every step of every chunk, on the grid, once.
    assert len(log.sent) == 3 * CARD.horizon
    wanted = np.concatenate([policy.values(c) for c in range(3)])
    np.testing.assert_allclose(log.wanted[:, 0], wanted, atol=1e-6)
    np.testing.assert_allclose(log.due_s, np.arange(48) * STEP_S, atol=1e-9)
    assert not log.held.any()
    assert log.missed == 0
    assert log.frames[VIEW].shape == (25, 4, 4, 3)
    np.testing.assert_allclose(log.frames_s, np.arange(25) / CARD.video_hz, atol=1e-9)
    # The state goes in as it is at the boundary: the last command was obeyed by then.
    np.testing.assert_allclose(policy.states[1], policy.values(0)[-1], atol=1e-6)


def test_synchronous_holds_while_the_model_thinks(arm: ClockworkArm) -> None:
    policy = Counting()
    log = run_episode(arm, policy, "x", max_chunks=2, latency_s=0.5)
    waits = round(0.5 / STEP_S)
    assert log.held.sum() in (2 * waits, 2 * waits + 1, 2 * waits + 2)
    assert [len(s) for s in policy.seen] == [1, 8]
    moving = log.wanted[~log.held, 0]
    np.testing.assert_allclose(moving, [*policy.values(0), *policy.values(1)], atol=1e-6)
    # While it waits the last command stays in force.
    first_wait = np.flatnonzero(log.held & (log.due_s > log.chunks[0].ready_s))
    np.testing.assert_allclose(log.wanted[first_wait, 0], policy.values(0)[-1], atol=1e-6)


def test_overlapped_drops_the_steps_that_are_past(arm: ClockworkArm) -> None:
    policy = Counting()
    latency_s = 3.5 * STEP_S
    log = run_episode(
        arm, policy, "x", max_chunks=4, mode="overlapped", latency_s=latency_s, **AS_PLANNED
    )
    # Half a chunk from one observation to the next is no whole block: the newest frame, anew.
    assert [s.tolist() for s in policy.seen] == [[0], [4], [8], [12]]
    assert log.frames[VIEW].shape[0] == 17
    assert [c.dropped_steps for c in log.chunks] == [0, 4, 4, 4]
    # Only the wait for the first chunk is spent holding.
    assert log.held.sum() == 4
    moving = log.wanted[~log.held, 0]
    expected = [*policy.values(0)[:12]]
    for chunk in (1, 2):
        expected += [*policy.values(chunk)[4:12]]
    # The command of the last boundary's tick goes out before the loop sees that it is the last.
    expected += [*policy.values(3)[4:9]]
    np.testing.assert_allclose(moving, expected, atol=1e-6)


def test_overlapped_with_a_slow_model_waits_and_drops_what_is_past(arm: ClockworkArm) -> None:
    policy = Counting()
    latency_s = 12 * STEP_S
    log = run_episode(arm, policy, "x", seconds=6.0, mode="overlapped", latency_s=latency_s)
    # Later answers come after one boundary has gone by: a whole block has been seen by then.
    assert [len(s) for s in policy.seen] == [1, 1] + [8] * (len(policy.seen) - 2)
    shown = np.concatenate(policy.seen)
    assert shown[1:].tolist() == list(range(shown[1], shown[1] + len(shown) - 1))
    assert [c.dropped_steps for c in log.chunks[1:]] == [12] * (len(log.chunks) - 1)
    assert log.held.sum() > 20


def test_interpolation_between_steps(arm: ClockworkArm) -> None:
    actions = np.repeat(np.linspace(0.02, 0.32, 16)[:, None], 6, axis=1)
    log = run_episode(arm, ReplayPolicy(CARD, actions), "x", max_chunks=1, stream_hz=60.0)
    assert len(log.sent) == 64
    # Four commands a step, evenly, and on the step's target with the last of them.
    np.testing.assert_allclose(log.wanted[3::4, 0], actions[:, 0], atol=1e-6)
    np.testing.assert_allclose(np.diff(log.wanted[:, 0]), 0.005, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    cost_s=st.floats(0, 0.15),
    latency_s=st.floats(0, 0.6),
    mode=st.sampled_from(["synchronous", "overlapped"]),
    stream_hz=st.sampled_from([15.0, 40.0]),
)
def test_however_slow_the_arm_commands_stay_on_the_grid(cost_s, latency_s, mode, stream_hz) -> None:
    with ClockworkArm(cost_s) as arm:
        policy = Counting()
        log = run_episode(
            arm, policy, "x", max_chunks=3, mode=mode, latency_s=latency_s, stream_hz=stream_hz
        )
    assert log.ended == "done"
    slots = log.due_s * stream_hz
    np.testing.assert_allclose(slots, np.round(slots), atol=1e-6)
    # Every deadline up to the last command was met or counted as missed, none made up for.
    assert (np.diff(np.round(slots)) >= 1).all()
    assert round(slots[-1]) + 1 <= len(slots) + log.missed
    assert (log.lateness_s >= -1e-9).all()
    assert all(len(s) in (1, CARD.frames_per_block) for s in policy.seen)


def test_a_late_tick_is_counted_and_not_made_up_for(arm: ClockworkArm) -> None:
    policy = Counting()
    calls = 0
    observe = arm._observe

    def hiccup(views):
        nonlocal calls
        calls += 1
        if calls == 10:
            arm.manual.advance(3.5 * STEP_S)
        return observe(views)

    arm._observe = hiccup  # type: ignore[method-assign]
    log = run_episode(arm, policy, "x", max_chunks=1)
    # Three and a half steps late: the next deadline is served late, two are gone.
    assert log.missed == 2
    assert len(log.sent) == CARD.horizon - 2
    assert log.lateness_s.max() == pytest.approx(0.5 * STEP_S)
    assert log.summary()["deadlines_missed"] == 2


def test_frames_of_missed_deadlines_are_repeated_so_that_eight_stay_eight(arm) -> None:
    policy = Counting()
    calls = 0
    observe = arm._observe

    def hiccup(views):
        nonlocal calls
        calls += 1
        if calls == 16:
            arm.manual.advance(8 * STEP_S)
        return observe(views)

    arm._observe = hiccup
    log = run_episode(arm, policy, "x", max_chunks=2)
    assert [len(s) for s in policy.seen] == [1, 8]
    assert log.repeated_frames > 0


def test_watchdog_ends_a_run_whose_model_hangs(arm: ClockworkArm) -> None:
    policy = Counting()
    log = run_episode(arm, policy, "x", max_chunks=9, latency_s=3.0, watchdog_s=1.0)
    assert log.ended == "watchdog"
    assert len(log.chunks) == 1
    # Held from the last step of the first chunk until the dog barked.
    last = log.due_s[~log.held].max()
    assert log.due_s[-1] - last == pytest.approx(1.0, abs=2 * STEP_S)


def test_a_fault_is_told_and_the_log_kept(arm: ClockworkArm) -> None:
    arm.fail_after = 20
    log = run_episode(arm, Counting(), "x", max_chunks=3)
    assert (log.ended, log.fault) == ("fault", "the wire is cut")
    # One of the twenty is the hold before the first chunk.
    assert len(log.sent) == 19


def test_what_the_policy_raises_is_passed_on_and_the_arm_held(arm: ClockworkArm) -> None:
    class Broken(Counting):
        def act(self) -> ActionChunk:
            if self.chunks == 1:
                raise ZeroDivisionError("in the model")
            return super().act()

    with pytest.raises(ZeroDivisionError):
        run_episode(arm, Broken(rate=0.01), "x", max_chunks=3)
    np.testing.assert_allclose(arm.sent[-1][1], 0.15, atol=1e-6)
    assert len(arm.sent) == 1 + CARD.horizon + 1


def test_ctrl_c_keeps_the_log(arm: ClockworkArm) -> None:
    class Interrupted(Counting):
        def act(self) -> ActionChunk:
            if self.chunks == 1:
                raise KeyboardInterrupt
            return super().act()

    log = run_episode(arm, Interrupted(), "x", max_chunks=3)
    assert log.ended == "interrupted"
    assert len(log.sent) == CARD.horizon


def test_until_is_asked_at_boundaries(arm: ClockworkArm) -> None:
    answers = iter([False, True])
    log = run_episode(arm, HoldPolicy(CARD), "x", max_chunks=9, until=lambda: next(answers))
    assert log.ended == "until"
    assert len(log.chunks) == 2


def test_clips_and_refusals_are_counted(arm: ClockworkArm) -> None:
    actions = np.zeros((16, 6))
    actions[3] = np.nan
    actions[5] = 99.0
    log = run_episode(arm, ReplayPolicy(CARD, actions), "x", max_chunks=1)
    assert log.counts["refused"] == 1
    assert log.counts["position"] == 1
    assert np.isfinite(log.sent).all()
    assert log.clipped[[3, 5]].all()


def test_seconds_end_at_a_boundary(arm: ClockworkArm) -> None:
    log = run_episode(arm, HoldPolicy(CARD), "x", seconds=1.5)
    assert len(log.chunks) == 2


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "say when to end"),
        ({"max_chunks": 0}, "must be > 0"),
        ({"max_chunks": 1, "mode": "parallel"}, "unknown mode"),
        ({"max_chunks": 1, "stream_hz": 5.0}, "below"),
        ({"max_chunks": 1, "execute_steps": 17}, "execute_steps=17"),
        ({"max_chunks": 1, "execute_steps": 3}, "whole frames"),
        ({"max_chunks": 1, "watchdog_s": 0.0}, "watchdog_s"),
        ({"max_chunks": 1, "reconnect_s": -1.0}, "reconnect_s"),
        ({"max_chunks": 1, "blend_s": float("nan")}, "blend_s"),
        ({"max_chunks": 1, "max_start_offset_rad": 0.0}, "max_start_offset_rad"),
        ({"max_chunks": 1, "approach": 1.5}, "approach"),
        ({"max_chunks": 1, "smoothing": "wavelets"}, "unknown smoothing"),
        ({"max_chunks": 1, "end": "dance"}, "unknown end"),
    ],
)
def test_parameters_that_do_not_fit(arm: ClockworkArm, options: dict, part: str) -> None:
    with pytest.raises(UserError, match=part):
        run_episode(arm, HoldPolicy(CARD), "x", **options)
    assert len(arm.sent) == 0


def test_a_chunk_of_another_robot_is_refused(arm: ClockworkArm) -> None:
    class Foreign(Counting):
        def act(self) -> ActionChunk:
            return ActionChunk(np.zeros((16, 8), np.float32), 15.0)

    with pytest.raises(UserError, match=r"shape \[16, 8\]"):
        run_episode(arm, Foreign(), "x", max_chunks=1)


def test_the_log_is_plain_json(arm: ClockworkArm, tmp_path) -> None:
    import json

    actions = np.zeros((32, 6))
    actions[3, 2] = np.nan
    log = run_episode(arm, ReplayPolicy(CARD, actions), "x", max_chunks=2)
    log.save(tmp_path / "log.json")
    data = json.loads((tmp_path / "log.json").read_text())
    assert data["summary"]["chunks"] == 2
    assert len(data["sent"]) == 32
    assert data["ended"] == "done"
    assert data["wanted"][3][2] is None


def test_thread_thinker_passes_on_answers_and_errors() -> None:
    chunk = ActionChunk(np.zeros((1, 1), np.float32), 15.0)
    thinker = ThreadThinker()

    def wait():
        while thinker.busy:
            if (answer := thinker.poll()) is not None:
                return answer
        return None

    thinker.submit(lambda: chunk)
    assert wait().chunk is chunk
    thinker.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wait()
    assert not thinker.busy


def test_inline_thinker_takes_its_time() -> None:
    from dreamzero.robots.clock import ManualClock

    clock = ManualClock()
    thinker = InlineThinker(clock, latency_s=1.0)
    thinker.submit(lambda: ActionChunk(np.zeros((1, 1), np.float32), 15.0))
    assert thinker.poll() is None
    assert thinker.busy
    clock.advance(1.0)
    assert thinker.poll() is not None
    assert not thinker.busy


def test_threads_started_in_a_punctual_one_are_ordinary() -> None:
    import os
    import threading

    from dreamzero.robots.clock import punctual

    seen = []
    before = os.sched_getscheduler(0)
    with punctual() as granted:
        inside = os.sched_getscheduler(0)
        thread = threading.Thread(target=lambda: seen.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
    assert seen == [before]
    assert os.sched_getscheduler(0) == before
    assert (inside != before) == granted


def test_a_punctual_process_and_its_threads() -> None:
    import subprocess
    import sys

    code = (
        "import os, threading; from dreamzero.robots.clock import punctual_process\n"
        "granted, seen = punctual_process(), []\n"
        "thread = threading.Thread(target=lambda: seen.append(os.sched_getscheduler(0)))\n"
        "thread.start(); thread.join()\n"
        "print(granted == (seen[0] == os.SCHED_RR))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
