"""Which windows a step takes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from dreamzero.errors import UserError
from dreamzero.train.config import Source
from dreamzero.train.latents import EPISODES, LatentWindows
from dreamzero.train.mixture import Feed, Mixture

from .toys import QUICK, windows


def test_held_out_episodes_are_not_trained_on() -> None:
    feed = Feed(QUICK.full, windows(), validation=0.25)
    assert len(feed.held_out) == 6
    drawn = feed.draw(torch.Generator().manual_seed(0))
    assert not set(drawn.tolist()) & set(feed.held_out.tolist())


def test_a_share_of_a_batch_begins_episodes() -> None:
    given = windows(24)
    given.episode = torch.arange(24) // 6
    feed = Feed(Source(blocks=2, batch=8, begin=0.5), given, validation=0.25)
    assert feed.begins.tolist() == [0, 6, 12] and len(feed.held_out) == 6
    drawn = feed.draw(torch.Generator().manual_seed(0)).tolist()
    assert len(drawn) == 8 and set(drawn[4:]) <= {0, 6, 12} and max(drawn) < 18


def two_recordings() -> LatentWindows:
    one, two = windows(16), windows(8)
    two.prompts = ["go right", "stay"]
    two.episode += EPISODES
    tensors = {name: torch.cat([tensor, two.tensors[name]]) for name, tensor in one.tensors.items()}
    tensors["prompt"][16:] += 1  # of the three prompts of both
    return LatentWindows(**tensors, prompts=["go left", *two.prompts], embodiment=one.embodiment)


def test_every_recording_holds_some_out() -> None:
    joined = two_recordings()
    assert joined.batch(torch.tensor([1, 16, 17])).prompt == ["go right", "go right", "stay"]
    feed = Feed(QUICK.full, joined, validation=0.25)
    assert feed.held_out.tolist() == [12, 13, 14, 15, 22, 23]
    joined.recordings = ["a", "b"]
    assert joined.where(18) == "b, episode 2, frame 20"


def test_recordings_are_drawn_by_weight() -> None:
    """Three times as often, though there are half as many windows of it."""
    feed = Feed(Source(blocks=2, batch=4000), two_recordings(), 0.25, weights=[1, 3])
    drawn = feed.draw(torch.Generator().manual_seed(0))
    assert (drawn >= 16).float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert not set(drawn.tolist()) & set(feed.held_out.tolist())
    counts = Counter(drawn.tolist())
    assert set(counts) == set(feed.train.tolist())


def feeds() -> list[Feed]:
    found = []
    for name in ("tabletop_so101", "tabletop_hand"):
        for blocks in (2, 1):
            found.append(Feed(Source(blocks=blocks, batch=2), windows(16, blocks, name), 0.25))
    return found


def test_robots_and_kinds_take_turns() -> None:
    given = feeds()
    mixture = Mixture(given)
    assert [given.index(f) for f in map(feed_of(mixture), range(8))] == [0, 1, 2, 3] * 2


def test_robots_are_drawn_by_weight_and_kinds_take_turns() -> None:
    given = feeds()
    mixture = Mixture(given, seed=1, weights=[1, 1, 3, 3])
    drawn = [given.index(feed_of(mixture)(step)) for step in range(1000)]
    assert all(i in (0, 2) for i in drawn[::2]) and all(i in (1, 3) for i in drawn[1::2])
    assert sum(i >= 2 for i in drawn) / 1000 == pytest.approx(0.75, abs=0.05)


def feed_of(mixture: Mixture):  # type: ignore[no-untyped-def]
    def find(step: int) -> Feed:
        windows = mixture.draw(step).windows
        return next(feed for feed in mixture.feeds if feed.windows is windows)

    return find


def test_a_step_is_decided_by_seed_and_step_alone() -> None:
    ahead, behind = Mixture(feeds(), 3, [1, 1, 2, 2]), Mixture(feeds(), 3, [1, 1, 2, 2])
    late = ahead.draw(17)
    for step in range(17):
        behind.draw(step)
    again = behind.draw(17)
    assert torch.equal(late.index, again.index)
    assert late.windows.embodiment == again.windows.embodiment
    assert ahead.state_dict() == {}
    assert not all(
        torch.equal(ahead.draw(s).index, Mixture(feeds(), 4, [1, 1, 2, 2]).draw(s).index)
        for s in range(4)
    )


def test_nothing_to_draw_from() -> None:
    with pytest.raises(UserError, match="nothing to train on"):
        Mixture([])
    with pytest.raises(UserError, match="are held out: lower train.validation"):
        Mixture([Feed(QUICK.full, windows(4), validation=1.0)])
