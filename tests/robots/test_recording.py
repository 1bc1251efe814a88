"""A run becomes an episode: rows on a grid, what was sent, and timing beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dreamzero import robots
from dreamzero.data.check import check
from dreamzero.data.reader import Dataset
from dreamzero.errors import UserError
from dreamzero.robots import HoldPolicy, ReplayPolicy, run_episode
from dreamzero.robots.recording import rows
from dreamzero.robots.spool import Spool

from .conftest import CARD, VIEW, ClockworkArm, PtyArm
from .test_loop import STEP_S, Counting


def test_rows_are_what_was_seen_and_sent(arm: ClockworkArm, tmp_path: Path) -> None:
    policy = Counting(rate=0.005)
    log = run_episode(arm, policy, "touch the red block", max_chunks=3, record=tmp_path / "d")
    data = Dataset.open(tmp_path / "d")
    assert (data.fps, len(data.episodes), data.tasks) == (15.0, 1, ["touch the red block"])
    episode = data.rows(0)
    assert len(episode["action"]) == 3 * CARD.horizon
    np.testing.assert_array_equal(episode["action"], log.sent)
    # Half the rate for pictures: each stays for two rows. This arm is at once where it is sent.
    places = data.frames(0, VIEW)[:, 0, 0, 0].astype(int)
    np.testing.assert_allclose(places, np.arange(48) // 2, atol=2)
    # (At a boundary it is read before the next chunk's first command.)
    state, action = (np.delete(episode[key], [16, 32], axis=0) for key in ("state", "action"))
    np.testing.assert_allclose(state, action, atol=1e-6)
    assert data.episodes[0].extras["ended"] == "done"
    timing = json.loads((tmp_path / "d/timing/episode_000000.json").read_text())
    assert timing["due_s"] == log.due_s.tolist()
    assert len(timing["chunks"]) == 3
    # What it was before does not matter to how the policy was shown things.
    assert [len(s) for s in policy.seen] == [1, 8, 8]


def test_limits_not_wishes_are_recorded(arm: ClockworkArm, tmp_path: Path) -> None:
    actions = np.zeros((16, 6))
    actions[5] = 99.0
    actions[7, 1] = np.nan
    log = run_episode(arm, ReplayPolicy(CARD, actions), "x", max_chunks=1, record=tmp_path / "d")
    action = Dataset.open(tmp_path / "d").rows(0)["action"]
    np.testing.assert_array_equal(action, log.sent)
    assert np.isfinite(action).all()
    assert action.max() <= CARD.velocity[5] * 2 * STEP_S


def test_pauses_keep_their_pictures(arm: ClockworkArm, tmp_path: Path) -> None:
    """While the arm holds and the model thinks, the cameras go on."""
    log = run_episode(
        arm, Counting(), "x", max_chunks=2, latency_s=8 * STEP_S, record=tmp_path / "d"
    )
    places = Dataset.open(tmp_path / "d").frames(0, VIEW)[:, 0, 0, 0].astype(int)
    assert len(places) == len(log.sent_s)
    # A new picture every other row, also in the pauses; a lossy codec may be two off.
    assert np.abs(np.diff(places[::2])).max() < 8
    assert places[-1] >= len(places) // 2 - 4
    assert len(log.frames[VIEW]) < len(places) // 2


def test_many_commands_a_row_and_deadlines_lost(arm: ClockworkArm, tmp_path: Path) -> None:
    arm.cost_s = 0.015
    actions = np.repeat(np.linspace(0.02, 0.32, 16)[:, None], 6, axis=1)
    log = run_episode(
        arm, ReplayPolicy(CARD, actions), "x", max_chunks=1, stream_hz=60.0, record=tmp_path / "d"
    )
    assert log.missed == 0
    action = Dataset.open(tmp_path / "d").rows(0)["action"]
    # A row is a step of the card: the target that its last command reached.
    np.testing.assert_allclose(action, actions, atol=1e-6)


def test_the_grid_has_no_holes(arm: ClockworkArm, tmp_path: Path) -> None:
    arm.outage_s = (100 + 5.5 * STEP_S, 100 + 9.5 * STEP_S)
    log = run_episode(arm, Counting(), "x", max_chunks=1)
    spool = Spool(tmp_path)
    spool.add(0.0, {VIEW: np.zeros((4, 4, 3), np.uint8)})
    frames, state, action = rows(log, spool, 15.0)
    count = round(log.due_s[-1] / STEP_S) + 1
    assert frames[VIEW].shape == (count, 4, 4, 3)
    assert len(state) == len(action) == count > len(log.sent_s)
    spool.close()


def test_the_next_run_is_the_next_episode(tmp_path: Path) -> None:
    for seed, task in enumerate(("reach-red", "push-red-left", "reach-red")):
        uri = f"sim://so101?task={task}&seed={seed}"
        with robots.open(uri, CARD) as arm:
            words = arm.instruction  # type: ignore[attr-defined]
            run_episode(arm, HoldPolicy(CARD), words, max_chunks=1, record=tmp_path / "d")
    data = Dataset.open(tmp_path / "d")
    assert [len(data.rows(i)["action"]) for i in range(3)] == [CARD.horizon] * 3
    assert data.episodes[0].task != data.episodes[1].task
    assert [e.extras["success"] for e in data.episodes] == [False] * 3
    assert sorted(p.name for p in (tmp_path / "d/timing").iterdir()) == [
        f"episode_00000{i}.json" for i in range(3)
    ]
    # Nothing moved, which is found; nothing else is wrong.
    assert {f.name for f in check(data, CARD) if f.level != "note"} <= {"idle", "action-is-state"}
    assert not [p for p in tmp_path.iterdir() if p.name != "d"]


def test_another_arm_does_not_fit_and_nothing_is_moved(arm: ClockworkArm, tmp_path: Path) -> None:
    run_episode(arm, HoldPolicy(CARD), "x", max_chunks=1, record=tmp_path / "d")
    before = len(arm.sent)
    arm.features = robots.Features.from_card(CARD, {VIEW: (8, 8)})
    with pytest.raises(UserError, match="has other columns"):
        run_episode(arm, HoldPolicy(CARD), "x", max_chunks=1, record=tmp_path / "d")
    assert len(arm.sent) == before


def test_a_run_that_breaks_is_recorded_as_far_as_it_came(arm: ClockworkArm, tmp_path: Path) -> None:
    class Broken(Counting):
        def act(self):
            if self.chunks == 1:
                raise ZeroDivisionError("in the model")
            return super().act()

    with pytest.raises(ZeroDivisionError):
        run_episode(arm, Broken(), "x", max_chunks=3, record=tmp_path / "d")
    data = Dataset.open(tmp_path / "d")
    assert data.episodes[0].extras["ended"] == "error"
    assert len(data.rows(0)["action"]) == CARD.horizon


def test_a_run_that_never_began_leaves_no_dataset(arm: ClockworkArm, tmp_path: Path) -> None:
    arm.outage_s = (0.0, np.inf)
    log = run_episode(
        arm, HoldPolicy(CARD), "x", max_chunks=1, record=tmp_path / "d", reconnect_s=0
    )
    assert log.ended == "fault"
    assert not list(tmp_path.iterdir())


def test_an_arm_without_cameras_over_its_wire(pty_arm: PtyArm, tmp_path: Path) -> None:
    arm = robots.open(f"serial://{pty_arm.wire.port}", CARD)
    log = run_episode(arm, HoldPolicy(CARD), "hold", max_chunks=1, record=tmp_path / "d")
    assert log.ended == "done", log.fault
    data = Dataset.open(tmp_path / "d")
    assert data.views == {}
    assert data.episodes[0].extras["moved"]
    assert data.action_names[0] == "shoulder_pan"
