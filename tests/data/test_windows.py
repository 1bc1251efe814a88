"""Windows: every frame, action and state is that of its instant, at whatever rates."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from dreamzero.data.canvas import Augmentation
from dreamzero.data.normalize import FieldStatistics, Statistics
from dreamzero.data.reader import Dataset
from dreamzero.data.resample import actions_at, nearest
from dreamzero.data.windows import Window, WindowDataset
from dreamzero.data.writer import Writer
from dreamzero.embodiments import Embodiment, Field
from dreamzero.errors import UserError

from .recordings import VIEW, numbered, ramp, read_numbers, write_v2, write_v3

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
    prompt="an arm: {instruction}",
)


def wide(width: int = 2, reach: float = 100.0) -> Statistics:
    """Statistics of which normalising merely divides by ``reach``."""
    rows = np.array([[-reach] * width, [reach] * width])
    ends = FieldStatistics(rows[0], rows[1], rows[0], rows[1], rows.mean(0), rows.std(0), 2)
    return Statistics({"x": ends}, {"x": ends})


@settings(max_examples=25)
@given(
    fps=st.sampled_from([10, 15, 20, 30, 12.5]),
    rates=st.sampled_from([(7.5, 15.0, 16), (5.0, 10.0, 16), (5.0, 15.0, 24), (10.0, 10.0, 8)]),
    blocks=st.integers(1, 4),
    seconds=st.floats(1.0, 9.0),
    stride=st.sampled_from([None, 1, 5]),
)
def test_everything_lies_at_its_time(
    tmp_path_factory: pytest.TempPathFactory,
    fps: float,
    rates: tuple[float, float, int],
    blocks: int,
    seconds: float,
    stride: int | None,
) -> None:
    video_hz, action_hz, horizon = rates
    card = CARD.with_(video_hz=video_hz, action_hz=action_hz, horizon=horizon)
    rows = max(int(seconds * fps), 2)
    root = tmp_path_factory.mktemp("w") / "d"
    write_v3(root, [rows], fps=fps, width=2)
    end = (rows - 1) / fps
    dataset = Dataset.open(root)
    if end <= (blocks - 1) * card.block_s + 1e-3:
        with pytest.raises(UserError, match="no window"):
            WindowDataset(dataset, card, wide(), blocks=blocks, stride=stride)
        return
    windows = WindowDataset(dataset, card, wide(), blocks=blocks, stride=stride)
    starts = [windows[i].start_row for i in range(len(windows))]
    assert starts[0] == 0 and starts == sorted(starts)
    for i in {0, len(windows) // 2, len(windows) - 1}:
        window = windows[i]
        start = window.start_row / fps
        # Frames: the row nearest in time, the last one held past the end.
        at = start + np.arange(1 + 8 * blocks) / video_hz
        shown = read_numbers(window.video) / fps
        assert (np.abs(shown - np.minimum(at, end)) <= 0.5 / fps + 2e-3).all()
        np.testing.assert_array_equal(window.frame_mask, at <= end + 0.5 / fps + 1e-3)
        # States: measured at each block's first step (the ramp's value is its time).
        begin = np.minimum(start + np.arange(blocks) * card.block_s, end)
        measured = window.state[:, 0] * 100
        assert (np.abs(measured - begin) <= 0.5 / fps + 2e-3).all()
        # Actions: linear between rows, one second ahead, relative to their block's state.
        when = start + np.arange(blocks * horizon) / action_hz
        expected = np.minimum(when, end) + 1 - measured.repeat(horizon)
        np.testing.assert_allclose(window.action[:, 0] * 100, expected, atol=3e-3)
        np.testing.assert_array_equal(
            window.action_mask, np.repeat(when[:, None] <= end + 0.5 / fps + 1e-3, 2, axis=1)
        )
        assert window.action_mask[: horizon * (blocks - 1)].all()
        assert start + blocks * card.block_s - end < card.block_s + 0.5 / fps + 2e-3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """One exact window (65 rows at 15 Hz), one of two, and one too short for four blocks."""
    root = tmp_path_factory.mktemp("w") / "d"
    write_v3(root, [65, 130, 40], fps=15, width=2)
    return Dataset.open(root)


def test_an_episode_of_one_window(dataset: Dataset) -> None:
    windows = WindowDataset(dataset, CARD)
    window = windows[0]
    assert isinstance(window, Window)
    assert window.video.shape == (33, 16, 40, 3) and window.video.dtype == np.uint8
    assert window.action.shape == (64, 2) and window.action.dtype == np.float32
    assert window.state.shape == (4, 2) and window.state.dtype == np.float32
    assert window.action_mask.all() and window.frame_mask.all() and window.has_action
    assert (window.episode, window.start_row, window.prompt) == (0, 0, "an arm: task 0")
    np.testing.assert_array_equal(read_numbers(window.video), np.arange(33) * 2)
    assert np.abs(window.action).max() <= 1
    assert [windows[i].episode for i in range(len(windows))].count(0) == 1
    assert windows.notes[-1].startswith("short: 1 episodes")


def test_first_chunk_windows(dataset: Dataset) -> None:
    windows = WindowDataset(dataset, CARD, wide(), blocks=1)
    first = [w for i in range(len(windows)) if (w := windows[i]).episode == 0]
    assert [w.start_row for w in first] == [0, 16, 32, 48]
    assert first[0].video.shape[0] == 9 and first[0].action.shape == (16, 2)
    full = WindowDataset(dataset, CARD, wide())[0]
    np.testing.assert_allclose(full.action[16:32], first[1].action, atol=1e-6)


def test_grippers_are_never_averaged() -> None:
    times = np.arange(4) / 10
    action = np.array([[0, 0], [1, 1], [0, 0], [1, 1]], np.float32)
    fields = (Field("joint", 0, 1), Field("gripper", 1, 2, unit="1"))
    at = np.arange(13) / 40
    got = actions_at(fields, times, action, at)
    assert set(np.unique(got[:, 1])) == {0, 1}
    np.testing.assert_allclose(got[:, 0], np.interp(at, times, action[:, 0]), atol=1e-6)


@given(
    times=st.lists(st.floats(0.01, 1), min_size=1, max_size=20),
    at=st.lists(st.floats(-2, 20), max_size=20),
)
def test_nearest(times: list[float], at: list[float]) -> None:
    clock, wanted = np.cumsum(times), np.asarray(at, dtype=float)
    rows = nearest(clock, wanted)
    distances = np.abs(clock[:, None] - wanted[None])
    assert (distances[rows, np.arange(len(at))] <= distances.min(0) + 1.1e-4).all()


def test_video_only(tmp_path: Path, dataset: Dataset) -> None:
    write_v3(tmp_path / "v", [65], video_only=True)
    hand = CARD.with_(state=(), action=(), has_action=False)
    window = WindowDataset(Dataset.open(tmp_path / "v"), hand)[0]
    assert not window.has_action and window.action.shape == (64, 0)
    # Mixed in with labelled recordings of the same robot, it keeps their shapes.
    mixed = WindowDataset([dataset, Dataset.open(tmp_path / "v")], CARD)
    last = mixed[len(mixed) - 1]
    assert last.dataset == 1 and not last.has_action
    assert last.action.shape == (64, 2) and not last.action.any() and not last.action_mask.any()
    assert last.state.shape == (4, 2) and not last.state.any()
    # And alone under a card that has actions.
    alone = WindowDataset(Dataset.open(tmp_path / "v"), CARD)
    assert alone.normalizer is None and not alone[0].has_action


def test_idle_filter(tmp_path: Path) -> None:
    state = ramp(200, 2, 15)
    state[70:] = state[70]
    with Writer(tmp_path / "d", 15, "arm", {VIEW: (16, 40)}, ["a", "b"], ["a", "b"]) as writer:
        writer.add_episode({VIEW: numbered(range(200))}, state, state, "t")
    dataset = Dataset.open(tmp_path / "d")
    everything = WindowDataset(dataset, CARD, blocks=1)
    moving = WindowDataset(dataset, CARD, blocks=1, idle=0.05)
    assert len(everything) == 13
    assert [moving[i].start_row for i in range(len(moving))] == [0, 16, 32, 48, 64]
    assert moving.notes[-1].startswith("idle: 8 windows")


def test_augmentation_is_repeatable(dataset: Dataset) -> None:
    plain = WindowDataset(dataset, CARD)[0].video
    varied = WindowDataset(dataset, CARD, augmentation=Augmentation(), seed=1)
    first = varied[0].video
    assert (first != plain).any()
    np.testing.assert_array_equal(first, varied[0].video)
    varied.set_epoch(1)
    assert (varied[0].video != first).any()


def test_canvas_of_two_views(tmp_path: Path) -> None:
    views = {"a": (16, 40), "b": (32, 80)}
    with Writer(tmp_path / "d", 15, "arm", views, None, None) as writer:
        clip = numbered(range(65))
        clips = {"a": clip, "b": numbered(range(100, 165), 32).repeat(2, axis=2)}
        writer.add_episode(clips, None, None, "t")
    card = CARD.with_(views=("b", "a"), layout="column", canvas_px=(32, 40), state=(), action=())
    video = WindowDataset(Dataset.open(tmp_path / "d"), card)[0].video
    np.testing.assert_array_equal(read_numbers(video[:, :16]), 100 + 2 * np.arange(33))
    np.testing.assert_array_equal(read_numbers(video[:, 16:]), 2 * np.arange(33))


def test_late_timestamps_do_not_shift_the_video(tmp_path: Path) -> None:
    write_v2(tmp_path / "d", [90], fps=20, extra_frames=1, first_s=0.05)
    card = CARD.with_(video_hz=5.0, action_hz=10.0)
    window = WindowDataset(Dataset.open(tmp_path / "d"), card, wide(), blocks=2)[0]
    np.testing.assert_array_equal(read_numbers(window.video), 1 + 4 * np.arange(17))


def test_workers_and_pickle(dataset: Dataset) -> None:
    windows = WindowDataset(dataset, CARD)
    expected = [windows[i].video for i in range(len(windows))]
    copy = pickle.loads(pickle.dumps(windows))
    np.testing.assert_array_equal(copy[0].video, expected[0])
    loader = DataLoader(windows, batch_size=None, num_workers=1, multiprocessing_context="fork")
    for got, want in zip(loader, expected, strict=True):
        np.testing.assert_array_equal(got.video, want)


@pytest.mark.parametrize(
    ("changes", "arguments", "says"),
    [
        ({}, {"blocks": 5}, "allows 1 to 4"),
        ({}, {"stride": 0}, "at least 1"),
        ({"views": ("side",)}, {}, "looks through side"),
        ({"state": (Field("x", 0, 9),)}, {}, "needs 9 state dimensions"),
        ({"horizon": 20}, {}, "must span the same time"),
    ],
)
def test_misfits_are_named(
    dataset: Dataset, changes: dict[str, object], arguments: dict[str, int], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        WindowDataset(dataset, CARD.with_(**changes), **arguments)  # type: ignore[arg-type]


def test_a_bad_sample_is_named(tmp_path: Path) -> None:
    """Training ends in one line that says which episode to mend: its numbers, its video."""
    values = ramp(65, 2, 15)
    spoiled = values.copy()
    spoiled[35, 1] = np.nan
    write_v2(tmp_path / "d", [65, 65], vectors={"action": spoiled, "observation.state": values})
    windows = WindowDataset(Dataset.open(tmp_path / "d"), CARD, wide(), blocks=1)
    assert np.isfinite(windows[0].action).all()
    with pytest.raises(
        UserError, match=r"d, episode 0, window from frame 32: action is not finite"
    ):
        windows[2]
    with pytest.raises(UserError, match="mend or leave out the episode"):
        windows.vectors(2)

    def broken(*_: object) -> np.ndarray:
        raise ValueError("moov atom not found\nand more")

    windows.datasets[0].frames = broken  # type: ignore[method-assign,assignment]
    line = rf"d, episode 1, {VIEW}, frames 16 to 32: cannot be read \(moov atom not found\); mend"
    with pytest.raises(UserError, match=line):
        windows[5]
