"""Closed-loop evaluation with the baselines, whose outcome is known."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dreamzero import embodiments
from dreamzero.data.reader import Dataset
from dreamzero.errors import UserError
from dreamzero.evaluate import evaluate, record_corrections, rollout
from dreamzero.robots.policies import HoldPolicy
from dreamzero.sim import Tabletop, sample_scene

CARD = embodiments.get("tabletop_so101")


def test_baselines_bracket_every_policy() -> None:
    hold = evaluate("hold", episodes=4, workers=1, progress=False)
    expert = evaluate("expert", episodes=4, workers=1, progress=False, keep_videos=1)
    assert hold.success.value == 0
    assert hold.episodes[0].chunks == 128 // 8
    assert expert.success.value == 1
    assert [e.task for e in hold.episodes] == [e.task for e in expert.episodes]
    assert [e.instruction for e in hold.episodes] == [e.instruction for e in expert.episodes]
    video = expert.episodes[0].video
    assert video is not None
    assert video.shape == (1 + 8 * expert.episodes[0].chunks, 64, 64, 3)
    assert expert.episodes[1].video is None
    assert expert.progress.value > hold.progress.value
    assert sum(rate.n for rate in expert.by_verb().values()) == 4


def test_replaying_another_scene_is_not_enough() -> None:
    replay = evaluate("replay", episodes=6, workers=1, progress=False)
    assert replay.success.value < 1


class Watching(HoldPolicy):
    """Holds still and notes how many frames it is shown."""

    def __init__(self) -> None:
        super().__init__(CARD)
        self.shown: list[int] = []

    def observe(self, frames: Mapping[str, np.ndarray], state: np.ndarray) -> None:
        super().observe(frames, state)
        self.shown.append(len(frames["front"]))


@pytest.mark.parametrize(
    ("execute_steps", "shown"), [(None, [1, 8, 8]), (8, [1, 8, 8]), (4, [1] * 6), (2, [1] * 12)]
)
def test_what_is_seen_follows_what_is_executed(execute_steps: int | None, shown: list[int]) -> None:
    policy = Watching()
    with closing(Tabletop("so101")) as env:
        episode = rollout(
            env,
            policy,
            sample_scene("seen", 5),
            5,
            CARD,
            max_steps=23,
            execute_steps=execute_steps,
            keep_video=True,
        )
    assert policy.shown == shown
    assert episode.chunks == len(shown)
    assert episode.video is not None
    assert len(episode.video) == 1 + episode.chunks * (execute_steps or 8)


@pytest.mark.parametrize("execute_steps", [-1, 0, 9])
def test_frames_are_whole(execute_steps: int) -> None:
    with pytest.raises(UserError, match=f"execute_steps={execute_steps}"):
        evaluate("hold", episodes=1, progress=False, execute_steps=execute_steps)


def test_corrections_start_where_the_policy_went(tmp_path: Path) -> None:
    options = {"seed": 3, "executions": (2, 2), "execute_steps": 8, "progress": False}
    root = record_corrections(tmp_path / "a", "tiny_so101", 3, **options)  # type: ignore[arg-type]
    again = record_corrections(tmp_path / "b", "tiny_so101", 3, **options)  # type: ignore[arg-type]
    dataset, other = Dataset.open(root), Dataset.open(again)
    assert len(dataset.episodes) == 3
    starts = []
    with closing(Tabletop("so101", views=())) as env:
        for seed in range(403_000_000, 403_000_020):
            env.reset_quietly(sample_scene("seen", seed))
            starts.append(env.state())
    for episode in range(3):
        rows, repeated = dataset.rows(episode), other.rows(episode)
        np.testing.assert_array_equal(rows["action"], repeated["action"])
        moved = np.abs(np.stack(starts) - rows["state"][0]).max(1)
        assert moved.min() > 0.05  # rad, from every scene's first pose


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"suite": "unknown"}, "unknown suite 'unknown'; known: seen"),
        ({"episodes": 0}, "at least 1"),
        ({"robot": "hand"}, "arms of the tabletop are so101, franka, ur5e"),
        ({"workers": 0}, "--workers 0"),
        ({"together": 0}, "--together 0"),
        ({"policy": "nowhere"}, "no such model folder"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(UserError, match=match):
        evaluate(**({"policy": "hold", "progress": False} | arguments))  # type: ignore[arg-type]
