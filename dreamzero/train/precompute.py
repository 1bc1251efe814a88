"""Features of whole recordings computed beforehand (``dreamzero data precompute``).

The windows are those that a training with the same settings cuts, so that ``dreamzero train --latents
FOLDER`` finds every one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..model import codecs, conditioning
from ..model.bundle import WorldActionModel
from ..model.text import WordEncoder
from ..shipped import find
from .cache import FeatureCache
from .config import TrainSettings
from .features import FeatureEncoder
from .prompts import PromptTable
from .run import _check_device, cut_groups, group_by_card
from .trained import on_device


@dataclass(frozen=True)
class Precomputed:
    """What is in the cache now.

    Attributes:
        windows, episodes, prompts: of these recordings under these settings.
        keys: of the files they are in.
    """

    windows: int
    episodes: int
    prompts: int
    keys: frozenset[str]


def precompute(
    data: Sequence[Path | str],
    folder: Path | str,
    settings: TrainSettings | None = None,
    *,
    card: str | None = None,
    init: Path | str | None = None,
    codec: Path | str | None = None,
    device: str = "cpu",
    workers: int = 0,
    progress: bool = True,
) -> Precomputed:
    """Encode the windows of recordings, and their prompts, with the frozen encoders of a model.

    Args:
        settings: as for ``train``; blocks, stride and idle of ``full`` and ``first`` matter here.
        init: model folder whose codec, image and text encoders are used.
        codec: folder of a video codec, instead of that of ``init``.
        workers: processes that decode.

    Raises:
        UserError: no codec is named, or data, card and encoders do not fit together.
    """
    settings = settings or TrainSettings()
    _check_device(device)
    if init is None and codec is None:
        raise UserError("name the encoders: --init DIR (a model) or --codec DIR (a video codec)")
    start = None if init is None else WorldActionModel.load(find(init))
    robots = {} if start is None else start.robots
    groups = group_by_card(data, card, {name: known for name, (known, _) in robots.items()})
    cuts, _ = cut_groups(groups, settings, robots)
    video = codecs.load(codec) if codec is not None else start.codec  # type: ignore[union-attr]
    first_frame, image_encoder = False, None
    if start is not None:
        first_frame = conditioning.reads_first_frame(start.transformer)
        image_encoder = start.image_encoder if conditioning.reads_image(start.transformer) else None
    cache = FeatureCache(folder)
    keys: set[str] = set()
    with on_device([video, image_encoder], device):  # type: ignore[list-item]
        for _, windows in cuts:
            dims = (windows.card.action_dim, windows.card.state_dim)
            encoder = FeatureEncoder(video, *dims, first_frame, image_encoder)
            cache.precompute(windows, encoder, progress, workers)
            keys |= set(cache.keys(windows, encoder).values())
    prompts = {
        c.render_prompt(e.task) for c, sets in groups.values() for d in sets for e in d.episodes
    }
    # A small model's word encoder is trained along: its embeddings would not stay.
    if start is not None and not isinstance(start.text_encoder, WordEncoder):
        PromptTable(start.text_encoder, prompts, device, cache.folder, progress)
    else:
        prompts = set()
    count = sum(len(windows) for _, windows in cuts)
    return Precomputed(count, len(keys), len(prompts), frozenset(keys))
