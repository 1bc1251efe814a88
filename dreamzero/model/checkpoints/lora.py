"""LoRA adapters: import a save of the release, apply it, merge it; never onto another base.

What such a folder holds is said in ``adapters``. The release's 814 tensors are 400 pairs A, B of rank 4
(q k v o and both ffn matrices of 40 blocks) and the 14 tensors of the action and state coders, whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError
from . import robots as robot_files
from .adapters import Base, open_base, write_facts
from .configs import STEMS
from .fingerprint import fingerprint
from .importer import geometry, keep_source, write_robots
from .layouts import Layout, Part, adapter_facts, open_layout
from .peft_names import AdapterName, adapter_name, adapter_name_of_ours, scale_of
from .plan import ImportOptions
from .shards import Entry
from .writer import SHARD_BYTES, ShardSet, appearing, progress_bar


def import_adapter(
    layout: Layout,
    base: Path,
    out: Path,
    options: ImportOptions,
    progress: bool | None = False,
) -> Path:
    """Convert a LoRA save of the release for one base, whose fingerprint it will carry.

    Raises:
        UserError: the base is no imported full checkpoint, or shapes do not fit it.
    """
    for option in ("dtype", "horizon", "tokenizer"):
        if getattr(options, option) is not None:
            raise UserError(f"{layout.path} is a LoRA save: --{option} belongs to its base")
    weights = layout.parts[0].weights
    base_part, base_config = open_base(base)
    names = {name: adapter_name(name) for name in weights}
    rank, alpha = scale_of(layout.path)
    whole = [a.ours for a in names.values() if not a.side]
    _check(layout, base, base_part, names, rank)
    robots = _robots_of(layout, base, base_config, options)
    announced = {
        names[name].stored: (entry.dtype, entry.shape) for name, entry in weights.entries.items()
    }
    of = Base.of(base, base_part, whole)
    with appearing(out) as work:
        with (
            progress_bar(
                sum(e.nbytes for e in weights.entries.values()), "import", progress
            ) as bar,
            ShardSet(work, "adapter_model", announced, bar, shard_bytes=1 << 62) as shards,
        ):
            for name in weights:
                shards.write(names[name].stored, weights.tensor(name))
                weights.release(name)
        write_facts(work, of, names.values(), rank, alpha)
        if robots:
            write_robots(robots, work)
        keep_source(layout, work, {"names": {a.stored: n for n, a in names.items()}, "notes": []})
    return out


def _check(
    layout: Layout, base: Path, part: Part, names: Mapping[str, AdapterName], rank: int
) -> None:
    entries = layout.parts[0].weights.entries
    sides: dict[str, dict[str, Entry]] = {}
    for name, adapter in names.items():
        there = part.weights.entries.get(adapter.ours)
        entry = entries[name]
        if there is None:
            raise UserError(f"{entry.file}: {name} has no counterpart in {base}: another model")
        if not adapter.side:
            if entry.shape != there.shape:
                raise UserError(
                    f"{entry.file}: {name} has shape {list(entry.shape)}, in {base} it is "
                    f"{list(there.shape)}: the adapter belongs to another base"
                )
            continue
        sides.setdefault(adapter.ours, {})[adapter.side] = entry
        wanted = (rank, there.shape[1]) if adapter.side == "A" else (there.shape[0], rank)
        if entry.shape != wanted:
            raise UserError(
                f"{entry.file}: {name} has shape {list(entry.shape)}; rank {rank} on {base} asks "
                f"for {list(wanted)}"
            )
    for ours, both in sides.items():
        if len(both) < 2:
            only = next(iter(both.values()))
            raise UserError(f"{only.file}: {only.name} has no second half (A and B) for {ours}")


def _robots_of(
    layout: Layout, base: Path, config: Mapping[str, Any], options: ImportOptions
) -> robot_files.Robots:
    """The adapter's own robots; where it brings no experiment_cfg, the base's stay in force."""
    if (layout.path / "experiment_cfg").is_dir():
        return robot_files.read(
            layout.path, geometry(config), options.tags, options.prompt, options.allow_constant
        )
    if options.tags:
        raise UserError(
            f"{layout.path} has no experiment_cfg, so its robots are those of {base}: "
            "leave --embodiment out"
        )
    return {}


def check_base(adapter: Layout, base: Path) -> Part:
    """The base's transformer, after making sure that the adapter was trained from it.

    Raises:
        UserError: another base.
    """
    if adapter.kind == "lora":
        raise UserError(
            f"{adapter.path} is a LoRA save that is not imported yet: run `dreamzero checkpoint "
            f"import {adapter.path} --base DIR --out DIR` first"
        )
    if adapter.kind != "adapter":
        raise UserError(f"{adapter.path} is a full checkpoint, not an adapter")
    part, _ = open_base(base)
    known: Any = adapter_facts(adapter)["base"]
    if fingerprint(part.weights, without=known["without"]) != known["fingerprint"]:
        raise UserError(
            f"{adapter.path} was made for another base ({known['name']}, fingerprint "
            f"{known['fingerprint'][:12]}) than {base}: on this one it gives silent nonsense"
        )
    return part


def deltas(adapter: Layout) -> Iterator[tuple[str, Tensor, bool]]:
    """(our name, float32 change, False) for pairs and (our name, tensor, True) for whole tensors."""
    weights, facts = adapter.parts[0].weights, adapter_facts(adapter)
    scale = float(facts["alpha"]) / float(facts["rank"])  # type: ignore[arg-type]
    for name in weights:
        found = adapter_name_of_ours(name)
        if found.side == "B":
            continue
        if found.side == "A":
            up = weights.tensor(name.replace(".lora_A.", ".lora_B.")).float()
            yield found.ours, scale * (up @ weights.tensor(name).float()), False
        else:
            yield found.ours, weights.tensor(name), True


@torch.no_grad()
def load_adapter(transformer: nn.Module, adapter: str | Path, base: str | Path) -> None:
    """Add an adapter's changes to a transformer in memory that was loaded from ``base``.

    Raises:
        UserError: the adapter was trained from another base.
    """
    layout = open_layout(adapter)
    check_base(layout, Path(base))
    parameters = dict(transformer.named_parameters())
    for name, change, whole in deltas(layout):
        parameter = parameters[name]
        value = change if whole else parameter.float() + change.to(parameter.device)
        parameter.copy_(value)


def merge_lora(
    base: str | Path,
    adapter: str | Path,
    out: str | Path,
    *,
    progress: bool | None = False,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write ``base`` with the adapter's changes added (in float32, stored in the base's dtype).

    Args:
        base: imported full checkpoint.
        adapter: imported adapter (``import LORA --base DIR``), or one trained here.
        out: new folder; robots are the adapter's where it has its own, else the base's.

    Raises:
        UserError: another base, or one of the folders is not what it should be.
    """
    base, out, layout = Path(base), Path(out), open_layout(adapter)
    part = check_base(layout, base)
    weights = part.weights
    changed = {adapter_name_of_ours(name).ours for name in layout.parts[0].weights}
    with appearing(out) as work:
        for path in sorted(base.iterdir()):
            if path.is_dir() and path.name != "transformer":
                shutil.copytree(path, work / path.name)
            elif path.is_file():
                shutil.copyfile(path, work / path.name)
        _take_over(layout.path, work)
        (work / "transformer").mkdir()
        shutil.copyfile(base / "transformer/config.json", work / "transformer/config.json")
        announced = {name: (entry.dtype, entry.shape) for name, entry in weights.entries.items()}
        total = sum(entry.nbytes for entry in weights.entries.values())
        with (
            progress_bar(total, "merge", progress) as bar,
            ShardSet(
                work / "transformer", STEMS["transformer"], announced, bar, shard_bytes
            ) as shards,
        ):
            for name in weights:
                if name not in changed:
                    shards.write(name, weights.tensor(name))
                    weights.release(name)
            for name, change, whole in deltas(layout):
                shards.write(name, change if whole else weights.tensor(name).float() + change)
                weights.release(name)
    return out


def _take_over(adapter: Path, work: Path) -> None:
    """The adapter's robots and experiment_cfg in place of the base's, and a word on the merge."""
    if (adapter / "embodiment.json").is_file():
        shutil.copyfile(adapter / "embodiment.json", work / "embodiment.json")
        # Without the adapter's own (it was trained here), ``export`` makes it from ours.
        shutil.rmtree(work / "release" / "experiment_cfg", ignore_errors=True)
        kept = adapter / "release" / "experiment_cfg"
        if kept.is_dir():
            shutil.copytree(kept, work / "release" / "experiment_cfg")
    source = work / "release.json"
    data: dict[str, Any] = {"format": 1, "notes": []}
    if source.is_file():
        data |= json.loads(source.read_text(encoding="utf-8"))
    data["notes"].append(f"adapter {adapter.resolve().name} merged")
    source.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
