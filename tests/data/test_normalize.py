"""[-1, 1] and back; relative actions per block, as the released statistics are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.data.normalize import FieldStatistics, Normalizer, Statistics, compute
from dreamzero.data.reader import Dataset
from dreamzero.data.writer import Writer
from dreamzero.embodiments import Embodiment, Field
from dreamzero.errors import UserError

from .recordings import VIEW, numbered

JOINTS, GRIPPER = 3, 1
CARD = Embodiment(
    name="test",
    robot="arm",
    views=(VIEW,),
    layout="single",
    canvas_px=(16, 40),
    state=(Field("joints", 0, JOINTS), Field("gripper", JOINTS, JOINTS + 1, unit="1")),
    action=(
        Field("joints", 0, JOINTS, relative=True),
        Field("gripper", JOINTS, JOINTS + 1, unit="1"),
    ),
    video_hz=7.5,
    action_hz=15.0,
    horizon=16,
)


def record(root: Path, states: np.ndarray, actions: np.ndarray) -> Dataset:
    names = [f"d{i}" for i in range(states.shape[1])]
    with Writer(root, 15, "arm", {VIEW: (16, 40)}, names, names) as writer:
        writer.add_episode({VIEW: numbered(range(len(states)))}, states, actions, "t")
    return Dataset.open(root)


def walk(steps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A drifting random walk of joints with a gripper that opens and closes, and its commands."""
    rng = np.random.default_rng(seed)
    joints = np.cumsum(0.02 + 0.01 * rng.standard_normal((steps + 1, JOINTS)), axis=0)
    gripper = (np.arange(steps + 1)[:, None] // 20 % 2).astype(float)
    both = np.concatenate([joints, gripper], axis=1).astype(np.float32)
    return both[:-1], both[1:]


def test_relative_statistics_are_per_block(tmp_path: Path) -> None:
    states, actions = walk(200)
    found = compute(record(tmp_path / "d", states, actions), CARD)
    starts = np.arange(200 - 16 + 1)
    blocks = actions[starts[:, None] + np.arange(16), :JOINTS] - states[starts, None, :JOINTS]
    expected = np.quantile(blocks.reshape(-1, JOINTS).astype(np.float64), [0.01, 0.99], axis=0)
    np.testing.assert_allclose(found.action["joints"].q01, expected[0], rtol=1e-5)
    np.testing.assert_allclose(found.action["joints"].q99, expected[1], rtol=1e-5)
    # The two mistakes of MODEL.md 7 (8) give plainly other ranges.
    per_step = np.quantile(actions[:, :JOINTS] - states[:, :JOINTS], 0.99, axis=0)
    per_window = np.quantile(actions[:64, :JOINTS] - states[0, :JOINTS], 0.99, axis=0)
    assert (found.action["joints"].q99 > 4 * per_step).all()
    assert (found.action["joints"].q99 < 0.5 * per_window).all()
    # The gripper stays absolute.
    assert (found.action["gripper"].min, found.action["gripper"].max) == (0, 1)
    np.testing.assert_allclose(found.state["joints"].mean, states[:, :JOINTS].mean(0), rtol=1e-5)
    assert found.state["joints"].count == 200


def test_stride_changes_only_what_is_sampled(tmp_path: Path) -> None:
    dataset = record(tmp_path / "d", *walk(400))
    every, sparse = compute(dataset, CARD, 1), compute(dataset, CARD, 16)
    assert sparse.action["joints"].count == 400
    assert every.action["joints"].count == (400 - 15) * 16
    np.testing.assert_allclose(every.action["joints"].q99, sparse.action["joints"].q99, rtol=0.1)


@given(
    seed=st.integers(0, 1000),
    lead=st.sampled_from([(), (2,), (2, 3)]),
    scale=st.floats(0.01, 10),
)
def test_round_trip(seed: int, lead: tuple[int, ...], scale: float) -> None:
    rng = np.random.default_rng(seed)
    normalizer = Normalizer(CARD, statistics(rng, scale))
    state = rng.uniform(-3, 3, (*lead, 4)).astype(np.float32)
    inside = rng.uniform(-1, 1, (*lead, 16, 4)).astype(np.float32)
    raw = normalizer.unaction(inside, state)
    assert raw.dtype == np.float32 and raw.shape == inside.shape
    np.testing.assert_allclose(normalizer.action(raw, state), inside, atol=2e-3 / min(scale, 1))
    x = rng.uniform(-1, 1, (*lead, 4)).astype(np.float32)
    np.testing.assert_allclose(normalizer.state(normalizer.unstate(x)), x, atol=1e-4)


def statistics(rng: np.random.Generator, scale: float = 1.0) -> Statistics:
    def of(width: int) -> FieldStatistics:
        return FieldStatistics.of(rng.normal(0, scale, (100, width)))

    return Statistics(
        {"joints": of(JOINTS), "gripper": of(1)}, {"joints": of(JOINTS), "gripper": of(1)}
    )


def test_the_state_is_added_to_relative_fields_only() -> None:
    normalizer = Normalizer(CARD, statistics(np.random.default_rng(0)))
    zero = np.zeros((16, 4), np.float32)
    near = normalizer.unaction(zero, np.zeros(4, np.float32))
    far = normalizer.unaction(zero, np.array([1, 2, 3, 50], np.float32))
    np.testing.assert_allclose(far - near, np.tile([1, 2, 3, 0], (16, 1)), atol=1e-5)


def test_outliers_are_clipped() -> None:
    normalizer = Normalizer(CARD, statistics(np.random.default_rng(0)))
    state = np.zeros(4, np.float32)
    wild = normalizer.action(np.full((16, 4), 1e4, np.float32), state)
    assert (wild == 1).all()
    np.testing.assert_allclose(
        normalizer.unaction(np.full((1, 4), 7.0, np.float32), state),
        normalizer.unaction(np.ones((1, 4), np.float32), state),
    )


def test_constant_and_seldom_dimensions() -> None:
    rows = np.random.default_rng(0).normal(size=(1000, JOINTS))
    rows[:, 1] = 0.25
    seldom = np.ones((1000, 1))
    seldom[:5] = 0
    fields = {"joints": FieldStatistics.of(rows), "gripper": FieldStatistics.of(seldom)}
    normalizer = Normalizer(CARD, Statistics(fields, fields))
    assert [note.partition(":")[0] for note in normalizer.notes] == ["constant", "seldom"] * 2
    x = normalizer.state(np.array([0, 0.25, 0, 1], np.float32))
    assert x[1] == 0 and x[3] == 1
    back = normalizer.unaction(np.array([[0, 0.7, 0, -1]], np.float32), np.zeros(4, np.float32))
    np.testing.assert_allclose(back[0, [1, 3]], [0.25, 0], atol=1e-6)
    assert normalizer.action_range[1] == 0


def test_a_trembling_gripper_is_not_blown_up() -> None:
    rng = np.random.default_rng(0)
    rows, held = rng.normal(size=(1000, JOINTS)), rng.uniform(-0.006, 0.001, (1000, 1))
    fields = {"joints": FieldStatistics.of(rows), "gripper": FieldStatistics.of(held)}
    normalizer = Normalizer(CARD, Statistics(fields, fields))
    assert (normalizer.state(np.array([[0, 0, 0, -0.006], [0, 0, 0, 0.001]]))[:, 3] == 0).all()
    # Joints may be as finely scaled as their recording is.
    fine = {**fields, "joints": FieldStatistics.of(rows * 1e-3)}
    assert Normalizer(CARD, Statistics(fine, fine)).action_range[0] < 0.01


def test_a_policy_needs_neither_video_nor_parquet_libraries() -> None:
    code = (
        "import sys; sys.modules.update(av=None, pyarrow=None); "
        "import dreamzero.data.normalize, dreamzero.data.canvas"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_json(tmp_path: Path) -> None:
    before = statistics(np.random.default_rng(1))
    before.save(tmp_path / "statistics.json")
    after = Statistics.load(tmp_path / "statistics.json")
    assert after.to_json() == before.to_json()
    released = Statistics.from_json({"action": {"joints": {"q01": [0, 0, 0], "q99": [1, 1, 1]}}})
    np.testing.assert_array_equal(released.action["joints"].q99, [1, 1, 1])
    (tmp_path / "list.json").write_text("[1]")
    for name in ("list.json", "absent.json"):
        with pytest.raises(UserError, match="holds no statistics"):
            Statistics.load(tmp_path / name)
    with pytest.raises(UserError, match="lack q01"):
        Statistics.from_json({"action": {"joints": {"mean": [0]}}})


def test_another_robots_statistics_are_refused() -> None:
    good = statistics(np.random.default_rng(0))
    wrong_width = Statistics({**good.state, "joints": good.state["gripper"]}, good.action)
    for other in (wrong_width, Statistics(good.state, {"joints": good.action["joints"]})):
        with pytest.raises(UserError, match="belong to another robot"):
            Normalizer(CARD, other)
    orphan = CARD.with_(state=CARD.state[1:])
    with pytest.raises(UserError, match="needs a state field"):
        Normalizer(orphan, good)
