"""A recording of noise that drifts, and trainings of it that read their windows in each of the ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dreamzero.data.mixture import Feed, Mixture
from dreamzero.data.reader import Dataset
from dreamzero.data.windows import WindowDataset
from dreamzero.data.writer import Writer
from dreamzero.embodiments import Embodiment, Field
from dreamzero.model import codecs
from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.codecs.base import Codec
from dreamzero.model.codecs.tiny import TinyCodec
from dreamzero.model.text import WordEncoder
from dreamzero.model.transformer import DreamZeroTransformer
from dreamzero.train.config import TrainSettings
from dreamzero.train.distributed import Processes
from dreamzero.train.features import FeatureEncoder
from dreamzero.train.loop import Trainer
from dreamzero.train.reading import open_windows

VIEW = "observation.images.front"
CARD = Embodiment(
    name="test",
    robot="arm",
    views=(VIEW,),
    layout="single",
    canvas_px=(16, 32),
    state=(Field("x", 0, 2),),
    action=(Field("x", 0, 2, relative=True),),
    video_hz=7.5,
    action_hz=15.0,
    horizon=16,
)
DIMS = (4, 5)


def write(root: Path, lengths: tuple[int, ...] = (70, 60, 95)) -> Path:
    """Episodes of so many rows with two instructions."""
    rng = np.random.default_rng(0)
    with Writer(root, 15, "arm", {VIEW: (16, 32)}, ["a", "b"], ["a", "b"]) as writer:
        for number, rows in enumerate(lengths):
            base = rng.integers(0, 255, (16, 32, 3), dtype=np.uint8)
            frames = np.stack([np.roll(base, i // 2, axis=1) for i in range(rows)])
            state = np.cumsum(rng.normal(0, 0.1, (rows, 2)), axis=0)
            writer.add_episode(
                {VIEW: frames}, state, state + 0.1, "push it" if number else "lift it"
            )
    return root


def small_codec() -> TinyCodec:
    torch.manual_seed(0)
    tiny = TinyCodec(latent_channels=4, width_half=8, width_quarter=8, width_eighth=16)
    return tiny.eval().requires_grad_(False)


def small_model(codec: Codec, windows: WindowDataset) -> WorldActionModel:
    torch.manual_seed(1)
    transformer = DreamZeroTransformer(
        dim=24, ffn_dim=32, num_layers=2, num_heads=2, freq_dim=16, text_dim=8, projector_dim=8,
        action_dim=DIMS[0], state_dim=DIMS[1], in_channels=4, out_channels=4, horizon=16,
        position_grid=(1, 2),
    )  # fmt: skip
    text = WordEncoder.fit(["lift it", "push it"], dim=8)
    assert windows.normalizer is not None
    robots = {CARD.name: (CARD, windows.normalizer.statistics)}
    return WorldActionModel(transformer, codec, text, robots)


def reading(
    out: Path, settings: TrainSettings, recording: Path, codec: Path, folder: Path
) -> Trainer:
    """A training that reads as its settings say; features are in ``folder``."""
    video = codecs.load(codec)
    kinds = [kind for kind in (settings.full, settings.first) if kind.batch]
    dataset = Dataset.open(recording)
    sets = [WindowDataset(dataset, CARD, blocks=kind.blocks, stride=8) for kind in kinds]
    processes = Processes("cpu", settings)
    encoder = FeatureEncoder(video, *DIMS)
    opened = open_windows(sets, encoder, settings, folder, processes, progress=False)
    feeds = [
        Feed(kind, each, settings.validation) for kind, each in zip(kinds, opened, strict=True)
    ]
    mixture = Mixture(feeds, settings.seed, None, settings.shuffle, settings.open_episodes)
    return Trainer(small_model(video, sets[0]), mixture, settings, out, processes)
