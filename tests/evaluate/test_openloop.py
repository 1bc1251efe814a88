"""Open-loop figures: an oracle, a robot that holds still, and dreams whose error is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dreamzero import embodiments
from dreamzero.data.reader import Dataset
from dreamzero.errors import UserError
from dreamzero.evaluate.openloop import (
    OpenLoop,
    Prediction,
    bootstrap,
    held_out,
    joint_columns,
    open_loop,
    recorded,
)
from dreamzero.inference import WorldActionPolicy
from dreamzero.types import ActionChunk

CARD = embodiments.get("tabletop_so101")


class Known:
    """A policy that answers ``state + share`` of the recorded motion (0.1 rad a row)."""

    dream = False
    card = CARD

    def __init__(self, share: float) -> None:
        self.share = share
        self.seen: list[int] = []

    def reset(self, prompt: str) -> None:
        assert prompt == "go right"

    def observe(self, frames: dict[str, np.ndarray], state: np.ndarray) -> None:
        self.seen.append(len(frames[CARD.views[0]]))
        self.state = state

    def act(self) -> ActionChunk:
        motion = 0.1 * (1 + np.arange(CARD.horizon))[:, None] * np.ones(CARD.action_dim)
        motion[:, -1] = 0
        actions = (self.state + self.share * motion).astype(np.float32)
        return ActionChunk(actions, CARD.action_hz, info={"seconds": 0.5})


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_ratio_is_one_for_holding_and_zero_for_the_truth(recording: Dataset, share: float) -> None:
    known: Any = Known(share)
    result = open_loop(known, recording)
    assert len(result.chunks) == 6 * CARD.blocks and known.seen[:4] == [1, 8, 8, 8]
    ratio, error = result.action_ratio(), result.action_error_rad()
    assert ratio.value == pytest.approx(1 - share, abs=1e-4) and ratio.n == 6
    assert error.value == pytest.approx(0.8 * (1 - share), abs=1e-3)
    assert ratio.low <= ratio.value <= ratio.high
    assert result.seconds == 0.5


def test_pairs_are_told_apart(recording: Dataset) -> None:
    slow: Any
    fast: Any
    slow, fast = Known(0.2), Known(0.7)
    difference = open_loop(fast, recording).minus(open_loop(slow, recording))
    assert difference.value == pytest.approx(-0.5, abs=1e-4) and difference.high < 0
    with pytest.raises(ValueError, match="other chunks"):
        open_loop(fast, recording).minus(open_loop(slow, recording, [0, 1]))


def test_what_is_recorded_is_what_the_card_says(recording: Dataset) -> None:
    past = recorded(recording, CARD, 2)
    assert past.video.shape == (33, 64, 64, 3) and past.action.shape == (4, 8, 6)
    np.testing.assert_allclose(past.state[:, 0], 2 + 0.8 * np.arange(4), atol=1e-5)
    np.testing.assert_allclose(past.action[1, :, 0], 2 + 0.1 * np.arange(9, 17), atol=1e-5)
    hand = embodiments.get("tabletop_hand")
    with pytest.raises(UserError, match="video only"):
        recorded(recording, hand, 0)


def _chunk(dream: np.ndarray, episode: int = 0) -> Prediction:
    still = np.full((8, 16, 16, 3), 100, np.uint8)
    true = still.copy()
    true[:, :4] = 200
    nothing = np.zeros((16, 6), np.float32)
    return Prediction(
        episode, 0, nothing, nothing, nothing[0], true, still[0], 0.0, dream=dream, codec=true
    )


def test_psnr_of_known_dreams() -> None:
    still = np.full((8, 16, 16, 3), 100, np.uint8)
    result = OpenLoop(CARD, [_chunk(still)])
    # A quarter of the pixels is off by 100.
    everywhere = 10 * np.log10(255**2 / (100**2 / 4))
    assert result.psnr("dream").value == pytest.approx(everywhere)
    assert result.psnr("repeat", moving=True, frame=3).value == pytest.approx(
        10 * np.log10(255**2 / 100**2)
    )
    assert result.psnr("codec").value > 100
    assert result.dream_gain_db().value == pytest.approx(0)
    half = still.copy()
    half[:, :4] = 150
    better = OpenLoop(CARD, [_chunk(half), _chunk(half, 1)])
    assert better.dream_gain_db(moving=True).value == pytest.approx(20 * np.log10(2))
    worse = OpenLoop(CARD, [_chunk(still), _chunk(still, 1)])
    assert better.dream_minus(worse).value == pytest.approx(20 * np.log10(2))
    standing = replace(_chunk(half), true=still)
    assert np.isnan(OpenLoop(CARD, [standing]).psnr("dream", moving=True).value)
    with pytest.raises(ValueError, match="dream=True"):
        OpenLoop(CARD, [replace(_chunk(still), dream=None)]).psnr("dream")


def test_an_untrained_model_dreams_worse_than_standing_still(
    recording: Dataset, policy: WorldActionPolicy
) -> None:
    result = open_loop(policy, recording, [0, 1])
    assert {c.block for c in result.chunks} == {0, 1, 2, 3}
    assert all(c.dream is not None and c.dream.shape == c.true.shape for c in result.chunks)
    assert result.dream_gain_db().high < 0
    np.testing.assert_array_equal(result.chunks[0].last, recorded(recording, CARD, 0).video[0])


def test_bootstrap_draws_groups_together() -> None:
    groups = np.repeat(np.arange(10), 20)
    values = groups / 9.0
    alike = bootstrap(values, np.ones(200), groups, np.divide)
    single = bootstrap(values, np.ones(200), np.arange(200), np.divide)
    assert (alike.value, single.value) == (pytest.approx(0.5), pytest.approx(0.5))
    assert alike.high - alike.low > 3 * (single.high - single.low)
    assert (alike.n, single.n) == (10, 200)
    alone = bootstrap(values, np.ones(200), np.zeros(200), np.divide)
    assert alone.n == 1 and np.isnan([alone.low, alone.high]).all()


def test_held_out_are_the_last(recording: Dataset) -> None:
    assert held_out(recording, 0.3) == [4, 5]
    assert held_out(recording, 0.0) == [5]


def test_joints_leave_the_gripper_out() -> None:
    columns, anchors = joint_columns(embodiments.get("tabletop_franka"))
    assert columns.tolist() == anchors.tolist() == list(range(7))
    with pytest.raises(UserError, match="no joint"):
        joint_columns(embodiments.get("tabletop_hand"))
