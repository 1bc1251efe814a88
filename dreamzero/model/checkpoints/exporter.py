"""``export``: the public layout again, bit for bit where the checkpoint came from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import UserError
from .configs import read_config
from .layouts import Layout, adapter_facts, open_layout
from .names import EXTRA, canonical, join, pieces, to_release, vae_version
from .peft_names import adapter_name_of_ours
from .shards import Entry, Weights, parse_header
from .writer import SHARD_BYTES, Progress, ShardFile, ShardSet, appearing, progress_bar


@dataclass(frozen=True)
class Exported:
    """Where the checkpoint is, and whether its shards are those it once came in."""

    path: Path
    same_shards: bool


@dataclass(frozen=True)
class Source:
    """One tensor of the release: which of ours it is joined from."""

    parts: list[tuple[Weights, str]]
    pieces: list[Any]
    dtype: str
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        tensors = [weights.tensor(name) for weights, name in self.parts]
        return join(self.pieces, tensors) if self.pieces else tensors[0]

    def release(self) -> None:
        for weights, name in self.parts:
            weights.release(name)


def export_checkpoint(
    path: str | Path,
    out: str | Path,
    *,
    like: str | Path | None = None,
    progress: bool | None = False,
    shard_bytes: int = SHARD_BYTES,
) -> Exported:
    """Write an imported folder (or adapter) in the layout of the public release.

    What was imported from it comes back bit for bit: names, bytes, shards, index, configurations.
    Anything else gets shards of ``shard_bytes`` and configurations made from ours.

    Args:
        path: folder that ``import``, ``merge-lora`` or a training wrote.
        out: new folder.
        like: imported folder whose shards and configurations to use (for a model fine-tuned from
            it); ``path`` itself by default.
        progress: True shows a bar, None one on a terminal only.

    Raises:
        UserError: not such a folder, or a tensor that the release has no name for. Nothing is left
            behind then.
    """
    layout, out = open_layout(path), Path(out)
    if layout.kind not in ("ours", "adapter"):
        raise UserError(f"{path} is not an imported folder: give one that import wrote")
    model = layout.path if like is None else Path(like)
    if like is not None and not any(part.component == EXTRA for part in layout.parts):
        # What no module has does not come through a training; it is what it was.
        layout.parts += [part for part in open_layout(model).parts if part.component == EXTRA]
    sources = _adapter(layout) if layout.kind == "adapter" else _sources(layout)
    headers = model / "release" / "headers"
    if like is not None and not headers.is_dir():
        raise UserError(f"--like {like} was not imported from the public layout: nothing to follow")
    files = sorted(headers.glob("*.json")) if headers.is_dir() else []
    if files and _fits(files, sources, model, like is not None):
        with appearing(out) as work, progress_bar(_total(sources), "export", progress) as bar:
            for header in files:
                _write_again(header, sources, work, bar)
            for kept in sorted((model / "release").iterdir()):
                if kept.is_file():
                    shutil.copyfile(kept, work / kept.name)
            kept = model / "release" / "experiment_cfg"
            if kept.is_dir() and _robots(layout.path) == _robots(model):
                shutil.copytree(kept, work / kept.name)
            else:
                _write_robots(layout, work)
        return Exported(out, True)
    with appearing(out) as work, progress_bar(_total(sources), "export", progress) as bar:
        announced = {name: (s.dtype, s.shape) for name, s in sources.items()}
        with ShardSet(work, "model", announced, bar, shard_bytes) as shards:
            for name, source in sources.items():
                shards.write(name, source.read())
                source.release()
        _write_config(layout, work)
        _write_robots(layout, work)
    return Exported(out, False)


def _total(sources: Mapping[str, Source]) -> int:
    return sum(Entry(n, s.dtype, s.shape, Path()).nbytes for n, s in sources.items())


def _sources(layout: Layout) -> dict[str, Source]:
    """Release name -> ours, for every tensor of the folder."""
    ours: dict[tuple[str, str], tuple[Weights, str]] = {}
    for part in layout.parts:
        assert part.component is not None
        for name in part.weights:
            ours[part.component, canonical(part.component, name)] = (part.weights, name)
    video = vae_version(name for component, name in ours if component == "vae")
    sources: dict[str, Source] = {}
    for component, name in ours:
        try:
            release = to_release(component, name, video)
        except UserError as error:
            raise UserError(f"{layout.path} does not fit the public layout: {error}") from error
        if release in sources:
            continue
        found = pieces(release)
        missing = [piece.name for piece in found if (piece.component, piece.name) not in ours]
        if missing:
            raise UserError(f"{layout.path}/{component} lacks {missing[0]}, a part of {release}")
        parts = [ours[piece.component, piece.name] for piece in found]
        entries = [weights.entries[ours_name] for weights, ours_name in parts]
        if len({entry.dtype for entry in entries}) > 1:
            raise UserError(f"{layout.path}/{component}: the parts of {release} differ in dtype")
        shape = entries[0].shape
        if len(entries) > 1:
            shape = (sum(entry.shape[0] for entry in entries), *shape[1:])
        shape = (1,) * found[0].unit_axes + shape
        sources[release] = Source(parts, found, entries[0].dtype, shape)
    return sources


def _adapter(layout: Layout) -> dict[str, Source]:
    weights = layout.parts[0].weights
    path = layout.path / "release.json"
    try:
        if path.is_file():
            names: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["names"]
        else:  # trained here
            names = {name: adapter_name_of_ours(name).release for name in weights}
        return {
            names[name]: Source([(weights, name)], [], entry.dtype, entry.shape)
            for name, entry in weights.entries.items()
        }
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} does not hold the release's names of the adapter") from error


def _fits(files: list[Path], sources: Mapping[str, Source], model: Path, asked: bool) -> bool:
    """Whether the kept headers describe these tensors; a mismatch is an error where asked for."""
    wanted = {
        entry.name: entry for file in files for entry in parse_header(file.read_bytes(), file)
    }
    odd = sorted(wanted.keys() ^ sources.keys())
    for name, entry in wanted.items():
        source = sources.get(name)
        if source is not None and (source.dtype, source.shape) != (entry.dtype, entry.shape):
            odd.append(f"{name} ({source.dtype} {list(source.shape)}, was {entry.dtype})")
    if odd and asked:
        raise UserError(
            f"this model and --like {model} differ in {len(odd)} tensors, {odd[0]} first"
        )
    return not odd


def _write_again(header: Path, sources: Mapping[str, Source], work: Path, bar: Progress) -> None:
    """One shard as it was: the kept header, then every tensor at its old place."""
    data = header.read_bytes()
    entries = parse_header(data, header)
    end = max((entry.stop for entry in entries), default=8 + len(data))
    with ShardFile(work / header.name.removesuffix(".json"), data, end, bar) as file:
        for entry in entries:
            source = sources[entry.name]
            file.write(entry.start, source.read())
            source.release()


def _write_config(layout: Layout, work: Path) -> None:
    """``config.json`` made from ours (the public file holds far more)."""
    if layout.kind == "adapter":
        facts = adapter_facts(layout)
        lora = {"lora_rank": facts["rank"], "lora_alpha": facts["alpha"]}
        _write_head({"train_architecture": "lora", **lora}, work)
        return
    ours = read_config(layout.path / "transformer")
    widths = {
        "dim": ours["dim"],
        "ffn_dim": ours["ffn_dim"],
        "num_layers": ours["num_layers"],
        "num_heads": ours["num_heads"],
        "in_dim": ours["in_channels"],
        "out_dim": ours["out_channels"],
        "freq_dim": ours["freq_dim"],
        "eps": ours["eps"],
        "num_action_per_block": ours["horizon"],
        "num_frame_per_block": ours["frames_per_block"],
        "max_chunk_size": ours["window_blocks"],
    }
    head = {
        "action_dim": ours["action_dim"],
        "max_state_dim": ours["state_dim"],
        "action_horizon": ours["horizon"],
        "diffusion_model_cfg": widths,
    }
    _write_head(head, work)


def _write_head(head: dict[str, Any], work: Path) -> None:
    config = {"model_type": "vla", "architectures": ["VLA"], "action_head_cfg": {"config": head}}
    (work / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _robots(folder: Path) -> dict[str, Any]:
    """``embodiment.json`` as it stands; empty for an adapter whose robots are those of its base."""
    path = folder / "embodiment.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write_robots(layout: Layout, work: Path) -> None:
    """``experiment_cfg`` made from ours."""
    robots = _robots(layout.path)
    if not robots:
        return
    import yaml

    metadata, transforms, relative = {}, {}, set()
    for tag, robot in robots.items():
        card = robot["card"]
        metadata[tag] = {"statistics": robot["statistics"]}
        order = {"video_concat_order": [f"video.{v.split('.')[-1]}" for v in card["views"]]}
        for kind in ("state", "action"):
            order[f"{kind}_concat_order"] = [f"{kind}.{f['key']}" for f in card[kind]]
        transforms[tag] = {"transforms": [order]}
        relative |= {f["key"] for f in card["action"] if f["relative"]}
    conf = {
        "all_transforms": transforms,
        "relative_action": bool(relative),
        "relative_action_keys": sorted(relative),
    }
    folder = work / "experiment_cfg"
    folder.mkdir()
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    (folder / "conf.yaml").write_text(yaml.safe_dump(conf, sort_keys=False), encoding="utf-8")
