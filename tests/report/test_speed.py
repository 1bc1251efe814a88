"""Notebook 03: the ladder of optimisations, the roofline, the loop on the wall clock, the GPU table."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreamzero import embodiments
from dreamzero.cli import main
from dreamzero.errors import UserError
from dreamzero.inference import synthetic
from dreamzero.inference.ceilings import Ceilings, Work
from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.text import WordEncoder
from dreamzero.report import hardware, plots_speed, realtime, speed_study
from dreamzero.report.speed_study import Climb, Limits, Part, Rung
from dreamzero.types import ActionChunk

CARD = embodiments.get("tabletop_so101")
SEEN = "push the red block to the left"


@pytest.fixture(autouse=True)
def _close() -> Any:
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    made = synthetic.random_model("tiny", "cpu", torch.float32)
    made.text_encoder = WordEncoder.fit([CARD.render_prompt(SEEN)], dim=128).eval()
    return made


@pytest.fixture(scope="module")
def views() -> dict[str, np.ndarray]:
    frames = 1 + (CARD.blocks - 1) * CARD.frames_per_block
    rng = np.random.default_rng(0)
    return {"front": rng.integers(0, 255, (frames, 64, 64, 3), np.uint8)}


def test_every_way_makes_the_chunk_it_says(
    model: WorldActionModel, views: dict[str, np.ndarray]
) -> None:
    state = np.zeros(CARD.state_dim, np.float32)
    climbed = speed_study.climb(model, views, state, SEEN, rounds=1)
    held = [(r.evaluations, r.branches, r.kv_writes, r.tier) for r in climbed.rungs]
    dynamic = climbed[speed_study.DYNAMIC].evaluations
    assert 2 < dynamic <= 16
    assert held == [
        (16, 2, 16 * CARD.blocks, "exact"), (16, 2, 1, "exact"), (16, 2, 1, "exact"),
        (16, 1, 1, "exact"), (8, 1, 1, "approximate"), (dynamic, 1, 1, "approximate"),
        (4, 1, 1, "exact"), (4, 1, 1, "numeric"),
    ]  # fmt: skip
    for label in (speed_study.KEPT, speed_study.ENGINE):
        assert climbed[label].difference < 1e-4
    assert climbed[speed_study.UNGUIDED].difference > 1e-4, "guidance was left on"
    assert 0 < climbed[speed_study.BF16].step < 0.1, "16 bits round, and no more than that"
    assert len(climbed.rows()) == 8 and all(len(r.seconds) == 1 for r in climbed.rungs)


def test_ratios_are_of_rounds() -> None:
    """A busy machine slows a round, not a ratio."""

    def rung(label: str, seconds: list[float], tier: str = "exact") -> Rung:
        return Rung(label, np.array(seconds), 4, 1, 1, tier, 0.0, 0.0)

    climbed = Climb((rung("plain", [8.0, 80.0, 8.0]), rung("kept", [2.0, 20.0, 2.0]),
                     rung("half", [1.0, 10.0, 4.0], "numeric")))  # fmt: skip
    assert climbed.gain("kept") == 4 and climbed.gain("half") == 8
    assert climbed["kept"].rate_hz == 0.5
    assert [r.label for r in climbed.steps] == ["plain", "kept", "half"]
    assert "4.00 x as fast as 'plain'" in climbed.line("kept")
    assert "x as fast" not in climbed.line("plain")
    slow = Climb((*climbed.rungs[:2], rung("half", [3.0, 30.0, 3.0])))
    assert [r.label for r in slow.steps] == ["plain", "kept"]
    figure = plots_speed.ladder(climbed)
    assert [p.get_width() for p in figure.axes[0].patches] == [1, 4, 8]
    assert len({p.get_facecolor() for p in figure.axes[0].patches}) == 2
    figure.canvas.draw()


def test_parts_and_their_work(
    model: WorldActionModel, views: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ceilings, "measure", lambda *_: Ceilings(1e11, 1e10))
    state = np.zeros(CARD.state_dim, np.float32)
    limits = speed_study.limits(model, views, state, SEEN, repeats=1)
    evaluation, write, encode = limits.parts
    assert [p.label for p in limits.parts] == ["evaluation", "KV write", "encode"]
    assert evaluation.work.flops > write.work.flops, "actions are evaluated, not written"
    convolutions: list[float] = []

    def count(layer: torch.nn.Conv2d, given: Any, out: torch.Tensor) -> None:
        weights = layer.weight.numel() / layer.out_channels
        convolutions.append(2 * out.numel() * weights)

    layers = [m for m in model.codec.encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        model.codec.encode_next(torch.zeros(1, 3, 1 + 8, 64, 64))
    for hook in hooks:
        hook.remove()
    # Three latent frames here, two in a block.
    assert encode.work.flops == pytest.approx(sum(convolutions) * 2 / 3)


def test_roofline_shares_are_of_what_binds() -> None:
    ceilings = Ceilings(flops=100e9, bytes=10e9)
    parts = (Part("dense", Work(5e9, 0.1e9), 0.1), Part("wide", Work(1e9, 0.8e9), 0.1))
    limits = Limits(ceilings, parts)
    assert limits.percent("dense") == pytest.approx(50)
    assert limits.percent("wide") == pytest.approx(80)
    assert limits.rows()[1]["of the bandwidth"] == "80 %"
    figure = plots_speed.roofline(limits)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert "dense: 50 %, 100.0 ms" in texts and "wide: 80 %, 100.0 ms" in texts
    figure.canvas.draw()


class Clock:
    """Time that passes when somebody sleeps or thinks."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class Table:
    """Shows how many steps were done, and is done after some."""

    end: int
    sent: list[float] = field(default_factory=list)

    def reset_quietly(self, scene: Any) -> None:
        self.sent = []

    def render_views(self, views: Any) -> dict[str, np.ndarray]:
        return {views[0]: np.full((4, 4, 3), len(self.sent), np.uint8)}

    def state(self) -> np.ndarray:
        return np.zeros(CARD.state_dim, np.float32)

    def advance(self, action: np.ndarray) -> None:
        self.sent.append(float(action[0]))

    def success(self) -> bool:
        return len(self.sent) >= self.end


