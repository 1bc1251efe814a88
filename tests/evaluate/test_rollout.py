"""Closed-loop evaluation with the baselines, whose outcome is known."""

from __future__ import annotations

import pytest

from dreamzero.errors import UserError
from dreamzero.evaluate import evaluate


def test_baselines_bracket_every_policy() -> None:
    hold = evaluate("hold", episodes=4, workers=1, progress=False)
    expert = evaluate("expert", episodes=4, workers=1, progress=False, keep_videos=1)
    assert hold.success.value == 0
    assert hold.episodes[0].chunks == 6
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


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"suite": "unknown"}, "unknown suite 'unknown'; known: seen"),
        ({"episodes": 0}, "at least 1"),
        ({"policy": "nowhere"}, "no such model folder"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(UserError, match=match):
        evaluate(**({"policy": "hold", "progress": False} | arguments))  # type: ignore[arg-type]
