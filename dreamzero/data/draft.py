"""A card drafted from a recording: everything that the files tell, and a note where a person must look."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ..embodiments import Embodiment, Field
from . import gear
from .reader import Dataset

_SIDE_PX = 64
_VIDEO_HZ = 5.0
_MOST_HZ = 15.0
_HAND = ("hand", "finger", "thumb", "pinky")


def draft(dataset: Dataset) -> tuple[Embodiment, dict[str, str]]:
    """(a card that fits the dataset, field -> what to look at there).

    Slices come from modality.json where there is one, else from the dimensions' names; limits are those
    of the recording, which stayed within the robot's.
    """
    notes: dict[str, str] = {}
    views = [v for v in dataset.gear.views.values() if v in dataset.views]
    views += [v for v in dataset.views if v not in views]
    state, action = (_fields(dataset, kind, notes) for kind in ("state", "action"))
    widths = {f.key: f.width for f in state}
    action = tuple(
        Field(f.key, f.start, f.stop, f.unit != "1" and widths.get(f.key) == f.width, f.unit)
        for f in action
    )
    usual_s = float(np.median([e.length for e in dataset.episodes])) / dataset.fps
    # Episodes shorter than a block of eight frames at 5 Hz are looked at more often.
    wanted_hz = _VIDEO_HZ if usual_s >= 8 / _VIDEO_HZ else _MOST_HZ
    video_hz, action_hz, horizon = _rates(dataset.fps, min(wanted_hz, dataset.fps), notes)
    blocks = min(max(int(usual_s * video_hz / 8), 1), 4)
    if blocks < 4:
        notes["blocks"] = (
            f"Half the episodes are shorter than {usual_s:.2g} s: as many blocks as fit. Released "
            "checkpoints have 4."
        )
    lower, upper, velocity = _limits(dataset, action, notes)
    name = re.sub(r"\W+", "_", dataset.root.resolve().name).strip("_").lower() or "robot"
    notes["name"] = (
        "Drafted by `dreamzero data card`; read every line, then train with --card FILE."
    )
    notes["robot"] = "What moves; drivers and the simulator go by it."
    if len(views) > 1:
        notes["views"] = (
            "In the order of the canvas. layout: column stacks them; grid is view 0 top left, 1 "
            "bottom left, 2 top right; droid is exterior, exterior, wrist. Imported checkpoints want theirs."
        )
    notes["canvas_px"] = "[height, width]; 352 x 640 for the released checkpoints."
    notes["prompt"] = "{instruction} is the recording's; a checkpoint may want words around it."
    card = Embodiment(
        name=name,
        robot=str(dataset.info.get("robot_type") or "unknown"),
        views=tuple(views),
        layout="single" if len(views) == 1 else "column",
        canvas_px=(_SIDE_PX * max(len(views), 1), _SIDE_PX),
        state=state,
        action=action,
        video_hz=video_hz,
        action_hz=action_hz,
        horizon=horizon,
        blocks=blocks,
        lower=lower,
        upper=upper,
        velocity=velocity,
        has_action=bool(action),
    )
    return card, notes


def _fields(dataset: Dataset, kind: str, notes: dict[str, str]) -> tuple[Field, ...]:
    found = gear.fields(dataset, kind)
    if found:
        notes[kind] = "Slices of modality.json. unit is rad, m, or 1 for grippers and switches."
    else:
        names = dataset.state_names if kind == "state" else dataset.action_names
        found = by_name(names)
        if found:
            notes[kind] = f"Put together from the names of the dimensions: {', '.join(names)}"
    rows = np.concatenate([dataset.rows(e.index)[kind] for e in dataset.episodes])
    out = []
    for f in found:
        reach = float(np.nanmax(np.abs(rows[:, f.start : f.stop])))
        if f.unit == "rad" and reach > 2.2 * np.pi:
            notes[kind] += f"\nATTENTION: {f.key} reaches {reach:.3g}; are these degrees?"
        # A switch beyond [-1, 1] is a stroke of its own unit and no switch to be held.
        unit = f.unit if f.unit != "1" or reach <= 1.2 else "m"
        out.append(Field(f.key, f.start, f.stop, f.relative, unit))
    return tuple(out)


def by_name(names: Sequence[str]) -> tuple[Field, ...]:
    """Neighbouring dimensions whose names belong together as one field each."""
    kinds = [_kind(name) for name in names]
    found: list[Field] = []
    start = 0
    for i in range(1, len(kinds) + 1):
        if i < len(kinds) and kinds[i] == kinds[start]:
            continue
        key = kinds[start]
        taken = sum(f.key == key or f.key.startswith(f"{key}_") for f in found)
        unit = "rad" if "joint" in key else "1"
        found.append(Field(f"{key}_{taken + 1}" if taken else key, start, i, unit=unit))
        start = i
    return tuple(found)


def _kind(name: str) -> str:
    lowered = name.lower()
    side = next((s for s in ("left", "right") if s in lowered), "")
    if gear.is_switch(name):
        part = "gripper_position"
    elif any(word in lowered for word in _HAND):
        part = "hand_position"
    else:
        part = "joint_position"
    return f"{side}_{part}" if side else part


def _rates(fps: float, video_hz: float, notes: dict[str, str]) -> tuple[float, float, int]:
    """(video_hz, action_hz, horizon): rows are skipped, not blended, wherever that is possible."""
    block_s = 8 / video_hz
    for every in range(1, 13):
        hz = fps / every
        steps = block_s * hz
        if hz <= _MOST_HZ + 1e-6 and abs(steps - round(steps)) < 1e-6:
            which = {1: "every one", 2: "every second"}.get(every, f"every {every}th")
            notes["video_hz"] = (
                f"The recording has {fps:g} rows a second, {which} of which commands; a block of 8 "
                f"frames and {round(steps)} actions lasts {block_s:g} s."
            )
            return video_hz, hz, round(steps)
    hz = round(block_s * min(fps, _MOST_HZ)) / block_s
    notes["video_hz"] = (
        f"Actions at {hz:g} Hz lie between the recording's rows: they are interpolated."
    )
    return video_hz, hz, round(block_s * hz)


def _limits(
    dataset: Dataset, action: Sequence[Field], notes: dict[str, str]
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    if not action:
        return (), (), ()
    columns = [i for f in action for i in range(f.start, f.stop)]
    parts = [dataset.rows(e.index)["action"][:, columns] for e in dataset.episodes]
    low, high = np.nanquantile(np.concatenate(parts), [0.001, 0.999], axis=0)
    slack = np.maximum(0.05 * (high - low), 1e-3)
    steps = [np.abs(np.diff(x, axis=0)) * dataset.fps for x in parts if len(x) > 1]
    fast = np.nanquantile(np.concatenate(steps), 0.999, axis=0) if steps else np.zeros(len(low))
    notes["lower"] = (
        "Limits of the action, in the card's order: what the recording reached and 5 % more. "
        "REPLACE these and velocity by the data sheet's before a robot moves by this card."
    )

    def rounded(values: np.ndarray) -> tuple[float, ...]:
        return tuple(round(float(v), 4) for v in values)

    return rounded(low - slack), rounded(high + slack), rounded(np.maximum(1.2 * fast, 0.1))
