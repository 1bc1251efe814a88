"""``import``: any of the known layouts into one folder of ours, tensor by tensor.

```text
DIR/transformer vae text_encoder image_encoder   config.json and safetensors of the libraries
DIR/extra            tensors of the release that no module of the libraries has (export needs them)
DIR/tokenizer        as it was
DIR/embodiment.json  card and statistics of every robot
DIR/release.json     where it came from; with DIR/release it is what ``export`` needs beside the weights
```
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import UserError
from . import robots as robot_files
from .configs import STEMS, write_config
from .layouts import Layout, open_layout
from .peft_names import MERGED, WrappedWeights
from .plan import ImportOptions, Item, make_plan, new_coders
from .shards import NAMES, Entry
from .writer import ShardSet, appearing, progress_bar


def import_checkpoint(
    path: str | Path,
    out: str | Path,
    *,
    base: str | Path | None = None,
    revision: str | None = None,
    options: ImportOptions | None = None,
    progress: bool | None = False,
) -> Path:
    """Convert a checkpoint (see ``layouts``) into the folder ``out``, which must not exist.

    Weights are read through memory maps and written one by one: beside the page cache this takes the
    memory of the largest tensor at most.

    Args:
        path: folder, or ``owner/name`` on the Hub.
        base: for LoRA saves, the imported folder that the adapter was trained from.
        revision: branch or commit on the Hub.
        progress: True shows a bar, None one on a terminal only.

    Returns:
        ``out``.

    Raises:
        UserError: see ``open_layout``; wrong or missing tensors, statistics or robots. Nothing is
            left behind then.
    """
    options = options or ImportOptions()
    layout, out = open_layout(path, revision), Path(out)
    if layout.kind in ("ours", "adapter"):
        raise UserError(f"{path} is imported already: use it as it is, or give it to export")
    if layout.kind == "lora":
        if base is None:
            raise UserError(
                f"{path} is a LoRA save: name the imported checkpoint that it was trained from with "
                "--base DIR (on any other base it gives silent nonsense)"
            )
        from .lora import import_adapter

        return import_adapter(layout, Path(base), out, options, progress)
    if base is not None:
        raise UserError(f"{path} is a full checkpoint, not a LoRA save: leave --base out")
    plan, configs, notes = make_plan(layout, options)
    robots = _robots(layout, configs["transformer"], options)
    if any(card.prompt == "{instruction}" for card, _ in robots.values()):
        notes.append(
            "prompt: the instruction alone; the release puts it into a sentence for each robot that "
            "its checkpoint does not hold (import --prompt)"
        )
    tokenizer = _tokenizer(layout, options)
    if any(isinstance(part.weights, WrappedWeights) for part in layout.parts):
        notes.append(MERGED)
    coders = new_coders(configs["transformer"], plan["transformer"], options.seed)
    if coders:
        notes.append(f"action and state coders initialised from seed {options.seed}")
    _need_space(layout, out)
    with appearing(out) as work:
        for component, config in configs.items():
            if layout.kind == "diffusers" and component != "transformer":
                (work / component).mkdir()
                shutil.copyfile(
                    layout.path / component / "config.json", work / component / "config.json"
                )
            else:
                write_config(component, config, work / component)
        _copy_weights(plan, coders, work, options, progress)
        if tokenizer is not None:
            shutil.copytree(tokenizer, work / "tokenizer")
        write_robots(robots, work)
        keep_source(layout, work, {"dtype": options.dtype, "notes": notes})
    return out


def _robots(layout: Layout, config: dict[str, Any], options: ImportOptions) -> robot_files.Robots:
    if layout.kind != "release":
        if options.tags:
            raise UserError(
                f"{layout.path} is plain Wan and knows no embodiment: leave --embodiment out"
            )
        return {}
    return robot_files.read(
        layout.path, geometry(config), options.tags, options.prompt, options.allow_constant
    )


def geometry(config: Mapping[str, Any]) -> robot_files.Geometry:
    """What cards take from a transformer's configuration (Wan 2.2 5B sees a small canvas)."""
    canvas = (160, 320) if config["out_channels"] == 48 else None
    return robot_files.Geometry(
        config["horizon"],
        config.get("window_blocks", 4),
        canvas,
        config.get("frames_per_block", 2),
    )


