"""Which windows a step takes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from dreamzero.data.mixture import EPISODES, Feed, Mixture
from dreamzero.errors import UserError
from dreamzero.train.config import Source
from dreamzero.train.latents import LatentWindows
from tests.train.toys import QUICK, windows


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
    assert not all(
        torch.equal(ahead.draw(s).index, Mixture(feeds(), 4, [1, 1, 2, 2]).draw(s).index)
        for s in range(4)
    )


def test_nothing_to_draw_from() -> None:
    with pytest.raises(UserError, match="nothing to train on"):
        Mixture([])
    with pytest.raises(UserError, match="are held out: lower train.validation"):
        Mixture([Feed(QUICK.full, windows(4), validation=1.0)])


# --- by episode ---


def shuffled(given: list[Feed], seed: int = 0, weights: list[float] | None = None) -> Mixture:
    return Mixture(given, seed, weights, shuffle="episodes", open_episodes=2)


def long_episodes(count: int, each: int = 6, blocks: int = 2) -> LatentWindows:
    found = windows(count * each, blocks)
    found.episode = torch.arange(count * each) // each
    return found


def test_by_episode_every_window_comes_once_an_epoch() -> None:
    feed = Feed(Source(blocks=2, batch=4), long_episodes(9), 0.1)
    mixture = Mixture([feed], shuffle="episodes", open_episodes=4, lanes=1)
    seen = torch.cat([mixture.draw(step).index for step in range(24)])  # two epochs of 48
    for epoch in seen.split(48):
        assert sorted(epoch.tolist()) == feed.train.tolist()
    for step in range(24):
        draw = mixture.draw(step)
        assert draw.index.tolist() == sorted(draw.index.tolist())
        assert draw.visits is not None
        assert len(set(draw.visits.tolist())) <= 2  # groups
        assert len(set(feed.windows.episode[draw.index].tolist())) <= 4


@pytest.mark.parametrize("kinds", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_episode_is_read_in_one_lane_until_it_is_left(kinds: int, weighted: bool) -> None:
    """So that a worker that has a lane for itself decodes it once."""
    given = [
        Feed(Source(blocks=blocks, batch=3), long_episodes(7, blocks=blocks), 0.1)
        for blocks in range(1, kinds + 1)
        for _ in range(1 + weighted)
    ]
    mixture = shuffled(given, 5, [1.0, 2.0] * kinds if weighted else None)
    lanes: dict[tuple[int, int], set[int]] = {}
    for step in range(600):
        draw = mixture.draw(step)
        feed = next(i for i, feed in enumerate(given) if feed.windows is draw.windows)
        assert draw.visits is not None
        for visit in draw.visits.tolist():
            lanes.setdefault((feed, visit), set()).add(step % 4)
    assert all(len(own) == 1 for own in lanes.values())
    counts = Counter(feed for feed, _ in lanes)
    assert set(counts) == set(range(len(given)))


def test_by_episode_a_step_is_decided_by_seed_and_step_alone() -> None:
    def made(seed: int) -> Mixture:
        return shuffled([*feeds()], seed, [1, 1, 2, 2])

    ahead, behind = made(3), made(3)
    for step in (90, 17, 18, 0, 55):
        late, again = ahead.draw(step), behind.draw(step)
        assert torch.equal(late.index, again.index)
        assert late.windows.embodiment == again.windows.embodiment
        behind.draw(40)
    assert not all(torch.equal(ahead.draw(s).index, made(4).draw(s).index) for s in range(4))


def test_by_episode_weights_and_begins_hold() -> None:
    given = feeds()
    mixture = shuffled(given, 1, [1, 1, 3, 3])
    drawn = [given.index(feed_of(mixture)(step)) for step in range(1000)]
    assert all(i in (0, 2) for i in drawn[::2]) and all(i in (1, 3) for i in drawn[1::2])
    assert sum(i >= 2 for i in drawn) / 1000 == pytest.approx(0.75, abs=0.01)
    # Recordings, three times as often though there are half as many windows of the second.
    feed = Feed(Source(blocks=2, batch=8), two_recordings(), 0.25, weights=[1, 3])
    mixture = shuffled([feed])
    found = torch.cat([mixture.draw(step).index for step in range(200)])
    assert (found >= 16).float().mean().item() == pytest.approx(0.75, abs=0.01)
    assert set(found.tolist()) == set(feed.train.tolist())
    counts = Counter(found[found >= 16].tolist())
    assert max(counts.values()) - min(counts.values()) <= 8  # lanes at their own pace
    feed = Feed(Source(blocks=2, batch=8, begin=0.5), long_episodes(4), 0.25)
    mixture = shuffled([feed])
    for step in range(20):
        draw = mixture.draw(step)
        assert draw.visits is not None
        alone = draw.index[draw.visits < 0]
        assert len(alone) == 4 and set(alone.tolist()) <= set(feed.begins.tolist())
    feed = Feed(Source(blocks=2, batch=2, begin=1.0), long_episodes(4), 0.25)
    assert set(shuffled([feed]).draw(3).index.tolist()) <= {0, 6, 12}


def test_nothing_need_be_held_out() -> None:
    feed = Feed(QUICK.full, windows(8), validation=None)
    assert len(feed.train) == 8 and not len(feed.held_out)
