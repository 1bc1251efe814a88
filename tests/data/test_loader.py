"""Steps read ahead: the same in any number of processes, from any step on, episodes decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from dreamzero.data.canvas import Augmentation
from dreamzero.data.loader import Loader
from dreamzero.data.mixture import Draw, Feed, Mixture
from dreamzero.data.reader import Dataset
from dreamzero.data.recorded import DecodedWindows
from dreamzero.data.windows import WindowBatch, WindowDataset
from dreamzero.errors import UserError
from dreamzero.train.config import Source

from .recordings import write_v3
from .test_windows import CARD, wide


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("m") / "d"
    write_v3(root, [65, 130, 80, 90], fps=15, width=2)
    return Dataset.open(root)


def cut(recording: Dataset, blocks: int = 2, stride: int = 4) -> WindowDataset:
    return WindowDataset(recording, CARD, wide(), blocks=blocks, stride=stride)


def mixture(recording: Dataset, augmentation: Augmentation | None = None) -> Mixture:
    feeds = [
        Feed(Source(blocks, batch), DecodedWindows(cut(recording, blocks), augmentation, 3), None)
        for blocks, batch in ((2, 2), (1, 3))
    ]
    return Mixture(feeds, seed=7, shuffle="episodes", open_episodes=2)


def all_rows(rows: int) -> Sequence[Sequence[int]]:
    return [range(rows)]


def same(one: WindowBatch, two: WindowBatch) -> bool:
    names = ("video", "action", "state", "action_mask", "frame_mask", "has_action")
    return one.prompt == two.prompt and all(
        torch.equal(getattr(one, name), getattr(two, name)) for name in names
    )


def test_windows_know_themselves(recording: Dataset) -> None:
    own = cut(recording)
    windows = DecodedWindows(own)
    assert len(windows) == len(own) and windows.embodiment == "test"
    assert windows.episode.tolist() == [own.shard(i)[1] for i in range(len(own))]
    assert windows.has_action.tolist() == [own[i].has_action for i in range(len(own))]
    assert windows.prompts == sorted({own.prompt(i) for i in range(len(own))})
    assert windows.where(1) == f"{recording.root}, episode 0, frame {own[1].start_row}"
    still = WindowDataset(recording, CARD.with_(has_action=False), wide(), blocks=1)
    assert not DecodedWindows(still).has_action.any() and not still[0].has_action


def test_a_batch_is_its_windows(recording: Dataset) -> None:
    own = cut(recording)
    windows = DecodedWindows(own)
    batch = windows.read(Draw(windows, torch.tensor([5, 3, 0])), [1, 2])  # type: ignore[arg-type]
    assert batch.video.shape == (2, 17, 16, 40, 3) and batch.video.dtype == torch.uint8
    assert same(batch, windows.decode([3, 0]))
    for name in ("video", "action", "state", "action_mask", "frame_mask"):
        for row, number in enumerate((3, 0)):
            np.testing.assert_array_equal(
                getattr(batch, name)[row].numpy(), getattr(own[number], name)
            )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_nothing_and_any_step_can_be_the_first(
    recording: Dataset, workers: int
) -> None:
    wanted = Loader(mixture(recording, Augmentation()), all_rows)
    loader = Loader(mixture(recording, Augmentation()), all_rows, workers)
    torch.manual_seed(0)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    for first in (0, 5):
        loader.start(first, 9)
        for step in range(first, 9):
            taken, own = loader.take(step), wanted.take(step)
            assert torch.equal(taken.draw.index, own.draw.index) and taken.problem is None
            assert same(taken.pieces[0], own.pieces[0])
    loader.close()
    assert torch.equal(torch.rand(3), drawn)  # the global generator is left alone


def test_augmentation_differs_between_steps_and_spares_what_is_held_out(
    recording: Dataset,
) -> None:
    windows = DecodedWindows(cut(recording), Augmentation(), seed=1)
    index = torch.tensor([4, 4])
    first, second = (
        windows.read(Draw(windows, index, step), [0, 1]).video  # type: ignore[arg-type]
        for step in (0, 1)
    )
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    alone = windows.read(Draw(windows, index, 1), [1]).video[0]  # type: ignore[arg-type]
    assert torch.equal(alone, second[1])  # whichever process it falls to
    assert torch.equal(windows.decode([4]).video, cut(recording).batch([4]).video)
    assert Augmentation().scaled(0.0) == Augmentation(1.0, 0.0, 0.0, 0.0, 0.0)
    assert Augmentation().scaled(1.0) == Augmentation()


def test_every_frame_is_decoded_once_an_epoch(recording: Dataset) -> None:
    own = cut(recording, stride=1)
    windows = DecodedWindows(own, cache_mb=64)
    feed = Feed(Source(2, 4), windows, None)  # type: ignore[arg-type]
    order = Mixture([feed], shuffle="episodes", open_episodes=2, lanes=1)
    for step in range(len(own) // 4):
        windows.read(order.draw(step), range(4))
    shown = {(own.shard(i), r) for i in range(len(own)) for r in own.shown(i).tolist()}
    frames = windows.drawn.frames
    assert frames.decoded == len(shown) < frames.asked / 5


def test_frames_that_do_not_fit_are_decoded_as_they_are_needed(recording: Dataset) -> None:
    windows = DecodedWindows(cut(recording, stride=1), cache_mb=0)
    feed = Feed(Source(2, 4), windows, None)  # type: ignore[arg-type]
    order = Mixture([feed], shuffle="episodes", open_episodes=2, lanes=1)
    warmed: list[Any] = []
    windows.drawn.warm = lambda shard, _: warmed.append(shard)  # type: ignore[method-assign]
    for step in range(len(windows) // 4):
        windows.read(order.draw(step), range(4))
    assert sorted(warmed) == [(0, i) for i in range(4)]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_a_problem_of_the_step(recording: Dataset, workers: int) -> None:
    def refuses(rows: int) -> Sequence[Sequence[int]]:
        if rows == 3:
            raise UserError("three are too many")
        return [range(rows)]

    loader = Loader(mixture(recording), refuses, workers)
    loader.start(0, 2)
    assert loader.take(0).problem is None
    taken = loader.take(1)
    assert str(taken.problem) == "three are too many" and taken.pieces == []
    loader.close()


def test_a_worker_that_dies_is_one_line(recording: Dataset) -> None:
    import os

    def dies(rows: int) -> Sequence[Sequence[int]]:
        os._exit(1)

    loader = Loader(mixture(recording), dies, workers=1)
    loader.start(0, 2)
    assert "fewer train.workers" in str(loader.take(0).problem)
    loader.close()