@dataclass
class Thinker:
    """Takes its time; its actions say which chunk and step they are of, its dreams are right."""

    clock: Clock
    seconds: list[float]
    asked: int = 0
    shown: int = 0

    def reset(self, prompt: str) -> None:
        self.asked = 0

    def observe(self, frames: dict[str, np.ndarray], state: np.ndarray) -> None:
        assert frames["front"].shape == (1, 4, 4, 3)
        self.shown = int(frames["front"].max())

    def act(self) -> ActionChunk:
        self.clock.time += self.seconds[min(self.asked, len(self.seconds) - 1)]
        actions = np.zeros((CARD.horizon, CARD.action_dim), np.float32)
        actions[:, 0] = 100 * self.asked + np.arange(CARD.horizon)
        self.asked += 1
        after = self.shown + 1 + np.arange(CARD.horizon)
        video = np.broadcast_to(after[:, None, None, None], (CARD.horizon, 4, 4, 3))
        return ActionChunk(actions, CARD.action_hz, video.astype(np.uint8), {})


def drive(seconds: list[float], end: int = 14, **options: Any) -> tuple[realtime.RealTime, Table]:
    from dreamzero.sim import sample_scene

    clock, table = Clock(), Table(end)
    scene = sample_scene("seen", 0)
    thinker: Any = Thinker(clock, seconds)
    made = realtime.run(table, thinker, scene, CARD, now=clock.now, sleep=clock.sleep, **options)  # type: ignore[arg-type]
    return made, table


