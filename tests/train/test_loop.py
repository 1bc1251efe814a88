"""The loop, mostly on synthetic latents: it learns, it resumes exactly, it stops with one clear line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreamzero import embodiments
from dreamzero.data.reader import Dataset
from dreamzero.data.windows import WindowDataset
from dreamzero.errors import UserError
from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.codecs.tiny import TinyCodec
from dreamzero.model.text import WordEncoder
from dreamzero.model.transformer import DreamZeroTransformer
from dreamzero.report.record import load
from dreamzero.sim import record
from dreamzero.train.config import Source, TrainSettings
from dreamzero.train.latents import EPISODES, LatentWindows, encode_cached
from dreamzero.train.loop import Feed, Trainer

CARD = embodiments.get("tabletop_so101")
QUICK = TrainSettings(
    steps=8,
    full=Source(blocks=2, batch=4),
    first=Source(blocks=1, batch=0),
    warmup=2,
    bf16=False,
    evaluate_every=4,
    log_every=1,
    save_every=4,
)


def windows(count: int = 24) -> LatentWindows:
    """Two prompts whose action is told apart by the prompt alone."""
    g = torch.Generator().manual_seed(0)
    prompt = torch.arange(count) % 2
    action = (prompt * 2.0 - 1.0)[:, None, None].expand(count, 32, 4).clone()
    return LatentWindows(
        latents=torch.randn(count, 3, 5, 4, 4, generator=g).half(),
        action=action,
        state=torch.zeros(count, 2, 5),
        action_mask=torch.ones(count, 32, 4, dtype=torch.bool),
        has_action=torch.ones(count, dtype=torch.bool),
        episode=torch.arange(count),
        prompt=prompt,
        prompts=["go left", "go right"],
        embodiment=CARD.name,
    )


def trainer(out: Path, settings: TrainSettings = QUICK) -> Trainer:
    torch.manual_seed(settings.seed)
    transformer = DreamZeroTransformer(
        dim=48, ffn_dim=64, num_layers=2, num_heads=2, freq_dim=32, text_dim=16, projector_dim=16,
        action_dim=4, state_dim=5, in_channels=3, out_channels=3, horizon=16, position_grid=(2, 2),
    )  # fmt: skip
    text = WordEncoder.fit(["go left", "go right"], dim=16)
    model = WorldActionModel(transformer, TinyCodec(), text)
    return Trainer(model, [Feed(settings.full, windows())], settings, out)


def losses(out: Path) -> list[tuple[int, float, float]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["video"], row["action"]) for row in rows]


def test_training_lowers_the_loss_and_writes_a_record(tmp_path: Path) -> None:
    settings = replace(QUICK, steps=60, log_every=5, evaluate_every=30)
    record = trainer(tmp_path, settings).run(progress=False)
    rows = losses(tmp_path)
    assert sum(r[2] for r in rows[-3:]) < 0.5 * sum(r[2] for r in rows[:3])
    assert record.metrics["held_out_action"].value is not None
    assert load(tmp_path).parameters["steps"] == 60
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").exists()


def test_resume_continues_bit_for_bit(tmp_path: Path) -> None:
    trainer(tmp_path / "whole").run(progress=False)
    half = trainer(tmp_path / "parts", replace(QUICK, steps=8))
    for _ in range(4):  # as if killed after the checkpoint at step 4
        half._one_step()
        half.step += 1
    half.out.mkdir(parents=True)
    (half.out / "log.jsonl").write_text("")
    half._save_state()
    trainer(tmp_path / "parts").run(resume=True, progress=False)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")[4:]


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    trainer(tmp_path).run(progress=False)
    with pytest.raises(UserError, match="lr differ from the run"):
        trainer(tmp_path, replace(QUICK, lr=1e-5)).run(resume=True, progress=False)
    with pytest.raises(UserError, match="does not exist"):
        trainer(tmp_path / "nowhere").run(resume=True, progress=False)


def test_divergence_stops_with_one_line(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.feeds[0].windows.action[:] = float("nan")
    with pytest.raises(UserError, match="diverged at step 0"):
        run.run(progress=False)


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


def test_every_recording_holds_some_out() -> None:
    given = windows(24)
    given.episode[16:] = EPISODES + torch.arange(8)
    feed = Feed(QUICK.full, given, validation=0.25)
    assert feed.held_out.tolist() == [12, 13, 14, 15, 22, 23]


def test_encoded_windows_are_found_again_and_never_stale(tmp_path: Path) -> None:
    recordings = [
        Dataset.open(record(tmp_path / name, episodes=2, seed=seed, progress=False))
        for name, seed in (("a", 1), ("b", 2))
    ]
    codec, folder = TinyCodec().eval(), tmp_path / "latents"

    def encode(**cut: int) -> LatentWindows:
        cuts = WindowDataset(recordings, CARD, **{"blocks": 1, "stride": 32} | cut)  # type: ignore[arg-type]
        return encode_cached(cuts, codec, 8, 8, folder, progress=False)

    first = encode()
    times = {path: path.stat().st_mtime_ns for path in folder.glob("windows/*")}
    assert len(times) == 4 and first.episode.unique().tolist() == [0, 1, EPISODES, EPISODES + 1]
    again = encode()
    assert {path: path.stat().st_mtime_ns for path in folder.glob("windows/*")} == times
    assert torch.equal(again.latents, first.latents) and torch.equal(again.episode, first.episode)
    assert len(encode(stride=16)) > len(first) and len(list(folder.glob("windows/*"))) == 8
    with torch.no_grad():
        next(codec.parameters()).mul_(1.01)
    assert not torch.equal(encode().latents, first.latents)
    assert len(list(folder.glob("windows/*"))) == 12
