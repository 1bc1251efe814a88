"""GEAR's additions to LeRobot's metadata: which columns mean what, whose robot it is, relative statistics.

    meta/modality.json                    state, action, video and annotation keys -> slices of columns
    meta/embodiment.json                  {"robot_type", "embodiment_tag"}
    meta/relative_stats_dreamzero.json    key -> statistics of the action minus its block's first state

As Isaac-GR00T documents the first (getting_started/data_preparation.md) and dreamzero0/dreamzero writes all
three (scripts/data/convert_lerobot_to_gear.py): every row begins a block except the last ``horizon``
of an episode, at the dataset's own rate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embodiments import Embodiment, Field
from ..errors import UserError
from . import lerobot
from .lerobot import ACTION, STATE
from .normalize import FieldStatistics, Statistics

if TYPE_CHECKING:
    from .reader import Dataset

MODALITY = "meta/modality.json"
TAG = "meta/embodiment.json"
RELATIVE = ("meta/relative_stats_dreamzero.json", "meta/relative_stats.json")
_COLUMNS = {"state": STATE, "action": ACTION}


@dataclass(frozen=True)
class Slice:
    """A key of modality.json: ``start`` to ``stop`` of a column."""

    column: str
    start: int
    stop: int


@dataclass(frozen=True)
class Gear:
    """What the additions say; empty where there are none.

    Attributes:
        state, action: key -> slice.
        views: short name -> video feature, in the file's order.
        annotations: columns that hold instructions.
        tag: the embodiment's, or "".
        relative: key -> published statistics of relative actions.
        notes: what is wrong with them, as "name: explanation".
    """

    state: Mapping[str, Slice] = field(default_factory=dict)
    action: Mapping[str, Slice] = field(default_factory=dict)
    views: Mapping[str, str] = field(default_factory=dict)
    annotations: tuple[str, ...] = ()
    tag: str = ""
    relative: Mapping[str, FieldStatistics] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def columns(self, kind: str) -> list[str]:
        """Columns of "state" or "action" that modality.json names, each once."""
        return list(dict.fromkeys(part.column for part in getattr(self, kind).values()))


def read(root: Path) -> Gear:
    """The additions of a dataset; what cannot be used becomes a note."""
    notes: list[str] = []
    modality = _json(root / MODALITY, notes)
    slices: dict[str, dict[str, Slice]] = {"state": {}, "action": {}}
    for kind, found in slices.items():
        for key, part in _table(modality, kind).items():
            try:
                column = str(part.get("original_key") or _COLUMNS[kind])
                found[key] = Slice(column, int(part["start"]), int(part["end"]))
            except (KeyError, TypeError, ValueError, AttributeError):
                notes.append(f"modality: {kind} {key!r} has no start and end; left out")
    views = {
        key: str(part.get("original_key") or f"observation.images.{key}")
        for key, part in _table(modality, "video").items()
    }
    annotations = tuple(
        str(part.get("original_key") or f"annotation.{key}")
        for key, part in _table(modality, "annotation").items()
    )
    relative: dict[str, FieldStatistics] = {}
    for path in (root / name for name in RELATIVE):
        numbers = _json(path, notes)
        if numbers:
            try:
                relative = dict(Statistics.from_json({"action": numbers}).action)
            except (UserError, ValueError, TypeError, AttributeError) as error:
                notes.append(f"relative-stats: {path.name} is no table of statistics ({error})")
            break
    tag = str(_json(root / TAG, notes).get("embodiment_tag") or "")
    return Gear(slices["state"], slices["action"], views, annotations, tag, relative, tuple(notes))


def _table(modality: Mapping[str, Any], kind: str) -> dict[str, Any]:
    part = modality.get(kind)
    return part if isinstance(part, dict) else {}


def _json(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        notes.append(f"gear-unreadable: {path.name} is not readable JSON ({error}); left out")
        return {}
    return data if isinstance(data, dict) else {}


def fields(dataset: Dataset, kind: str) -> tuple[Field, ...]:
    """Slices of "state" or "action" as a card's fields, in the file's order; () where there are none.

    Grippers count as switches (unit "1"). Actions with a state of the same key and width are relative,
    but for grippers.
    """
    gear, found = dataset.gear, []
    widths = {key: part.stop - part.start for key, part in gear.state.items()}
    for key, part in getattr(gear, kind).items():
        place = dataset.columns[kind].get(part.column)
        if place is None or part.stop > place[1] - place[0]:
            continue
        unit = "1" if is_switch(key) else "rad"
        relative = kind == "action" and unit != "1" and widths.get(key) == part.stop - part.start
        found.append(Field(key, place[0] + part.start, place[0] + part.stop, relative, unit))
    return tuple(found)


def is_switch(name: str) -> bool:
    """Whether a name sounds like a gripper or a hand that opens and closes from 0 to 1."""
    return any(part in name.lower() for part in ("gripper", "effector", "grasp", "claw"))


def relative_statistics(dataset: Dataset, card: Embodiment) -> dict[str, FieldStatistics]:
    """Statistics of the card's relative action fields as GEAR's tools compute them.

    Unlike ``normalize.compute`` at the dataset's own rate, and without the last block of each episode.
    Episodes that are no longer than a block count for nothing; {} if all are.
    """
    found: dict[str, FieldStatistics] = {}
    states = {f.key: f for f in card.state}
    for f in (f for f in card.action if f.relative):
        anchor = states[f.key]
        parts = []
        for episode in dataset.episodes:
            rows = dataset.rows(episode.index)
            action = rows["action"][:, f.start : f.stop].astype(np.float64)
            state = rows["state"][:, anchor.start : anchor.stop].astype(np.float64)
            starts = np.arange(max(len(action) - card.horizon, 0))
            blocks = action[starts[:, None] + np.arange(card.horizon)] - state[starts][:, None]
            parts.append(blocks.reshape(-1, f.width))
        values = np.concatenate(parts)
        if len(values):
            found[f.key] = FieldStatistics.of(values)
    return found


def write(folder: Path, dataset: Dataset, card: Embodiment) -> list[str]:
    """Write all three into a dataset's folder, as the card sees it; returns what was left out.

    Raises:
        UserError: the card does not fit the dataset.
    """
    kinds: dict[str, dict[str, Any]] = {}
    for kind, parts in (("state", card.state), ("action", card.action)):
        kinds[kind] = {f.key: _modality(dataset, kind, f) for f in parts}
    modality = {
        **kinds,
        "video": {view.rsplit(".", 1)[-1]: {"original_key": view} for view in card.views},
        "annotation": {"language.task": {"original_key": "task_index"}},
    }
    lerobot.write_json(folder / MODALITY, modality)
    lerobot.write_json(folder / TAG, {"robot_type": card.robot, "embodiment_tag": card.name})
    relative = relative_statistics(dataset, card)
    numbers = Statistics(action=relative).to_json()["action"]
    for row in numbers.values():
        del row["count"]
    lerobot.write_json(folder / RELATIVE[0], numbers)
    return [f.key for f in card.action if f.relative and f.key not in relative]


def _modality(dataset: Dataset, kind: str, f: Field) -> dict[str, Any]:
    for column, (start, stop) in dataset.columns[kind].items():
        if start <= f.start and f.stop <= stop:
            return {
                "original_key": column,
                "start": f.start - start,
                "end": f.stop - start,
                "rotation_type": None,
                "absolute": True,
                "dtype": "float32",
                "range": None,
            }
    raise UserError(
        f"card {kind} {f.key!r} spans several columns of {dataset.root} "
        f"({', '.join(dataset.columns[kind])}); modality.json cannot say that"
    )
