"""A model that trains in milliseconds, and windows for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dreamzero import embodiments
from dreamzero.config import to_dict
from dreamzero.data.mixture import BatchSource, Feed
from dreamzero.data.normalize import FieldStatistics, Statistics
from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.codecs.tiny import TinyCodec
from dreamzero.model.text import WordEncoder
from dreamzero.model.transformer import DreamZeroTransformer
from dreamzero.train.config import Source, TrainSettings
from dreamzero.train.latents import LatentWindows
from dreamzero.train.loop import Trainer

ROOT = Path(__file__).parents[2]
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
    chunks=0,
    tensorboard=False,
)


def windows(count: int = 24, blocks: int = 2, name: str = CARD.name) -> LatentWindows:
    """Two prompts whose action is told apart by the prompt alone."""
    g = torch.Generator().manual_seed(0)
    prompt = torch.arange(count) % 2
    steps = blocks * CARD.horizon
    action = (prompt * 2.0 - 1.0)[:, None, None].expand(count, steps, 6).clone()
    return LatentWindows(
        latents=torch.randn(count, 3, 1 + 2 * blocks, 4, 4, generator=g).half(),
        action=action,
        state=torch.zeros(count, blocks, 6),
        action_mask=torch.ones(count, steps, 6, dtype=torch.bool),
        has_action=torch.ones(count, dtype=torch.bool),
        episode=torch.arange(count),
        prompt=prompt,
        prompts=["go left", "go right"],
        embodiment=name,
        row=10 * torch.arange(count),
        recordings=["recordings/mine"],
    )


def store(given: LatentWindows, path: Path) -> None:
    """For another process."""
    tensors = {name: tensor.contiguous() for name, tensor in given.tensors.items()}
    save_file(tensors, path, {"embodiment": given.embodiment, "prompts": json.dumps(given.prompts)})


def load(path: Path) -> LatentWindows:
    """What ``store`` wrote."""
    with safe_open(path, "pt") as file:
        said = file.metadata()
        return LatentWindows(
            **{name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
            prompts=json.loads(said["prompts"]),
            embodiment=said["embodiment"],
        )


def statistics() -> Statistics:
    """One radian each way."""

    def of(width: int) -> FieldStatistics:
        one = torch.ones(width).double().numpy()
        return FieldStatistics(-one, one, -one, one, 0 * one, one, 100)

    fields = {f.key: of(f.width) for f in CARD.state}
    return Statistics(fields, fields)


def model(seed: int = 0) -> WorldActionModel:
    torch.manual_seed(seed)
    transformer = DreamZeroTransformer(
        dim=48, ffn_dim=64, num_layers=2, num_heads=2, freq_dim=32, text_dim=16, projector_dim=16,
        action_dim=6, state_dim=6, in_channels=3, out_channels=3, horizon=CARD.horizon,
        position_grid=(2, 2),
    )  # fmt: skip
    text = WordEncoder.fit(["go left", "go right"], dim=16)
    codec = TinyCodec(latent_channels=3, width_half=8, width_quarter=8, width_eighth=8).eval()
    return WorldActionModel(transformer, codec, text, {CARD.name: (CARD, statistics())})


def trainer(
    out: Path,
    settings: TrainSettings = QUICK,
    given: LatentWindows | None = None,
    source: BatchSource | None = None,
) -> Trainer:
    feeds = [Feed(settings.full, given or windows(), settings.validation)]
    return Trainer(model(settings.seed), source or feeds, settings, out)


def command(jobs: Sequence[Any]) -> list[str]:
    """A process that does these (see ``worker.py``)."""
    start = "import runpy, sys; sys.path[:0] = [sys.argv.pop(1)]; "
    start += "runpy.run_module('tests.train.worker', run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", start, str(ROOT), json.dumps(jobs)]


def plain(settings: TrainSettings) -> dict[str, Any]:
    """What differs from QUICK, for ``command``."""
    return {
        f.name: to_dict(settings)[f.name]
        for f in fields(settings)
        if getattr(settings, f.name) != getattr(QUICK, f.name)
    }


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[tuple[int, float, float]]:
    return [(row["step"], row["video"], row["action"]) for row in rows(out)]
