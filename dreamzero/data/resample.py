"""From a recording's clock to the card's: which row, and which value, at a given time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..embodiments import Embodiment, Field
from ..errors import UserError

if TYPE_CHECKING:
    from .reader import Dataset


def nearest(times_s: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """int64 ``[n]``: index into increasing ``times_s [t]`` nearest to each of ``at_s [n]``, s (the
    earlier on a tie).

    Times before the first or after the last take the end: that is how windows are padded.
    """
    if len(times_s) == 1:
        return np.zeros(len(at_s), dtype=np.int64)
    after = np.clip(np.searchsorted(times_s, at_s), 1, len(times_s) - 1)
    before = after - 1
    # Rates in step make exact ties of what float32 timestamps blur: decide those one way.
    earlier = at_s - times_s[before] <= times_s[after] - at_s + 1e-4
    return np.where(earlier, before, after).astype(np.int64)


def select(fields: Sequence[Field], values: np.ndarray) -> np.ndarray:
    """The columns that a card's fields name, in the card's order: ``[..., d]`` -> ``[..., sum]``."""
    if not fields:
        return values[..., :0]
    return np.concatenate([values[..., f.start : f.stop] for f in fields], axis=-1)


def actions_at(
    fields: Sequence[Field], times_s: np.ndarray, action: np.ndarray, at_s: np.ndarray
) -> np.ndarray:
    """Actions in the card's order at ``at_s``, float32 ``[n, a]``.

    Joint and Cartesian targets (unit "rad" or "m") are interpolated linearly between the two rows
    around; grippers and switches (unit "1") take the nearest row, because half a command is none.
    Where the rates are in step, both are exactly the recorded rows.
    """
    if not fields:
        return np.zeros((len(at_s), 0), dtype=np.float32)
    rows = nearest(times_s, at_s)
    parts = []
    for f in fields:
        values = action[:, f.start : f.stop]
        # Within a millisecond of a row it is that row: no blur from rounded timestamps.
        on_row = np.abs(times_s[rows] - at_s) < 1e-3
        if f.unit == "1" or on_row.all():
            parts.append(values[rows])
            continue
        columns = [np.interp(at_s, times_s, column) for column in values.T]
        parts.append(np.where(on_row[:, None], values[rows], np.stack(columns, axis=1)))
    return np.concatenate(parts, axis=1).astype(np.float32)


def validate(dataset: Dataset, card: Embodiment) -> None:
    """UserError unless the card's fields and rates can be served from this dataset.

    A dataset without actions (or states) is no error: it is a video-only one.
    """
    for kind, fields, names in (
        ("state", card.state, dataset.state_names),
        ("action", card.action, dataset.action_names),
    ):
        need = max((f.stop for f in fields), default=0)
        if names and need > len(names):
            raise UserError(
                f"{dataset.root}: card {card.name} needs {need} {kind} dimensions, "
                f"the dataset has {len(names)}; choose the card of this robot"
            )
    frames_s = card.frames_per_block / card.video_hz
    if card.horizon and abs(frames_s - card.block_s) > 1e-6:
        raise UserError(
            f"card {card.name}: {card.frames_per_block} frames at {card.video_hz:g} Hz last "
            f"{frames_s:g} s, {card.horizon} actions at {card.action_hz:g} Hz {card.block_s:g} s; "
            "a block's frames and actions must span the same time"
        )
