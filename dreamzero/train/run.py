"""From recordings to a trained model folder: codec, statistics, latents, loop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.cards import choose, fitting
from ..data.mixture import Feed, Mixture
from ..data.normalize import Statistics
from ..data.reader import Dataset
from ..data.resample import validate
from ..data.windows import WindowDataset
from ..embodiments import Embodiment
from ..errors import UserError, make_folder
from ..model import codecs, conditioning
from ..model.bundle import WorldActionModel
from ..model.checkpoints.adapters import Base
from ..model.codecs.tiny import TinyCodec
from ..model.presets import preset as preset_arguments
from ..model.text import WordEncoder
from ..model.transformer import DreamZeroTransformer
from ..report.record import RunRecord
from ..shipped import find
from .arguments import check_arguments
from .codec import train_codec
from .config import CodecTraining, Source, TrainSettings
from .distributed import Processes
from .features import FeatureEncoder
from .loop import Trainer
from .reading import open_windows

# Windows below which a recording is cut more densely than a block at a time.
FEW = 256
# The canvas at which the codec's default batch costs five minutes of one core.
USUAL_PX = 64 * 64


def group_by_card(
    paths: Sequence[Path | str],
    card: str | None = None,
    known: Mapping[str, Embodiment] | None = None,
) -> dict[str, tuple[Embodiment, list[Dataset]]]:
    """Open datasets and put those of one robot together, in the order they were named.

    Args:
        card: of all of them; by default each gets the one that fits.
        known: cards of the model to start from, which go before the built-in ones.
    """
    groups: dict[str, tuple[Embodiment, list[Dataset]]] = {}
    for path in paths:
        dataset = Dataset.open(path)
        found = _card_of(dataset, card, known or {})
        groups.setdefault(found.name, (found, []))[1].append(dataset)
    return groups


def _card_of(dataset: Dataset, name: str | None, known: Mapping[str, Embodiment]) -> Embodiment:
    if name is not None and name in known:
        validate(dataset, known[name])
        return known[name]
    if name is None:
        for card in known.values():
            widths = (len(dataset.state_names), len(dataset.action_names))
            same = card.robot == dataset.info.get("robot_type")
            if (
                same
                and widths == (card.state_dim, card.action_dim)
                and set(card.views) <= set(dataset.views)
            ):
                return card
    if name is None and known and not fitting(dataset):
        views = "; ".join(f"{n} looks through {', '.join(c.views)}" for n, c in known.items())
        raise UserError(
            f"{dataset.root} fits no robot of --init ({views}) and no built-in card: it has "
            f"{', '.join(dataset.views)}, {len(dataset.state_names)} of state and "
            f"{len(dataset.action_names)} of action; describe it with --card FILE.toml"
        )
    return choose(dataset, name)


def cut_groups(
    groups: Mapping[str, tuple[Embodiment, list[Dataset]]],
    settings: TrainSettings,
    known: Mapping[str, tuple[Embodiment, Statistics]],
) -> tuple[list[tuple[Source, WindowDataset]], dict[str, tuple[Embodiment, Statistics]]]:
    """The windows of each kind of batch of each robot, and the robots with their statistics.

    Args:
        groups: of ``group_by_card``.
        known: robots of the model to start from, which keep their statistics.
    """
    cuts: list[tuple[Source, WindowDataset]] = []
    robots: dict[str, tuple[Embodiment, Statistics]] = {}
    for card, datasets in groups.values():
        statistics = known[card.name][1] if card.name in known else None
        for source in (settings.full, settings.first):
            if source.batch < 1:
                continue
            windows = cut_windows(datasets, card, source, statistics)
            if windows.normalizer is not None:
                statistics = windows.normalizer.statistics
            cuts.append((replace(source, blocks=windows.blocks), windows))
        robots[card.name] = (card, statistics or Statistics())
    return cuts, robots


def clips(windows: WindowDataset, most: int = 400, seed: int = 0) -> np.ndarray:
    """Up to ``most`` whole windows as uint8 ``[n, t, h, w, 3]``, for training the codec."""
    pick = np.random.default_rng(seed).permutation(len(windows))[:most]
    return np.stack([windows[int(i)].video for i in sorted(pick)])


def cut_windows(
    datasets: Sequence[Dataset],
    card: Embodiment,
    source: Source,
    statistics: Statistics | None = None,
) -> WindowDataset:
    """The windows of one kind of batch."""

    def cut(stride: int) -> WindowDataset:
        blocks = min(source.blocks, card.blocks)
        return WindowDataset(
            datasets, card, statistics, blocks=blocks, stride=stride, idle=source.idle
        )

    stride = card.horizon if source.stride < 1 else source.stride
    found = cut(stride)
    while source.stride < 0 and stride > 1 and len(found) < FEW:
        stride //= 2
        found = cut(stride)
    return found


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
    weights: Sequence[float] | None = None,
) -> RunRecord:
    """Train a world action model on recordings and write it, or an adapter, to ``out``.

    Started by `torchrun` or `accelerate launch`, all processes do it together. Tried on CPUs, with one
    and several processes, whole and sharded, with small models and with imported checkpoints in
    miniature; not on a GPU nor on released weights.

    Args:
        data: LeRobot datasets; several robots may be mixed, they take turns. Recordings of video
            alone teach the video alone.
        preset: size of the transformer; None: that of ``init``, or "tiny".
        card: embodiment of all datasets: built in, a card file, or one that ``init`` knows; guessed
            from each by default.
        codec: folder of a video codec; None trains one on these recordings first.
        init: folder of a model trained here, or of an imported checkpoint, to start from. Robots
            it knows keep its statistics.
        latents: folder of encoded windows and prompts (of ``precompute``), which several runs may share;
            ``out/latents`` if None.
        resume: go on from the last checkpoint in ``out``.
        weights: how often each of ``data`` is drawn, relative to the others; None: the recordings
            of a robot by their number of windows, the robots equally.

    Raises:
        UserError: data, card, codec, preset and device do not fit together, or ``out`` cannot be
            written. What can be seen beforehand is said before ``out`` is made.
    """
    settings = settings or TrainSettings()
    out, name = Path(out), preset or "tiny"
    sizes = preset_arguments(name)
    check_arguments(data, out, preset, settings, card, init, resume, weights)
    _check_device(device)
    processes = Processes(device, settings)
    progress = progress and processes.main
    start = None if init is None else WorldActionModel.load(find(init))
    known = {} if start is None else {n: found for n, (found, _) in start.robots.items()}
    groups = group_by_card(data, card, known)
    _check_start(start, preset, sizes)
    make_folder(out)
    cuts, robots = cut_groups(groups, settings, {} if start is None else start.robots)
    with processes.main_first():
        video_codec = _codec(out, codec, start, cuts, codec_training, progress)
    first_card = next(iter(groups.values()))[0]
    arguments = sizes | _fit(first_card, video_codec, sizes)
    for robot_card, _ in groups.values():
        if _fit(robot_card, video_codec, arguments) != _fit(first_card, video_codec, arguments):
            raise UserError(
                f"{robot_card.name} and {first_card.name} have different canvases or horizons: "
                f"train them apart"
            )
    if start is not None:
        for robot_card, _ in groups.values():
            _check_fit(start, robot_card, video_codec)
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
    transformer = configured(transformer, settings)
    model = WorldActionModel(transformer, video_codec, text_encoder, robots)
    if start is not None:
        model = replace(start, transformer=transformer, codec=video_codec, robots=robots)
    conditioning.check(model)
    encoder = FeatureEncoder(
        video_codec,
        transformer.config.action_dim,
        transformer.config.state_dim,
        conditioning.reads_first_frame(transformer),
        model.image_encoder if conditioning.reads_image(transformer) else None,
    )
    features = Path(latents) if latents else out / "latents"
    own_windows = [windows for _, windows in cuts]
    opened = open_windows(own_windows, encoder, settings, features, processes, progress)
    feeds, shares = [], []
    for (source, windows), readable in zip(cuts, opened, strict=True):
        own = _weights(data, weights, windows)
        feeds.append(Feed(source, readable, settings.validation, own))
        shares.append(sum(own or (1.0,)))
    mixture = Mixture(
        feeds,
        settings.seed,
        None if weights is None else shares,
        settings.shuffle,
        settings.open_episodes,
    )
    base = None if settings.trained == "all" or init is None else Base.open(find(init))
    return Trainer(model, mixture, settings, out, processes, base, features).run(resume, progress)


def configured(transformer: DreamZeroTransformer, settings: TrainSettings) -> DreamZeroTransformer:
    """The network as the settings want it to dream and act; the same one where nothing changes."""
    wanted = {"dream": settings.dream, "objective": settings.objective}
    changes = {k: v for k, v in wanted.items() if v and v != transformer.config[k]}
    return transformer.with_(**changes) if changes else transformer


def _weights(
    data: Sequence[Path | str], weights: Sequence[float] | None, windows: WindowDataset
) -> list[float] | None:
    """The weights of the recordings of some windows, in their order."""
    if weights is None:
        return None
    left = [(Path(path).resolve(), weight) for path, weight in zip(data, weights, strict=True)]
    found = []
    for dataset in windows.datasets:
        place = next(i for i, (path, _) in enumerate(left) if path == dataset.root.resolve())
        found.append(left.pop(place)[1])
    return found


def _check_device(device: str) -> None:
    """Raise UserError where training could not even begin, before minutes go into a codec."""
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise UserError(f"--device {device}: must be cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}: torch sees no GPU here; use cpu (`dreamzero doctor`)")


def _check_start(
    start: WorldActionModel | None,
    preset: str | None,
    sizes: dict[str, Any],
) -> None:
    """Raise UserError if there is nothing to start from where there must be, or another size."""
    if start is None and sizes.get("image_dim"):
        raise UserError(
            f"--preset {preset} reads CLIP features, which a model from scratch has not: name "
            "imported weights with --init"
        )
    if start is None or preset is None:
        return
    config = start.transformer.config
    for name in ("dim", "ffn_dim", "num_layers", "num_heads"):
        if getattr(config, name) != sizes[name]:
            raise UserError(
                f"--preset {preset}: the model of --init has {name} {getattr(config, name)}, this "
                f"preset {sizes[name]}; leave --preset out to go on at its size"
            )


def _check_fit(start: WorldActionModel, card: Embodiment, codec: codecs.Codec) -> None:
    """Raise UserError if the model to start from was made for another codec, canvas or horizon."""
    config = start.transformer.config
    for name, want in _fit(card, codec, config).items():
        if name == "in_channels":  # first-frame channels come on top of the codec's
            continue
        have = config[name]
        if (tuple(have) if isinstance(want, tuple) else have) != want:
            raise UserError(
                f"--init: that model has {name} {have}, {card.name} and the codec need {want}; "
                "start from another model, or anew"
            )
    for name, width in (("state_dim", card.state_dim), ("action_dim", card.action_dim)):
        if width > config[name]:
            raise UserError(
                f"--init: that model has room for {config[name]} of {name}, {card.name} has {width}"
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
        usual = CodecTraining()
        pixels = footage[0].shape[2] * footage[0].shape[3]
        fewer = max(1, min(usual.batch, round(usual.batch * USUAL_PX / pixels)))
        training = training or replace(usual, batch=fewer)
        train_codec(
            np.concatenate(footage), training, out / "vae", progress, _beginning(training), True
        )
    return codecs.load(out / "vae")


def _beginning(training: CodecTraining) -> Path | None:
    """Folder of the codec to go on from, if it has the architecture that is asked for."""
    if not training.init:
        return None
    folder = find(training.init) / "vae"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = (f.name for f in fields(CodecTraining) if f.name in config)
    same = all(config[name] == getattr(training, name) for name in named)
    return folder if same and config.get("_class_name") == TinyCodec.__name__ else None


def _fit(card: Embodiment, codec: codecs.Codec, arguments: Mapping[str, Any]) -> dict[str, object]:
    """What card and codec decide about a transformer of these arguments."""
    height, width = (side // codec.spatial_factor for side in card.canvas_px)
    patch = arguments.get("patch_size", (1, 2, 2))
    fit: dict[str, object] = {
        "in_channels": codec.latent_channels,
        "out_channels": codec.latent_channels,
        "horizon": card.horizon,
        "frames_per_block": card.latent_frames,
        "window_blocks": card.blocks,
    }
    if arguments.get("position_grid") is not None:
        fit["position_grid"] = (height // patch[1], width // patch[2])
    return fit
