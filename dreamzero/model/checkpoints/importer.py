"""``import``: any of the known layouts into one folder of ours, tensor by tensor.

DIR/transformer vae text_encoder image_encoder   config.json and safetensors of the libraries
DIR/extra            tensors of the release that no module of the libraries has (export needs them)
DIR/tokenizer        as it was
DIR/embodiment.json  card and statistics of every robot
DIR/release.json     where it came from; with DIR/release it is what ``export`` needs beside the weights
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import UserError
from . import robots as robot_files
from .configs import STEMS, empty_module, from_shapes, read_config, transformer, write_config
from .layouts import CODERS, Layout, Part, open_layout
from .names import Piece, canonical
from .shards import DTYPES, NAMES, Entry
from .writer import SHARD_BYTES, ShardSet, appearing, progress_bar

FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Item:
    """One tensor of ours and where it comes from."""

    part: Part
    entry: Entry
    piece: Piece
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return Entry("", self.dtype, self.shape, self.entry.file).nbytes


@dataclass(frozen=True)
class ImportOptions:
    """What a checkpoint does not say about itself.

    Attributes:
        tags: robots to take; all by default.
        dtype: of the floating-point weights written ("bfloat16", "float32"); as stored by default,
            and only then can the public layout be given back bit for bit.
        seed: of the coders, where the source has none (plain Wan).
        horizon: action steps a block, for plain Wan; DreamZero's configuration says it itself.
        tokenizer: folder of umt5-xxl's tokenizer, for layouts without one.
        prompt: template with ``{instruction}`` for the cards.
        allow_constant: take dimensions with q01 == q99 as constants.
    """

    tags: tuple[str, ...] = ()
    dtype: str | None = None
    seed: int = 0
    horizon: int | None = None
    tokenizer: Path | None = None
    prompt: str | None = None
    allow_constant: bool = False
    shard_bytes: int = SHARD_BYTES


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
    plan, configs, notes = _plan(layout, options)
    robots = _robots(layout, configs["transformer"], options)
    tokenizer = _tokenizer(layout, options)
    coders = _coders(configs["transformer"], plan["transformer"], options.seed)
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


def _plan(
    layout: Layout, options: ImportOptions
) -> tuple[dict[str, list[Item]], dict[str, dict[str, Any]], list[str]]:
    """Items and configuration of each component, all shapes checked."""
    wanted = NAMES.get(getattr(torch, options.dtype, torch.bool)) if options.dtype else None
    if options.dtype is not None and wanted not in FLOATS:
        raise UserError(f"--dtype {options.dtype}: bfloat16, float16 and float32 are known")
    plan: dict[str, list[Item]] = {}
    for part in layout.parts:
        for entry in part.weights.entries.values():
            for piece in part.pieces(entry.name):
                shape = piece.shape(entry.shape)
                dtype = wanted if wanted and entry.dtype in FLOATS else entry.dtype
                plan.setdefault(piece.component, []).append(Item(part, entry, piece, dtype, shape))
    if "transformer" not in plan:
        raise UserError(f"{layout.path} has no transformer (action_head.model.*)")
    notes: list[str] = []
    configs = {}
    for component in [name for name in STEMS if name in plan]:
        configs[component] = _config(layout, component, options)
        plan[component] = _fitting(layout, component, plan[component], configs[component])
    return plan, configs, notes


def _config(layout: Layout, component: str, options: ImportOptions) -> dict[str, Any]:
    if layout.kind == "diffusers":
        config = read_config(layout.path / component)
        return _from_diffusers(config, layout, options) if component == "transformer" else config
    shapes = layout.shapes(component)
    if component != "transformer":
        return from_shapes(component, shapes)
    given: Mapping[str, Any] = read_config(layout.path)
    where = str(layout.path / "config.json")
    if layout.kind == "release":
        try:
            given = given["action_head_cfg"]["config"]["diffusion_model_cfg"]
        except (KeyError, TypeError) as error:
            raise UserError(f"{where} has no action_head_cfg.config.diffusion_model_cfg") from error
    elif options.horizon is not None:
        given = {**given, "num_action_per_block": options.horizon}
    return transformer(shapes, given, where)


def _from_diffusers(
    config: Mapping[str, Any], layout: Layout, options: ImportOptions
) -> dict[str, Any]:
    """Our arguments from those of diffusers' WanTransformer3DModel."""
    try:
        heads = int(config["num_attention_heads"])
        return {
            "dim": heads * int(config["attention_head_dim"]),
            "num_heads": heads,
            **{
                key: config[key] for key in ("ffn_dim", "num_layers", "in_channels", "out_channels")
            },
            **{key: config[key] for key in ("text_dim", "freq_dim")},
            "image_dim": config.get("image_dim"),
            "patch_size": list(config["patch_size"]),
            "eps": config.get("eps", 1e-6),
            "action_dim": 32,
            "state_dim": 64,
            "projector_dim": 1024,
            "horizon": options.horizon or 24,
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{layout.path}/transformer/config.json is none of WanTransformer3DModel ({error})"
        ) from error


def _fitting(
    layout: Layout, component: str, items: list[Item], config: dict[str, Any]
) -> list[Item]:
    """The items that the component's module takes, once each; all of them there and of its shapes."""
    module = empty_module(component, config)
    wanted = {canonical(component, n): tuple(t.shape) for n, t in module.state_dict().items()}
    chosen: dict[str, Item] = {}
    for item in items:
        name, entry = item.piece.name, item.entry
        if name not in wanted:
            if name.endswith("position_ids"):  # a buffer that older transformers stored
                continue
            raise UserError(f"{entry.file}: {entry.name} is no part of a {component} of its size")
        if item.shape != wanted[name]:
            raise UserError(
                f"{entry.file}: {entry.name} has shape {list(entry.shape)}; the configuration "
                f"asks for {list(wanted[name])}" + (f" as {name}" if name != entry.name else "")
            )
        chosen.setdefault(name, item)
    missing = [name for name in wanted if name not in chosen]
    if component == "transformer" and layout.kind != "release":
        lacking = [name for name in missing if name.startswith(CODERS)]
        complete = [n for n in wanted if n.startswith(CODERS)]
        missing = [n for n in missing if n not in lacking or len(lacking) < len(complete)]
    if missing:
        raise UserError(
            f"{layout.path} lacks {len(missing)} tensors of the {component}, {missing[0]} first: "
            "download it again"
        )
    return list(chosen.values())


def _coders(config: dict[str, Any], items: list[Item], seed: int) -> dict[str, torch.Tensor]:
    """Freshly initialised action and state coders, where the source has none."""
    if any(item.piece.name.startswith(CODERS) for item in items):
        return {}
    from ..coders import ActionEncoder, SlotMLP

    slots, dim, hidden = config.get("slots", 1), config["dim"], config["projector_dim"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = {
            "state_encoder": SlotMLP(slots, config["state_dim"], hidden, dim),
            "action_encoder": ActionEncoder(slots, config["action_dim"], dim),
            "action_decoder": SlotMLP(slots, dim, hidden, config["action_dim"]),
        }
    dtype = DTYPES[items[0].dtype]
    return {
        f"{name}.{key}": tensor.to(dtype)
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }


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
    return robot_files.Geometry(config["horizon"], config.get("window_blocks", 4), canvas)


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