def _tokenizer(layout: Layout, options: ImportOptions) -> Path | None:
    folder = options.tokenizer or layout.tokenizer
    if (
        folder is not None
        and not any(folder.glob("tokenizer*"))
        and not any(folder.glob("*.model"))
    ):
        raise UserError(f"{folder} holds no tokenizer (tokenizer.json or spiece.model)")
    return folder


def _need_space(layout: Layout, out: Path) -> None:
    files = {file for part in layout.parts for file in part.weights.files}
    need = sum(file.stat().st_blocks * 512 for file in files)
    there = next(p for p in (out.parent, *out.parent.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < need:
        raise UserError(f"{there} has {free / 1e9:.1f} GB free and {need / 1e9:.1f} GB are needed")


def _copy_weights(
    plan: dict[str, list[Item]],
    coders: dict[str, torch.Tensor],
    work: Path,
    options: ImportOptions,
    progress: bool | None,
) -> None:
    """Every tensor in the order of the source's bytes, to its component's files."""
    announced: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
    by_entry: dict[tuple[int, str], list[Item]] = {}
    for component, items in plan.items():
        announced[component] = {item.piece.name: (item.dtype, item.shape) for item in items}
        for item in items:
            by_entry.setdefault((id(item.part), item.entry.name), []).append(item)
    fresh = {name: (NAMES[t.dtype], tuple(t.shape)) for name, t in coders.items()}
    announced["transformer"] |= fresh
    total = sum(
        Entry(name, *spec, work).nbytes
        for names in announced.values()
        for name, spec in names.items()
    )
    with progress_bar(total, "import", progress) as bar:
        sets = {
            component: ShardSet(
                work / component, STEMS.get(component, "model"), names, bar, options.shard_bytes
            )
            for component, names in announced.items()
        }
        try:
            for items in by_entry.values():
                weights, name = items[0].part.weights, items[0].entry.name
                tensor = weights.tensor(name)
                for item in items:
                    sets[item.piece.component].write(item.piece.name, item.piece.take(tensor))
                del tensor
                weights.release(name)
            for name, fresh_tensor in coders.items():
                sets["transformer"].write(name, fresh_tensor)
        except BaseException as error:
            for shards in sets.values():
                shards.__exit__(type(error), error, None)
            raise
        for shards in sets.values():
            shards.__exit__(None, None, None)


def write_robots(robots: robot_files.Robots, folder: Path) -> None:
    """``embodiment.json`` as ``WorldActionModel`` reads it."""
    data = {
        tag: {"card": card.to_json(), "statistics": statistics.to_json()}
        for tag, (card, statistics) in robots.items()
    }
    (folder / "embodiment.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def keep_source(layout: Layout, folder: Path, facts: Mapping[str, Any]) -> None:
    """``release.json``, and what ``export`` gives back verbatim: headers, index, configurations."""
    kept = folder / "release"
    if layout.kind in ("release", "lora"):
        (kept / "headers").mkdir(parents=True)
        for part in layout.parts:
            for name, header in part.weights.headers.items():
                (kept / "headers" / f"{name}.json").write_bytes(header)
        verbatim = ["config.json", "adapter_config.json", f"{layout.stem}.safetensors.index.json"]
        for name in verbatim:
            if (layout.path / name).is_file():
                shutil.copyfile(layout.path / name, kept / name)
        if (layout.path / "experiment_cfg").is_dir():
            shutil.copytree(layout.path / "experiment_cfg", kept / "experiment_cfg")
    data = {"format": 1, "layout": layout.kind, "source": layout.path.name, **facts}
    (folder / "release.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
