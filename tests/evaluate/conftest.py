"""A recording of the SO-101 with a moving square, and an untrained tiny model of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamzero import embodiments
from dreamzero.data.normalize import compute
from dreamzero.data.reader import Dataset
from dreamzero.data.writer import Writer
from dreamzero.inference import WorldActionPolicy
from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.codecs.tiny import TinyCodec
from dreamzero.model.presets import preset
from dreamzero.model.text import WordEncoder
from dreamzero.model.transformer import DreamZeroTransformer

CARD = embodiments.get("tabletop_so101").with_(memory_blocks=None)
ROWS = 65


def moving_square(rows: int, size: int = 64) -> np.ndarray:
    """uint8 ``[t, 64, 64, 3]``: a bright square of 16 px that goes right, half a pixel a row."""
    frames = np.full((rows, size, size, 3), 40, np.uint8)
    for t in range(rows):
        frames[t, 24:40, t // 2 : t // 2 + 16] = 220
    return frames


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six episodes; joints move at 0.1 rad a row from different starts, the command is one row ahead."""
    root = tmp_path_factory.mktemp("openloop") / "square"
    names = [f"j{i}" for i in range(CARD.state_dim)]
    with Writer(root, 15, "so101", {CARD.views[0]: (64, 64)}, names, names) as writer:
        for episode in range(6):
            path = 0.1 * np.arange(ROWS + 1)[:, None] + episode + np.zeros(CARD.state_dim)
            path = path.astype(np.float32)
            path[:, -1] = 0.5
            writer.add_episode(
                {CARD.views[0]: moving_square(ROWS)}, path[:-1], path[1:], "go right"
            )
    return Dataset.open(root)


@pytest.fixture(scope="session")
def policy(recording: Dataset) -> WorldActionPolicy:
    torch.manual_seed(0)
    transformer = DreamZeroTransformer(**preset("tiny"))
    text = WordEncoder.fit([CARD.render_prompt("go right")], dim=128)
    codec = TinyCodec(width_half=8, width_quarter=8, width_eighth=8)
    model = WorldActionModel(
        transformer, codec, text, {CARD.name: (CARD, compute(recording, CARD))}
    )
    for module in (model.transformer, model.text_encoder, codec):
        module.eval().requires_grad_(False)
    return WorldActionPolicy(model, dream=True)
