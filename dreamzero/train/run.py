"""From recordings to a trained model folder: codec, statistics, latents, loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.cards import choose
from ..data.normalize import Statistics
from ..data.reader import Dataset
from ..data.windows import WindowDataset
from ..embodiments import Embodiment
from ..errors import UserError, make_folder
from ..model import codecs
from ..model.bundle import WorldActionModel
from ..model.presets import preset as preset_arguments
from ..model.text import WordEncoder
from ..model.transformer import DreamZeroTransformer
from ..report.record import RunRecord
from ..shipped import find
from .codec import CodecTraining, train_codec
from .config import Source, TrainSettings
from .latents import encode_cached
from .loop import Feed, Trainer


def group_by_card(
    paths: Sequence[Path | str], card: str | None = None
) -> dict[str, tuple[Embodiment, list[Dataset]]]:
    """Open datasets and put those of one robot together."""
    groups: dict[str, tuple[Embodiment, list[Dataset]]] = {}
    for path in paths:
        dataset = Dataset.open(path)
        found = choose(dataset, card)
        groups.setdefault(found.name, (found, []))[1].append(dataset)
    return groups


def clips(windows: WindowDataset, most: int = 400, seed: int = 0) -> np.ndarray:
    """Up to ``most`` whole windows as uint8 ``[n, t, h, w, 3]``, for training the codec."""
    pick = np.random.default_rng(seed).permutation(len(windows))[:most]
    return np.stack([windows[int(i)].video for i in sorted(pick)])


def train(
    data: Sequence[Path | str],
    out: Path | str,
    preset: str | None = None,
    settings: TrainSettings | None = None,
    *,
    card: str | None = None,
    codec: Path | str | None = None,
    codec_training: CodecTraining | None = None,
    init: Path | str | None = None,
    latents: Path | str | None = None,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
) -> RunRecord:
    """Train a world action model on recordings and write it to ``out``.

    Args:
        data: LeRobot datasets; several robots may be mixed, they take turns.
        preset: size of the transformer; None: that of ``init``, or "tiny".
        card: embodiment of all datasets; guessed from each by default.
        codec: folder of a video codec; None trains one on these recordings first.
        init: model folder whose transformer, text encoder and codec to start from.
            Robots it knows keep its statistics.
        latents: folder of encoded windows, which several runs may share; ``out/latents`` if None.
        resume: go on from ``out/state.pt``.

    Raises:
        UserError: data, card, codec, preset and device do not fit together, or ``out`` cannot be
            written. What can be seen beforehand is said before ``out`` is made.
    """
    settings = settings or TrainSettings()
    out, name = Path(out), preset or "tiny"
    sizes = preset_arguments(name)
    _check_place(out, resume, device)
    groups = group_by_card(data, card)
    start = None if init is None else WorldActionModel.load(find(init))
    if start is not None and preset is not None:
        _check_preset(start, preset, sizes)
    make_folder(out)
    cuts: list[tuple[Source, WindowDataset]] = []
    robots: dict[str, tuple[Embodiment, Statistics]] = {}
    for robot_card, datasets in groups.values():
        statistics: Statistics | None = None
        if start is not None and robot_card.name in start.robots:
            statistics = start.robots[robot_card.name][1]
        for source in (settings.full, settings.first):
            if source.batch < 1:
                continue
            windows = WindowDataset(
                datasets,
                robot_card,
                statistics,
                blocks=min(source.blocks, robot_card.blocks),
                stride=source.stride or None,
                idle=source.idle,
            )
            if windows.normalizer is not None:
                statistics = windows.normalizer.statistics
            cuts.append((source, windows))
        robots[robot_card.name] = (robot_card, statistics or Statistics())
    video_codec = _codec(out, codec, start, cuts, codec_training, progress)
    first_card = next(iter(groups.values()))[0]
    arguments = sizes | _fit(first_card, video_codec, name)
    for robot_card, _ in groups.values():
        if _fit(robot_card, video_codec, name) != _fit(first_card, video_codec, name):
            raise UserError(
                f"{robot_card.name} and {first_card.name} have different canvases or horizons: "
                f"train them apart"
            )
    if start is not None:
        _check_fit(start, first_card, arguments)
    prompts = {
        c.render_prompt(e.task) for c, sets in groups.values() for d in sets for e in d.episodes
    }
    torch.manual_seed(settings.seed)
    if start is None:
        transformer = DreamZeroTransformer(**arguments)
        text_encoder = WordEncoder.fit(prompts, dim=arguments["text_dim"])
    else:
        transformer, text_encoder = start.transformer, start.text_encoder
        robots = start.robots | robots
    model = WorldActionModel(transformer, video_codec, text_encoder, robots)
    feeds = []
    for source, windows in cuts:
        encoded = encode_cached(
            windows,
            video_codec,
            transformer.config.action_dim,
            transformer.config.state_dim,
            Path(latents) if latents else out / "latents",
            progress,
        )
        feeds.append(Feed(source, encoded, validation=settings.validation))
    return Trainer(model, feeds, settings, out, device).run(resume, progress)


def _check_place(out: Path, resume: bool, device: str) -> None:
    """Raise UserError where training could not even begin, before minutes go into a codec."""
    if resume and not (out / "state.pt").is_file():
        raise UserError(f"--resume: {out} holds no state.pt; leave --resume out to begin")
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise UserError(f"--device {device}: must be cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}: torch sees no GPU here; use cpu (`dreamzero doctor`)")


def _check_preset(start: WorldActionModel, preset: str, sizes: dict[str, Any]) -> None:
    """Raise UserError if the model to start from is of another size than the preset asked for."""
    config = start.transformer.config
    for name in ("dim", "ffn_dim", "num_layers", "num_heads"):
        if getattr(config, name) != sizes[name]:
            raise UserError(
                f"--preset {preset}: the model of --init has {name} {getattr(config, name)}, this "
                f"preset {sizes[name]}; leave --preset out to go on at its size"
            )


def _check_fit(start: WorldActionModel, card: Embodiment, arguments: dict[str, Any]) -> None:
    """Raise UserError if the model to start from was made for another codec, canvas or horizon."""
    for name in ("in_channels", "out_channels", "horizon", "window_blocks"):
        have, want = getattr(start.transformer.config, name), arguments[name]
        if have != want:
            raise UserError(
                f"--init: that model has {name} {have}, {card.name} and the codec need {want}; "
                "start from another model, or anew"
            )


def _codec(
    out: Path,
    codec: Path | str | None,
    start: WorldActionModel | None,
    cuts: list[tuple[Source, WindowDataset]],
    training: CodecTraining | None,
    progress: bool,
) -> codecs.Codec:
    """The codec that was named, that of the model to start from, or a new one in ``out/vae``."""
    if codec is not None:
        return codecs.load(codec)
    if start is not None:
        return start.codec
    if not (out / "vae" / "config.json").exists():
        longest = max(source.blocks for source, _ in cuts)
        footage = [clips(w) for source, w in cuts if source.blocks == longest]
        train_codec(
            np.concatenate(footage), training or CodecTraining(), out / "vae", progress=progress
        )
    return codecs.load(out / "vae")


def _fit(card: Embodiment, codec: codecs.Codec, name: str) -> dict[str, object]:
    """What card and codec decide about the transformer."""
    arguments = preset_arguments(name)
    height, width = (side // codec.spatial_factor for side in card.canvas_px)
    patch = arguments.get("patch_size", (1, 2, 2))
    fit: dict[str, object] = {
        "in_channels": codec.latent_channels,
        "out_channels": codec.latent_channels,
        "horizon": card.horizon,
        "window_blocks": card.blocks,
    }
    if arguments.get("position_grid") is not None:
        fit["position_grid"] = (height // patch[1], width // patch[2])
    return fit
