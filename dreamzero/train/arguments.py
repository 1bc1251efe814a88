"""What can be said about the arguments of a training before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..embodiments import is_file_name, load
from ..errors import UserError
from ..model.presets import preset as known_preset
from ..shipped import find
from .config import CHECKPOINTS, LATEST, TrainSettings


def check_arguments(
    data: Sequence[Path | str],
    out: Path | str,
    preset: str | None,
    settings: TrainSettings,
    card: str | None,
    init: Path | str | None,
    resume: bool,
    weights: Sequence[float] | None = None,
) -> None:
    """Raise UserError for folders that are not there, unknown names, and what excludes the other."""
    known_preset(preset or "tiny")
    if init is not None:
        find(init)
    elif settings.trained != "all":
        raise UserError(
            f"train.trained={settings.trained} trains a part of a model: name the model with --init"
        )
    for path in data:
        if not Path(path).is_dir():
            raise UserError(f"--data {path} is no folder; give one that holds meta/info.json")
    if card is not None and is_file_name(card):
        load(card)
    if weights is not None and (len(weights) != len(data) or min(weights) <= 0):
        raise UserError(
            f"--weights {' '.join(f'{w:g}' for w in weights)}: give one above 0 for each of the "
            f"{len(data)} folders of --data"
        )
    if settings.augment and settings.reading != "video":
        raise UserError(
            f"train.augment={settings.augment:g} varies what is decoded at every step: set "
            "train.reading=video too, or leave it out"
        )
    if settings.stage == "flash" and init is None:
        raise UserError("train.stage=flash is a last stage: name the trained model with --init")
    out = Path(out)
    if resume and not (out / CHECKPOINTS / LATEST).is_file():
        raise UserError(f"--resume: {out} holds no checkpoint; leave --resume out to begin")
    there = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not there.is_dir():
        raise UserError(f"--out {out}: {there} is a file; give another folder")
    if not os.access(there, os.W_OK):
        raise UserError(f"--out {out}: {there} cannot be written; give another folder")
