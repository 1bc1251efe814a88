"""Dream and arm scored apart: the half that is wrong is blamed, and the other is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dreamzero.embodiments import get
from dreamzero.errors import UserError
from dreamzero.evaluate.parts import Parts, parts
from dreamzero.evaluate.reader import MotionReader, fit
from dreamzero.model import codecs
from dreamzero.model.codecs import Codec
from dreamzero.shipped import find
from dreamzero.sim import Scene, Tabletop, sample_scene
from dreamzero.sim.recording import demonstrate

KEPT = Path(__file__).parents[2] / "reports" / "experiments" / "reader.safetensors"
SCENES = [sample_scene("seen", 900_000_100 + i) for i in range(4)]


@pytest.fixture(scope="module")
def env() -> Iterator[Tabletop]:
    with closing(Tabletop("so101")) as made:
        yield made


@pytest.fixture(scope="module")
def codec() -> Codec:
    return codecs.load(find("tiny_so101") / "vae")


class Puppet:
    """Knows the expert's future; its arm or its dream may stay still instead."""

    def __init__(self, env: Tabletop, codec: Codec, moves: bool, dreams: bool) -> None:
        self.env, self.moves, self.dreams = env, moves, dreams
        self.card, self.model = get("tabletop_so101"), SimpleNamespace(codec=codec)
        self.scenes = iter(SCENES)
        self.scene: Scene | None = None

    def reset(self, instruction: str) -> None:
        self.scene = next(self.scenes)
        assert self.scene.instruction == instruction
        self.sent: list[np.ndarray] = []

    def observe(self, frames: dict[str, np.ndarray], state: np.ndarray) -> None:
        self.last, self.state = next(iter(frames.values()))[-1], state

    def act(self) -> Any:
        assert self.scene is not None
        self.env.reset_quietly(self.scene)
        for action in self.sent:
            self.env.advance(action)
        future = demonstrate(self.env, rows=9)
        actions = future.action[:8] if self.moves else np.repeat(self.state[None], 8, 0)
        self.sent += list(actions)
        frames = future.frames["front"][1:]
        video = frames if self.dreams else np.repeat(self.last[None], len(frames), 0)
        return SimpleNamespace(actions=actions, video=video)


def scored(env: Tabletop, codec: Codec, moves: bool, dreams: bool, after: int = 0) -> Parts:
    reader = MotionReader.load(KEPT)
    with closing(Tabletop("so101")) as own:
        policy: Any = Puppet(own, codec, moves, dreams)
        return parts(policy, env, reader, SCENES, after=after, max_steps=8 * (after + 1))


@pytest.mark.parametrize("after", [0, 2])
def test_the_half_that_is_wrong_is_blamed(env: Tabletop, codec: Codec, after: int) -> None:
    right = scored(env, codec, moves=True, dreams=True, after=after)
    still = right.mean_cm("still").value
    assert still > 2
    assert right.mean_cm("both").value < 0.05
    assert right.mean_cm("plan").value < 0.5 * still > right.mean_cm("reading").value
    wrong_dream = scored(env, codec, moves=True, dreams=False, after=after)
    assert wrong_dream.mean_cm("both").value < 0.05
    assert wrong_dream.mean_cm("plan").value > 0.7 * still < wrong_dream.mean_cm("reading").value
    wrong_arm = scored(env, codec, moves=False, dreams=True)
    assert wrong_arm.mean_cm("plan").value < 0.5 * still < wrong_arm.mean_cm("reading").value
    assert not wrong_arm.success.any()


def test_means_are_of_those_asked_for() -> None:
    values = np.array([0.01, 0.03])
    found = Parts(values, values, values, values, np.array([True, False]))
    assert found.mean_cm("plan").value == pytest.approx(2)
    assert found.mean_cm("plan", succeeded=False).value == pytest.approx(3)


def test_a_reader_is_fitted_kept_and_read(env: Tabletop, codec: Codec, tmp_path: Path) -> None:
    reader = fit(env, codec, episodes=4, steps=20)
    assert 0 < reader.error_m < 0.2 and reader.still_m > 0.005
    reader.save(tmp_path / "reader.safetensors")
    again = MotionReader.load(tmp_path / "reader.safetensors")
    assert again.error_m == reader.error_m
    env.reset_quietly(SCENES[0])
    frame, tip = env.render_views(["front"])["front"][None], env.tip()[None]
    a, b = (r.read(codec, frame, frame, tip) for r in (reader, again))
    np.testing.assert_allclose(a, b, atol=2e-4)
    with pytest.raises(UserError, match="no such reader"):
        MotionReader.load(tmp_path / "other")


def test_the_kept_reader_is_small_and_much_better_than_a_guess() -> None:
    assert KEPT.stat().st_size < 2_000_000
    reader = MotionReader.load(KEPT)
    assert reader.error_m < 0.4 * reader.still_m
    assert all(torch.isfinite(x).all() for x in reader.state_dict().values())
