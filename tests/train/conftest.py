"""An imported checkpoint in miniature, and a recording of the robot that it knows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamzero.data.writer import Writer
from dreamzero.model.checkpoints.importer import import_checkpoint
from dreamzero.model.checkpoints.layouts import CODERS
from dreamzero.model.checkpoints.miniature import (
    Widths,
    random_tensors,
    release_shapes,
    write_miniature,
    write_release,
    write_tokenizer,
)
from dreamzero.model.checkpoints.names import PREFIXES
from dreamzero.model.checkpoints.plan import ImportOptions

SHALLOW = Widths(layers=2, text_layers=2, image_layers=4)
CANVAS = (32, 64)
VIEWS = ("exterior_1_left", "exterior_2_left", "wrist_left")


def import_miniature(root: Path, widths: Widths = SHALLOW, seed: int = 0) -> Path:
    """The folder of an import with small images."""
    public = write_miniature(
        root / "droid", widths, seed, image_px=(CANVAS[0] // 2, CANVAS[1] // 2)
    )
    options = ImportOptions(tokenizer=write_tokenizer(root / "words"))
    return import_checkpoint(public, root / "ours", options=options)


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_miniature(tmp_path_factory.mktemp("imported"))


@pytest.fixture(scope="session")
def droid_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes of 7 s with two instructions; three cameras that see noise."""
    root = tmp_path_factory.mktemp("droid") / "recording"
    rng = np.random.default_rng(0)
    names = [f"joint_{i}" for i in range(7)] + ["gripper"]
    views = {f"observation.images.{view}": (16, 32) for view in VIEWS}
    with Writer(root, 15, "franka", views, names, names) as writer:
        for episode in range(3):
            frames = {v: rng.integers(0, 255, (105, 16, 32, 3), dtype=np.uint8) for v in views}
            path = np.cumsum(rng.normal(0, 0.02, (106, 8)), axis=0).astype(np.float32)
            path[:, 7] = np.linspace(0, 1, 106)
            task = "push the block" if episode < 2 else "open the block"
            writer.add_episode(frames, path[:-1], path[1:], task)
    return root


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported text-to-video weights of Wan's own layout: no image branch, no coders, no robots."""
    root = tmp_path_factory.mktemp("plain")
    source = root / "Wan2.1-T2V"
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in random_tensors(release_shapes(SHALLOW), 0).items():
        prefix = next(p for p in PREFIXES.values() if name.startswith(p))
        parts.setdefault(prefix, {})[name.removeprefix(prefix)] = tensor
    own = {
        name: tensor
        for name, tensor in parts[PREFIXES["transformer"]].items()
        if not name.startswith(CODERS) and "img" not in name
    }
    own["patch_embedding.weight"] = own["patch_embedding.weight"][:, :16].clone()
    source.mkdir()
    write_release(source, own)
    (source / "model.safetensors").rename(source / "diffusion_pytorch_model.safetensors")
    sizes = {"dim": 24, "ffn_dim": 32, "num_layers": 2, "num_heads": 2, "freq_dim": 16}
    (source / "config.json").write_text(json.dumps(sizes | {"in_dim": 16, "out_dim": 16}))
    torch.save(parts[PREFIXES["text_encoder"]], source / "models_t5_umt5-xxl-enc-bf16.pth")
    torch.save(parts[PREFIXES["vae"]], source / "Wan2.1_VAE.pth")
    options = ImportOptions(tokenizer=write_tokenizer(root / "words"))
    return import_checkpoint(source, root / "ours", options=options)
