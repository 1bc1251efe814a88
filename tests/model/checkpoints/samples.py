"""Miniatures in other layouts, and how folders are compared."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamzero.model.checkpoints.layouts import CODERS
from dreamzero.model.checkpoints.miniature import Widths, write_release
from dreamzero.model.checkpoints.names import PREFIXES
from dreamzero.model.checkpoints.shards import open_indexed

SHALLOW = Widths(layers=2, text_layers=2, image_layers=4)


def tensors(folder: Path, stem: str = "model") -> dict[str, Tensor]:
    weights = open_indexed(folder, stem)
    assert weights is not None
    return {name: weights.tensor(name).clone() for name in weights}


def same_bytes(a: Path, b: Path) -> list[str]:
    """Files that differ or are missing on one side."""
    names = {p.relative_to(x) for x in (a, b) for p in x.rglob("*") if p.is_file()}
    return [
        str(n)
        for n in sorted(names)
        if not (
            (a / n).is_file() and (b / n).is_file() and filecmp.cmp(a / n, b / n, shallow=False)
        )
    ]


def wan_parts(release: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    return {
        component: {n.removeprefix(p): t for n, t in release.items() if n.startswith(p)}
        for component, p in PREFIXES.items()
    }


def write_wan(folder: Path, release: dict[str, Tensor], config: dict[str, Any]) -> Path:
    """An original Wan repository: DiT without coders, three .pth files."""
    parts = wan_parts(release)
    folder.mkdir(parents=True)
    plain = {n: t for n, t in parts["transformer"].items() if not n.startswith(CODERS)}
    write_release(folder, plain)
    (folder / "model.safetensors").rename(folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    for component, name in (
        ("text_encoder", "models_t5_umt5-xxl-enc-bf16.pth"),
        ("image_encoder", "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"),
        ("vae", "Wan2.1_VAE.pth"),
    ):
        if parts[component]:
            torch.save(parts[component], folder / name)
    (folder / "google/umt5-xxl").mkdir(parents=True)
    (folder / "google/umt5-xxl/tokenizer.json").write_text("{}")
    return folder


def wan_config(w: Widths) -> dict[str, Any]:
    return {
        "_class_name": "WanModel",
        "model_type": "i2v",
        "dim": w.dim,
        "ffn_dim": w.ffn,
        "freq_dim": w.freq,
        "num_layers": w.layers,
        "num_heads": w.heads,
        "in_dim": 36,
        "out_dim": 16,
    }


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
