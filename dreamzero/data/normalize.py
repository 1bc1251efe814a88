"""States and actions to [-1, 1] and back, the way the released checkpoints do it (MODEL.md 1).

A relative field of the action is, per block, the action minus the state at that block's first step; only
then is it scaled by its own 1 % and 99 % quantiles. Anchoring every step on its own state, or a whole
window on one, gives other quantiles and a policy that moves too little or too far.

Everything here is numpy, in the order of the card (not of the dataset's columns; ``resample.select``
goes from one to the other).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from tqdm import tqdm

from ..embodiments import Embodiment, Field
from ..errors import UserError
from .resample import actions_at, nearest, select, validate

if TYPE_CHECKING:
    from .reader import Dataset

_MOST_BLOCKS = 50_000
_TREMBLE = 0.02
_NUMBERS = ("q01", "q99", "min", "max", "mean", "std")


@dataclass(frozen=True)
class FieldStatistics:
    """Statistics of one field, each float64 ``[width]``, and the number of rows behind them."""

    q01: np.ndarray
    q99: np.ndarray
    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    count: int

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """From rows ``[n, width]``, n >= 1; quantiles interpolate linearly."""
        x = values.astype(np.float64)
        q01, q99 = np.quantile(x, [0.01, 0.99], axis=0)
        return cls(q01, q99, x.min(0), x.max(0), x.mean(0), x.std(0), len(x))


@dataclass(frozen=True)
class Statistics:
    """Statistics of one embodiment: field key -> numbers, for states and for actions."""

    state: Mapping[str, FieldStatistics] = field(default_factory=dict)
    action: Mapping[str, FieldStatistics] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the released ``metadata.json`` nests it: {"state": {key: {"q01": [...], ...}}, ...}."""
        return {
            kind: {
                key: {**{n: getattr(f, n).tolist() for n in _NUMBERS}, "count": f.count}
                for key, f in fields.items()
            }
            for kind, fields in (("state", self.state), ("action", self.action))
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """From ``to_json`` or a released checkpoint's statistics (whatever it lacks is nan).

        Raises:
            UserError: no quantiles where quantiles belong.
        """
        kinds: dict[str, dict[str, FieldStatistics]] = {}
        for kind in ("state", "action"):
            kinds[kind] = {}
            for key, numbers in data.get(kind, {}).items():
                if "q01" not in numbers or "q99" not in numbers:
                    raise UserError(f"statistics of {kind}.{key} lack q01 or q99")
                blank = [math.nan] * len(np.atleast_1d(numbers["q01"]))
                q01, q99, low, high, mean, std = (
                    np.atleast_1d(np.asarray(numbers.get(n, blank), np.float64)) for n in _NUMBERS
                )
                rows = int(np.ravel(numbers.get("count", 0))[0])
                kinds[kind][key] = FieldStatistics(q01, q99, low, high, mean, std, rows)
        return cls(kinds["state"], kinds["action"])

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote; UserError if it is missing or something else."""
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path} holds no statistics ({error})") from error


def relative_to(fields: Sequence[Field], state: Sequence[Field]) -> np.ndarray:
    """int64 ``[a]``: for every action dimension the state dimension it is relative to, -1 for none.

    Raises:
        UserError: a relative field has no state field of the same key and width.
    """
    places, at = {}, 0
    for s in state:
        places[s.key] = (at, s.width)
        at += s.width
    anchors: list[int] = []
    for f in fields:
        if not f.relative:
            anchors += [-1] * f.width
            continue
        start, width = places.get(f.key, (0, 0))
        if width != f.width:
            raise UserError(
                f"action field {f.key!r} is relative and needs a state field of that key and of "
                f"width {f.width}; the card has {sorted(places)}"
            )
        anchors += range(start, start + width)
    return np.asarray(anchors, dtype=np.int64)


def anchored(anchors: np.ndarray, state: np.ndarray) -> np.ndarray:
    """What is subtracted from each action dimension: state ``[..., s]`` -> ``[..., a]``."""
    padded = np.concatenate([state, np.zeros_like(state[..., :1])], axis=-1)
    return padded[..., anchors]


def compute(
    dataset: Dataset | Sequence[Dataset], card: Embodiment, stride: int | None = None
) -> Statistics:
    """Statistics of states and of actions, relative ones per block, at the card's action rate.

    Args:
        dataset: one or several recordings of the same robot.
        card: its card.
        stride: action steps between the blocks measured; by default 1, or as many more as keep
            it to some 50 000 blocks (their quantiles then move by less than the recording's noise).

    Returns:
        Statistics keyed by the card's fields; a kind that no dataset records stays empty.
    """
    datasets = list(dataset) if isinstance(dataset, Sequence) else [dataset]
    anchors = relative_to(card.action, card.state)
    if stride is None:
        rows = sum(e.length * card.action_hz / d.fps for d in datasets for e in d.episodes)
        stride = max(1, math.ceil(rows / _MOST_BLOCKS))
    states: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    for d in datasets:
        validate(d, card)
        for episode in tqdm(d.episodes, desc="statistics", delay=2, disable=None):
            state, action = _episode(d, episode.index, card, anchors, stride)
            states.append(state)
            actions.append(action)
    return Statistics(_by_field(card.state, states), _by_field(card.action, actions))


def _episode(
    dataset: Dataset, episode: int, card: Embodiment, anchors: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    rows = dataset.rows(episode)
    times = rows["timestamp"]
    steps = int((times[-1] - times[0]) * card.action_hz + 1e-3) + 1
    at = times[0] + np.arange(steps) / card.action_hz
    has_state, has_action = rows["state"].shape[1] > 0, rows["action"].shape[1] > 0
    none = np.zeros((0, 0), dtype=np.float32)
    state = select(card.state, rows["state"])[nearest(times, at)] if has_state else none
    if not (has_action and card.has_action):
        return state, none
    action = actions_at(card.action, times, rows["action"], at)
    # Only whole blocks count, unless the recording is shorter than one.
    span = min(card.horizon, steps)
    starts = np.arange(0, steps - span + 1, stride)
    blocks = action[starts[:, None] + np.arange(span)]
    if (anchors >= 0).any():
        if not has_state:
            raise UserError(f"{dataset.root}: card {card.name} has relative actions, but no state")
        blocks = blocks - anchored(anchors, state[starts])[:, None]
    return state, blocks.reshape(-1, action.shape[1])


def _by_field(fields: Sequence[Field], parts: list[np.ndarray]) -> dict[str, FieldStatistics]:
    values = [p for p in parts if p.size]
    if not values or not fields:
        return {}
    rows, out, at = np.concatenate(values), {}, 0
    for f in fields:
        out[f.key] = FieldStatistics.of(rows[:, at : at + f.width])
        at += f.width
    return out


class Normalizer:
    """Scales one embodiment's states and actions; numpy float32 in and out.

    Attributes:
        card, statistics: what it was made from.
        notes: dimensions that never vary (they become 0), or that only seldom do (scaled by
            their minimum and maximum, because both quantiles are the same).

    Raises:
        UserError: statistics lack a field of the card or have another width.
    """

    def __init__(self, card: Embodiment, statistics: Statistics) -> None:
        self.card, self.statistics = card, statistics
        self.notes: list[str] = []
        self._anchors = relative_to(card.action, card.state)
        self._state = self._scale("state", card.state, statistics.state)
        self._action = self._scale("action", card.action, statistics.action)

    def _scale(
        self, kind: str, fields: Sequence[Field], known: Mapping[str, FieldStatistics]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(low, range) float32 ``[d]``; range 0 marks a constant dimension."""
        lows: list[float] = []
        ranges: list[float] = []
        for f in fields:
            numbers = known.get(f.key)
            if numbers is None or len(numbers.q01) != f.width:
                got = sorted(known) if numbers is None else f"width {len(numbers.q01)}"
                raise UserError(
                    f"statistics for card {self.card.name} lack {kind} field {f.key!r} of width "
                    f"{f.width} (got {got}); they belong to another robot"
                )
            for i in range(f.width):
                low, high = float(numbers.q01[i]), float(numbers.q99[i])
                ends = float(numbers.min[i]), float(numbers.max[i])
                if _flat(low, high, f.unit) and not _flat(*ends, f.unit):
                    low, high = ends
                    self.notes.append(f"seldom: {kind} {f.key}[{i}] is scaled by its extremes")
                elif _flat(low, high, f.unit):
                    low = high = (low + high) / 2
                    self.notes.append(f"constant: {kind} {f.key}[{i}] is always about {low:.4g}")
                lows.append(low)
                ranges.append(high - low)
        return np.asarray(lows, dtype=np.float32), np.asarray(ranges, dtype=np.float32)

    def state(self, state: np.ndarray) -> np.ndarray:
        """``[..., s]`` SI -> [-1, 1], clipped."""
        return _forward(state, *self._state)

    def action(self, action: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Absolute actions ``[..., k, a]`` -> [-1, 1], clipped.

        ``state`` ``[..., s]`` SI is that at the first step of the block (not normalised).
        """
        return _forward(action - self._offset(state), *self._action)

    def unaction(self, action: np.ndarray, state: np.ndarray, clip: bool = True) -> np.ndarray:
        """Inverse of ``action``: ``[..., k, a]`` in [-1, 1] -> absolute, SI; outliers are clipped."""
        low, span = self._action
        x = np.clip(action, -1.0, 1.0) if clip else action
        return np.asarray((x + 1.0) * 0.5 * span + low + self._offset(state), dtype=np.float32)

    def unstate(self, state: np.ndarray) -> np.ndarray:
        """Inverse of ``state``."""
        low, span = self._state
        return np.asarray((state + 1.0) * 0.5 * span + low, dtype=np.float32)

    @property
    def action_range(self) -> np.ndarray:
        """float32 ``[a]``: what the distance from -1 to 1 is in SI units; 0 for a constant."""
        return self._action[1]

    def _offset(self, state: np.ndarray) -> np.ndarray:
        return anchored(self._anchors, np.asarray(state, dtype=np.float32))[..., None, :]


def _flat(low: float, high: float, unit: str) -> bool:
    """Equal but for rounding or, for a stroke from 0 to 1, but for what a held gripper trembles.

    Scaling a tremble of half a percent to [-1, 1] would feed noise at full size to the model. A
    missing number (nan) counts as equal.
    """
    least = _TREMBLE if unit == "1" else 1e-6 * max(1.0, abs(low))
    return not high - low > least


def _forward(x: np.ndarray, low: np.ndarray, span: np.ndarray) -> np.ndarray:
    varies = span > 0
    scaled = (x - low) / np.where(varies, span, 1.0) * 2.0 - 1.0
    return np.where(varies, np.clip(scaled, -1.0, 1.0), 0.0).astype(np.float32)