def test_chunks_take_over_a_step_after_they_were_asked_for() -> None:
    made, table = drive([0.03])
    # The first chunk met an arm at rest; from then on step 0 belongs to the time of thinking.
    assert table.sent == [0, 1, 2, 101, 102, 201, 202, 301, 302, 401, 402, 501, 502, 601]
    assert (made.success, made.steps, made.late) == (True, 14, 0)
    assert made.rate_hz == pytest.approx(7.5)
    np.testing.assert_allclose(made.chunk_s, 0.03)
    assert made.lateness_s.max() < 1e-9 and made.ahead == 4
    happened, dreamed = made.foreseen().values()
    assert len(happened) == 3
    np.testing.assert_array_equal(happened, dreamed)
    figure = plots_speed.wall_clock(made)
    assert "takes 30 ms, the next is due after 133 ms" in figure.axes[0].get_title("left")
    figure.canvas.draw()


def test_a_slow_thought_misses_steps_and_is_counted() -> None:
    made, table = drive([0.01, 0.17], end=8)
    # 0.17 s are more than two steps: one whole one went by, driven by the chunk before.
    assert table.sent == [0, 1, 2, 3, 102, 103, 202, 203]
    assert made.late == 3 and made.rate_hz < 7.5
    assert made.lateness_s.max() > 0.03


@pytest.mark.parametrize("steps", [0, 3, 8])
def test_a_loop_needs_time_to_think(steps: int) -> None:
    with pytest.raises(ValueError, match="must divide the 8 steps"):
        drive([0.01], execute_steps=steps)


def test_the_table_of_a_gpu_says_what_is_missing(tmp_path: Path) -> None:
    rows = hardware.target_rows(hardware.records(tmp_path / "none"))
    assert len(rows) == len(hardware.TARGETS) == len(hardware.unmeasured(rows))
    assert hardware.chunk_rows([]) == []
    options = ("--steps", "1", "--chunks", "1", "--repeats", "1")
    assert main(["bench", "engine", "--preset", "tiny", *options, "--out", str(tmp_path)]) == 0
    (record,) = hardware.records(tmp_path)
    (chunk,) = hardware.chunk_rows([record])
    assert (chunk["model"], chunk["holds"]) == ("tiny", "1 x 1 evaluations, 1 KV write")
    assert hardware.unmeasured(hardware.target_rows([record])) == hardware.unmeasured(rows)

    # As the command would write it on a GPU.
    record.device, record.parameters["preset"] = "cuda: NVIDIA H200, 139 GiB", hardware.PRESET
    filled = hardware.target_rows([record])
    assert "ms (NVIDIA H200, commit" in filled[0]["measured"]
    assert hardware.unmeasured(filled) == [t.label for t in hardware.TARGETS[1:]]
    report = record.notes["report"]
    last = [r for r in report["rows"] if (r["what"], r["path"]) == ("evaluation", "engine")][-1]
    assert hardware.measured(hardware.TARGETS[0], record) == last["ms"]
    report["memory_gib"]["flash chunk, fp8"] = 27.5
    assert hardware.measured(hardware.TARGETS[-1], record) == 27.5

    (tmp_path / "half.json").write_text(json.dumps({"name": "bench-engine"}))
    with pytest.raises(UserError, match="half.json: not a run record"):
        hardware.records(tmp_path)


def test_published_figures_agree_with_each_other() -> None:
    """The seconds that the paper gives beside its factors: 5.7, 0.35 (4 steps) and 0.15."""
    seconds = [hardware.BASELINE_S / row.gb200 for row in hardware.PUBLISHED]
    assert seconds[-1] == pytest.approx(0.15, abs=0.005)
    assert seconds[-2] == pytest.approx(0.35, abs=0.01)
    rows = hardware.published_rows()
    assert rows[0]["H100"] == "1 x, 5.70 s" and rows[-1]["H100"] == "-"
    figure = plots_speed.published(hardware.PUBLISHED, hardware.BASELINE_S)
    assert max(p.get_width() for p in figure.axes[0].patches) == 38
    assert "not measured here" in figure.axes[0].get_xlabel()
    figure.canvas.draw()
