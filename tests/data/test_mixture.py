"""What comes next: every window once an epoch, by shard, by weight, and the same after a resume."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamzero.data.loader import Loader, VideoSource
from dreamzero.data.mixture import Draw, Mixture, Part, split
from dreamzero.data.reader import Dataset
from dreamzero.data.windows import WindowDataset
from dreamzero.embodiments import Embodiment, Field
from dreamzero.errors import UserError

from .recordings import VIEW, write_v3
from .test_windows import wide

CARD = Embodiment(
    name="test",
    robot="arm",
    views=(VIEW,),
    layout="single",
    canvas_px=(16, 40),
    state=(Field("x", 0, 2),),
    action=(Field("x", 0, 2, relative=True),),
    video_hz=7.5,
    action_hz=15.0,
    horizon=16,
)


class Windows:
    """Numbers that lie together in shards of these sizes; two recordings."""

    def __init__(self, *sizes: int) -> None:
        self._shards = [
            (shard % 2, shard // 2) for shard, size in enumerate(sizes) for _ in range(size)
        ]

    def __len__(self) -> int:
        return len(self._shards)

    def shard(self, index: int) -> tuple[int, int]:
        return self._shards[index]


sizes = st.lists(st.integers(1, 6), min_size=1, max_size=9)


@settings(max_examples=30)
@given(sizes=sizes, batch=st.integers(1, 5), lanes=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_window_comes_once_an_epoch(
    sizes: list[int], batch: int, lanes: int, seed: int
) -> None:
    mixture = Mixture([Part.of(Windows(*sizes), batch)], seed, lanes, open_shards=2)
    seen: dict[int, Counter[int]] = {}
    # Lanes go at their own pace: an epoch is over once every lane has left it.
    for _ in range(40 * (sum(sizes) // batch + 1)):
        draw = next(mixture)
        for index, epoch in zip(draw.indices, draw.epochs, strict=True):
            seen.setdefault(epoch, Counter())[index] += 1
    assert max(max(counts.values()) for counts in seen.values()) == 1
    assert len(seen[0]) == sum(sizes) and len(seen[1]) == sum(sizes)


@settings(max_examples=20)
@given(sizes=sizes, steps=st.integers(0, 40), more=st.integers(1, 20), seed=st.integers(0, 9))
def test_a_state_goes_on_exactly(sizes: list[int], steps: int, more: int, seed: int) -> None:
    def made() -> Mixture:
        parts = [
            Part.of(Windows(*sizes), 3, begin=0.4),
            Part.of(Windows(*sizes, 4), 2, weight=2.5),
        ]
        return Mixture(parts, seed, lanes=2)

    mixture = made()
    for _ in range(steps):
        next(mixture)
    state = json.loads(json.dumps(mixture.state_dict()))
    went_on = [next(mixture)[:3] for _ in range(more)]
    again = made()
    again.load_state_dict(state)
    assert [next(again)[:3] for _ in range(more)] == went_on
    assert again.state_dict() == mixture.state_dict()


def test_windows_of_a_shard_come_close_together() -> None:
    windows = Windows(*[8] * 40)
    mixture = Mixture([Part.of(windows, 4)], lanes=2, open_shards=3)
    last: dict[tuple[int, int], int] = {}
    first: dict[tuple[int, int], int] = {}
    for step in range(80):
        for index in next(mixture).indices:
            first.setdefault(windows.shard(index), step)
            last[windows.shard(index)] = step
    spans = [last[s] - first[s] for s in first]
    assert np.mean(spans) < 20  # of 80 steps: three shards of eight windows, four at a time


def test_a_shard_is_opened_once_with_all_its_windows() -> None:
    mixture = Mixture([Part.of(Windows(3, 4, 5), 2)], lanes=1)
    opened = [i for _ in range(6) for own in next(mixture).opened for i in own]
    assert sorted(opened[:12]) == list(range(12))
    resumed = Mixture(mixture.parts, lanes=1)
    resumed.load_state_dict(mixture.state_dict())
    left = [own for own in next(resumed).opened]
    assert left and all(own for own in left)


def test_weights_decide_the_turns() -> None:
    parts = [Part.of(Windows(9), 2, weight=w) for w in (1.0, 3.0, 0.5)]
    turns = Counter(next_.part for next_ in (draw for draw, _ in zip(Mixture(parts), range(900))))
    assert turns == {0: 200, 1: 600, 2: 100}
    # Every lane has its share of every part, or some shards would never come.
    mixture = Mixture(parts[:2], lanes=2)
    pairs = {(step % 2, next(mixture).part) for step in range(20)}
    assert pairs == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_ranks_share_one_order() -> None:
    parts = [Part.of(Windows(3, 4, 5, 2), 2)]
    whole = Mixture(parts, seed=3)
    ranks = [Mixture(parts, seed=3, rank=r, world=2) for r in range(2)]
    for _ in range(12):
        for rank in ranks:
            assert next(rank)[:3] == next(whole)[:3]
    assert ranks[0].state_dict() == ranks[1].state_dict() == whole.state_dict()


def test_another_seed_is_another_order() -> None:
    parts = [Part.of(Windows(9, 9, 9), 4)]
    first, second = (next(Mixture(parts, seed)).indices for seed in (0, 1))
    assert first != second and first == next(Mixture(parts, 0)).indices


def test_a_share_begins_episodes() -> None:
    mixture = Mixture([Part.of(Windows(5, 5, 5), 8, begin=0.5)])
    for _ in range(10):
        assert set(next(mixture).indices[4:]) <= {0, 5, 10}


def test_the_last_episodes_of_every_recording_are_held_out() -> None:
    windows = Windows(2, 3, 2, 3, 2, 3, 2, 3)  # recording 0: 2s, recording 1: 3s
    train, held = split(windows, 0.25)
    assert {windows.shard(i) for i in held} == {(0, 3), (1, 3)}
    assert sorted(train + held) == list(range(len(windows)))
    assert split(Windows(4), 0.5) == ([0, 1, 2, 3], [])
    kept = Part.of(windows, 2, keep=train)
    assert sorted(i for own in kept.shards for i in own) == train


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Mixture([]), "at least one part"),
        (lambda: Mixture([Part.of(Windows(3), 1)], lanes=3, world=2), "do not divide among 2 ranks"),
        (lambda: Part.of(Windows(), 1), "holds no windows"),
        (lambda: Part.of(Windows(2), 0), "needs batch >= 1"),
        (lambda: Part.of(Windows(2), 1, weight=0), "weight > 0"),
    ],
)  # fmt: skip
def test_misfits_are_named(make: object, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()  # type: ignore[operator]


def test_a_state_of_other_data_is_refused() -> None:
    state = Mixture([Part.of(Windows(3, 4), 2)]).state_dict()
    for other in (
        Mixture([Part.of(Windows(3, 5), 2)]),
        Mixture([Part.of(Windows(3, 4), 1)]),
        Mixture([Part.of(Windows(3, 4), 2)], seed=1),
        Mixture([Part.of(Windows(3, 4), 2)], lanes=2),
    ):
        with pytest.raises(UserError, match="the data differ from those of the saved run"):
            other.load_state_dict(state)


# --- batches ---


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("m") / "d"
    write_v3(root, [65, 130, 80, 90], fps=15, width=2)
    return Dataset.open(root)


def loader(recording: Dataset, workers: int = 0) -> Loader:
    cuts = [WindowDataset(recording, CARD, wide(), blocks=b, stride=4) for b in (2, 1)]
    parts = [Part.of(cuts[0], 2), Part.of(cuts[1], 3, weight=2)]
    return Loader(Mixture(parts, seed=7, lanes=2), [VideoSource(c) for c in cuts], workers)


def test_a_batch_is_its_windows(recording: Dataset) -> None:
    windows = WindowDataset(recording, CARD, wide(), blocks=2)
    batch = VideoSource(windows).fetch(Draw(0, [3, 0], [0, 0], [[0, 1]]))
    assert batch.video.shape == (2, 17, 16, 40, 3) and batch.video.dtype == torch.uint8
    assert batch.prompt == [windows[3].prompt, windows[0].prompt]
    for name in ("video", "action", "state", "action_mask", "frame_mask"):
        for row, number in enumerate((3, 0)):
            np.testing.assert_array_equal(
                getattr(batch, name)[row].numpy(), getattr(windows[number], name)
            )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_nothing_and_a_resume_is_exact(recording: Dataset, workers: int) -> None:
    torch.manual_seed(0)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    own = loader(recording, workers)
    for _ in range(5):
        next(own)
    state = own.state_dict()
    later = [next(own) for _ in range(4)]
    own.close()
    assert torch.equal(torch.rand(3), drawn)  # the global generator is left alone
    again = loader(recording, 0)
    again.load_state_dict(state)
    for (part, batch), (same, copy) in zip(later, again, strict=False):
        assert part == same and batch.prompt == copy.prompt
        assert torch.equal(batch.video, copy.video)
        assert torch.equal(batch.action, copy.action) and torch.equal(batch.state, copy.state)


def test_every_frame_is_decoded_once(recording: Dataset) -> None:
    windows = WindowDataset(recording, CARD, wide(), blocks=2, stride=1)
    mixture = Mixture([Part.of(windows, 4)], lanes=1)
    source = VideoSource(windows)
    for _ in range(len(windows) // 4):
        source.fetch(next(mixture))
    shown = {(windows.shard(i), r) for i in range(len(windows)) for r in windows.shown(i).tolist()}
    assert windows.frames.decoded == len(shown) < windows.frames.asked / 5


def test_loaders_that_cannot_be(recording: Dataset) -> None:
    windows = WindowDataset(recording, CARD, wide())
    mixture = Mixture([Part.of(windows, 1)])
    with pytest.raises(UserError, match="need as many sources"):
        Loader(mixture, [])
    with pytest.raises(UserError, match="do not divide among 3 workers"):
        Loader(mixture, [VideoSource(windows)], workers=3)
