"""Trains one cell: windows of its recordings as latents, mixed, from noise or from another cell's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from ..data.mixture import EPISODES, Feed, Mixture
from ..data.normalize import Statistics
from ..data.reader import Dataset
from ..embodiments import Embodiment, get
from ..model import codecs
from ..model.bundle import WorldActionModel
from ..model.presets import preset
from ..model.text import WordEncoder, words
from ..model.transformer import DreamZeroTransformer
from ..shipped import NAME, find
from ..train.cache import FeatureCache
from ..train.config import Source, TrainSettings
from ..train.features import FeatureEncoder
from ..train.latents import LatentWindows
from ..train.loop import Trainer
from ..train.reading import in_memory
from ..train.run import configured, cut_windows
from .cells import Cell, Use

COMPILED = 500  # steps from which it pays
CODEC = NAME  # of all cells: a codec is not what is compared


def settings_of(cell: Cell) -> TrainSettings:
    """What all cells have in common, and what is the cell's own."""
    plain = TrainSettings(
        full=Source(batch=0),
        first=Source(blocks=1, stride=-1),
        action_scale=4.0,
        warmup=50,
        validation=0.02,
        # Fused passes: 1.5 times as fast on a CPU, once they are compiled (half a minute, then cached).
        compile=int(cell.settings.get("steps", 0)) >= COMPILED,
        log_every=25,
        evaluate_every=10**9,
        save_every=10**9,
        chunks=0,
        tensorboard=False,
        seed=cell.seed,
    )
    return replace(plain, **cell.settings)


def card_of(body: str, labels: bool, changes: Mapping[str, Any]) -> Embodiment:
    """The card of a body; without labels one that knows no actions, under a name of its own."""
    card = get(f"tabletop_{body}").with_(**changes)
    if labels or not card.has_action:
        return card
    return card.with_(name=f"{card.name}_video", state=(), action=(), has_action=False,
                      lower=(), upper=(), velocity=())  # fmt: skip


def chosen(windows: LatentWindows, use: Use) -> LatentWindows:
    """Those windows that a use takes: of the first episodes, without those of a word."""
    keep = (windows.episode % EPISODES) < (use.episodes or EPISODES)
    if use.without:
        unwanted = set(use.without.split())
        said = torch.tensor([not unwanted.isdisjoint(words(p)) for p in windows.prompts])
        keep &= ~said[windows.prompt]
    changes: dict[str, Any] = {name: x[keep] for name, x in windows.tensors.items()}
    return replace(windows, **changes)


def encoded(
    use: Use,
    path: Path,
    changes: Mapping[str, Any],
    codec: Any,
    latents: Path,
    dims: Mapping[str, Any],
    known: Mapping[str, tuple[Embodiment, Statistics]],
    progress: bool,
) -> tuple[LatentWindows, Embodiment, Statistics]:
    """A recording as latent windows, its card, and the statistics of its actions.

    Args:
        changes: of the card; dims: ``action_dim`` and ``state_dim`` of the model.
        latents: folder of the feature cache.
        known: robots of the model that the cell starts from, which keep their statistics.
    """
    dataset = Dataset.open(path)
    card = card_of(str(dataset.info["robot_type"]), use.labels, changes)
    before = known[card.name][1] if card.name in known else None
    source = Source(blocks=use.blocks, stride=max(1, card.horizon // 2) if use.labels else card.horizon,
                    idle=0.02 if use.labels else 0.0)  # fmt: skip
    windows = cut_windows([dataset], card, source, before)
    encoder = FeatureEncoder(codec, dims["action_dim"], dims["state_dim"])
    found = in_memory(FeatureCache(latents).precompute(windows, encoder, progress))
    statistics = windows.normalizer.statistics if windows.normalizer else Statistics()
    return chosen(found, use), card, statistics


def train_cell(
    cell: Cell,
    paths: Mapping[str, Path],
    start: Path | None,
    out: Path,
    latents: Path,
    prompts: Sequence[str],
    progress: bool = True,
) -> dict[str, float]:
    """Train a cell and write its model folder to ``out``.

    Args:
        paths: recordings by name.
        start: model folder to start from; None starts from noise.
        latents: folder of encoded windows, shared by cells.
        prompts: whose words every model of the grid knows.

    Returns:
        ``training_seconds`` (s, wall clock) and ``parameters``.
    """
    settings = settings_of(cell)
    torch.manual_seed(cell.seed)
    arguments = preset(cell.preset)
    codec = codecs.load(find(CODEC) / "vae")
    feeds, robots = [], dict[str, tuple[Embodiment, Statistics]]()
    before = None if start is None else WorldActionModel.load(start)
    known = {} if before is None else before.robots
    for use in cell.uses:
        windows, card, statistics = encoded(
            use, paths[use.recording], cell.card, codec, latents, arguments, known, progress
        )
        robots[card.name] = (card, statistics)
        source = Source(blocks=use.blocks, batch=use.batch, begin=use.begin)
        feeds.append(Feed(source, windows, settings.validation))
    first = next(iter(robots.values()))[0]
    arguments |= {
        "in_channels": codec.latent_channels, "out_channels": codec.latent_channels,
        "horizon": first.horizon, "frames_per_block": first.latent_frames,
        "window_blocks": first.blocks,
    }  # fmt: skip
    transformer = DreamZeroTransformer(**arguments)
    text = WordEncoder.fit(prompts, dim=arguments["text_dim"])
    if before is not None:
        load_matching(transformer, before.transformer)
        text = cast(WordEncoder, before.text_encoder).grown(prompts)
        robots = before.robots | robots
    model = WorldActionModel(configured(transformer, settings), codec, text, robots)
    weights = [use.weight for use in cell.uses]
    mixture = Mixture(feeds, cell.seed, weights)
    record = Trainer(model, mixture, settings, out).run(progress=progress)
    # Half the size on disk; whoever starts from it or rolls it out reads the same numbers.
    WorldActionModel.load(out).save(out, dtype=torch.float16)
    return {n: float(record.metrics[n].value or 0) for n in ("training_seconds", "parameters")}


def load_matching(network: DreamZeroTransformer, other: DreamZeroTransformer) -> None:
    """Take over every weight of the same shape.

    What may differ between cells that start from one trunk is the place table of the actions.
    """
    own, theirs = network.state_dict(), other.state_dict()
    same = {n: x for n, x in theirs.items() if n in own and own[n].shape == x.shape}
    network.load_state_dict(same, strict=False)
