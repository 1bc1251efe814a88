"""Folders of adapters: peft's form with our names, and the fingerprint of the one base they fit.

```text
DIR/adapter_config.json, adapter_model.safetensors   as peft reads them
DIR/adapter.json        rank, alpha, and the base: its name, fingerprint, and what does not count in it
DIR/embodiment.json     card and statistics of the robots it was trained on, where they are its own
```

The pairs lie beside q k v o and both ffn matrices of every block; the action and state coders come
whole. ``import`` makes such folders of the release's LoRA saves, ``dreamzero train`` writes its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import UserError
from .configs import read_config
from .fingerprint import fingerprint
from .layouts import ADAPTER_FACTS, CODERS, Part, open_layout
from .peft_names import PEFT, AdapterName, adapter_name_of_ours
from .shards import NAMES, Entry
from .writer import ShardSet, progress_bar


@dataclass(frozen=True)
class Base:
    """The checkpoint that an adapter belongs to.

    Attributes:
        name: of its folder.
        fingerprint: of its transformer but for ``without``, which the adapter brings whole.
    """

    name: str
    fingerprint: str
    without: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, part: Part, whole: Iterable[str]) -> Base:
        """Of an opened transformer."""
        without = tuple(sorted(whole))
        return cls(path.resolve().name, fingerprint(part.weights, without), without)

    @classmethod
    def open(cls, path: Path) -> Base:
        """Of a folder of ours, the action and state coders left out."""
        part, _ = open_base(path)
        return cls.of(path, part, [name for name in part.weights if name.startswith(CODERS)])


def open_base(path: Path) -> tuple[Part, dict[str, Any]]:
    """Transformer and its configuration of a folder that an adapter may belong to.

    Raises:
        UserError: it is an adapter, or not imported.
    """
    layout = open_layout(path)
    if layout.kind in ("lora", "adapter"):
        raise UserError(
            f"{path} is an adapter: the base is the full checkpoint it was trained from"
        )
    if layout.kind != "ours":
        raise UserError(
            f"{path} is not imported yet: run `dreamzero checkpoint import {path}` first"
        )
    return layout.parts[0], read_config(path / "transformer")


def write_facts(
    folder: Path, base: Base, names: Iterable[AdapterName], rank: int, alpha: float
) -> None:
    """``adapter_config.json`` and ``adapter.json`` of an adapter with these tensors."""
    names = list(names)
    targets = {
        re.sub(r"^blocks\.\d+\.", "", a.ours.removesuffix(".weight")) for a in names if a.side
    }
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(targets),
        "modules_to_save": sorted({a.ours.split(".")[0] for a in names if not a.side}),
        "bias": "none",
    }
    facts = {
        "rank": rank,
        "alpha": alpha,
        "base": {
            "name": base.name,
            "fingerprint": base.fingerprint,
            "without": list(base.without),
        },
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / ADAPTER_FACTS).write_text(json.dumps(facts, indent=1) + "\n")


def write_adapter(
    folder: Path, base: Base, tensors: Mapping[str, Tensor], rank: int, alpha: float
) -> None:
    """An adapter that was trained here, into a folder that is there.

    Args:
        tensors: under our names, pairs as ``blocks.0.attn1.to_q.lora_A.weight``.
    """
    announced = {
        PEFT + name: (NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()
    }
    total = sum(Entry(name, *spec, folder).nbytes for name, spec in announced.items())
    with (
        progress_bar(total, "adapter", False) as bar,
        ShardSet(folder, "adapter_model", announced, bar, shard_bytes=1 << 62) as shards,
    ):
        for name, tensor in tensors.items():
            shards.write(PEFT + name, tensor.cpu())
    write_facts(folder, base, (adapter_name_of_ours(name) for name in announced), rank, alpha)
