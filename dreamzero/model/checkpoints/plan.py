"""What an import will write: every tensor, its source, shape and dtype, checked before a byte is copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import UserError
from .configs import STEMS, empty_module, from_shapes, read_config, transformer
from .layouts import CODERS, Layout, Part
from .names import Piece, canonical
from .shards import DTYPES, NAMES, Entry
from .writer import SHARD_BYTES

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
        """Size as it will be written, bytes."""
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


def make_plan(
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
        if options.horizon is not None:
            raise UserError(f"{where} says the horizon itself: leave --horizon out")
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
            # A buffer that older transformers stored, and CLIP's contrastive end.
            if name.endswith("position_ids") or name == "visual_projection.weight":
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


def new_coders(config: dict[str, Any], items: list[Item], seed: int) -> dict[str, torch.Tensor]:
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
