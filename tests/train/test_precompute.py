"""A robot of one's own from recording to training, and a release's encoders computed beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamzero.cli import main
from dreamzero.data.mixture import Feed
from dreamzero.data.reader import Dataset
from dreamzero.data.windows import WindowDataset
from dreamzero.data.writer import Writer
from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.checkpoints.adapters import Base
from dreamzero.shipped import find
from dreamzero.train.cache import FeatureCache
from dreamzero.train.config import Source, TrainSettings
from dreamzero.train.features import FeatureEncoder
from dreamzero.train.loop import Trainer
from dreamzero.train.precompute import precompute
from dreamzero.train.prompts import PromptTable

from .toys import QUICK


def test_a_drafted_card_trains(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["shoulder", "elbow", "gripper"]
    with Writer(tmp_path / "d", 30, "bench", {"camera": (24, 32)}, names, names) as writer:
        for _ in range(3):
            frames = rng.integers(0, 255, (70, 24, 32, 3), dtype=np.uint8)
            path = np.cumsum(rng.normal(0, 0.02, (71, 3)), axis=0)
            path[:, 2] = np.linspace(0, 1, 71)
            writer.add_episode({"camera": frames}, path[:-1], path[1:], "Wave")
    card = tmp_path / "bench.toml"
    assert main(["data", "card", str(tmp_path / "d"), "--out", str(card)]) == 0
    features, codec = tmp_path / "features", find("tiny_so101") / "vae"
    given = ["--card", str(card), "--codec", str(codec)]
    data = ["data", "precompute", str(tmp_path / "d"), *given, "--out", str(features)]
    assert main(data) == 0
    made = {p.name: p.stat().st_mtime_ns for p in (features / "windows").iterdir()}
    status = main(["train", "--data", str(tmp_path / "d"), *given, "--latents", str(features),
                   "--set", "train.steps=1", "--set", "train.full.batch=1",
                   "--set", "train.first.batch=1", "--set", "train.bf16=false", "--json",
                   "--out", str(tmp_path / "run")])  # fmt: skip
    assert status == 0
    # The training encoded nothing itself.
    assert {p.name: p.stat().st_mtime_ns for p in (features / "windows").iterdir()} == made
    assert WorldActionModel.load(tmp_path / "run").card().robot == "bench"


def test_training_finds_the_prompts(imported: Path, droid_recording: Path, tmp_path: Path) -> None:
    """The text encoder is asked once, by whoever comes first."""
    settings = replace(QUICK, full=Source(blocks=2, batch=1), trained="coders", reading="cache")
    precompute([droid_recording], tmp_path / "f", settings, init=imported, progress=False)

    def made(name: str) -> tuple[Trainer, list[str]]:
        model = WorldActionModel.load(imported)
        card, statistics = model.card(), model.robots[model.card().name][1]
        windows = WindowDataset(Dataset.open(droid_recording), card, statistics, blocks=2)
        encoder = FeatureEncoder(model.codec, 32, 64, True, model.image_encoder)
        cached = FeatureCache(tmp_path / "f").open(windows, encoder)
        asked: list[str] = []
        real = model.text_encoder.encode

        def encode(prompts: Sequence[str]) -> Tensor:
            asked.extend(prompts)
            return real(prompts)  # type: ignore[no-any-return]

        model.text_encoder.encode = encode
        feeds, base = [Feed(settings.full, cached)], Base.open(imported)
        return Trainer(model, feeds, settings, tmp_path, "cpu", base, tmp_path / name), asked

    found, asked = made("f")
    fresh, all_asked = made("g")
    assert asked == [] and len(all_asked) == 3
    words = [*found.source.feeds[0].windows.prompts, ""]
    assert torch.equal(found.objective.prompts.encode(words), fresh.objective.prompts.encode(words))


def test_text_and_image_features_of_a_release(
    imported: Path, droid_recording: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(full=Source(blocks=2, batch=1), first=Source(batch=0))
    found = precompute([droid_recording], tmp_path, settings, init=imported, progress=False)
    assert (found.episodes, found.prompts) == (3, 2)
    model = WorldActionModel.load(imported)
    card, statistics = model.card(), model.robots[model.card().name][1]
    windows = WindowDataset(Dataset.open(droid_recording), card, statistics, blocks=2)
    encoder = FeatureEncoder(model.codec, 32, 64, True, model.image_encoder)
    batch = FeatureCache(tmp_path).open(windows, encoder).batch([0, 3])
    fresh = encoder(windows.batch([0, 3]))
    for name in ("latents", "first_frame", "image_features"):
        assert torch.equal(getattr(batch, name), getattr(fresh, name)), name
    prompts = [windows.prompt(0), windows.prompt(len(windows) - 1)]
    direct = model.text_encoder.encode(prompts).float()
    before = sorted((tmp_path / "prompts").iterdir())
    table = PromptTable(model.text_encoder, prompts, "cpu", cache=tmp_path)
    assert torch.equal(table.encode(prompts), direct)
    assert sorted((tmp_path / "prompts").iterdir()) == before  # nothing was missing
