"""What notebook 01 measures on a recording before it draws it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamzero.data.normalize import anchored, compute, relative_to
from dreamzero.data.resample import actions_at, nearest, select
from dreamzero.embodiments import Embodiment
from dreamzero.report import paths

if TYPE_CHECKING:
    from dreamzero.data.normalize import Normalizer
    from dreamzero.data.reader import Dataset
    from dreamzero.sim import Tabletop

DROID_FILES = ("exterior_image_1_left.mp4", "exterior_image_2_left.mp4", "wrist_image_left.mp4")
Quantiles = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Blocks:
    """Whole blocks of one episode in SI units.

    Attributes:
        state: float ``[n, s]`` at each block's first step.
        absolute, relative: actions before and after anchoring, float ``[n, k, a]``.
        anchor: float ``[n, a]``, what was subtracted; 0 for absolute dimensions.
    """

    state: np.ndarray
    absolute: np.ndarray
    relative: np.ndarray
    anchor: np.ndarray


def blocks(dataset: Dataset, card: Embodiment, episode: int, most: int = 4) -> Blocks:
    """The first whole blocks of an episode (at least one, held at its end), states and actions."""
    rows = dataset.rows(episode)
    times = rows["timestamp"]
    count = max(1, min(most, int((times[-1] - times[0]) / card.block_s + 1e-3)))
    at = times[0] + np.arange(count * card.horizon) / card.action_hz
    absolute = actions_at(card.action, times, rows["action"], at)
    absolute = absolute.reshape(count, card.horizon, -1)
    state = select(card.state, rows["state"])[nearest(times, at[:: card.horizon])]
    anchor = anchored(relative_to(card.action, card.state), state)
    return Blocks(state, absolute, absolute - anchor[:, None], anchor)


def typical(dataset: Dataset) -> int:
    """Number of the episode whose state (or action) travels a median distance."""
    travelled = {}
    for episode in dataset.episodes:
        rows = dataset.rows(episode.index)
        values = rows["state"] if rows["state"].shape[1] else rows["action"]
        travelled[episode.index] = float(np.abs(np.diff(values, axis=0)).sum())
    return sorted(travelled, key=lambda index: travelled[index])[len(travelled) // 2]


def anchored_every(card: Embodiment, steps: int) -> Embodiment:
    """The same robot with actions relative to the state ``steps`` action steps ago at most."""
    hz = card.frames_per_block * card.action_hz / steps
    return card.with_(horizon=steps, video_hz=hz)


def anchorings(dataset: Dataset, card: Embodiment) -> dict[str, Quantiles]:
    """Quantiles of the card's relative action dimensions under four ways to anchor them.

    Returns:
        way -> (q01, q99), each float64 ``[relative dimensions]``: "absolute", "per step" (every
        action on its own state), "per block" (what the model uses), "whole window".
    """
    plain = card.with_(action=tuple(replace(f, relative=False) for f in card.action))
    ways = {
        "absolute": plain,
        "per step": anchored_every(card, 1),
        "per block": card,
        "whole window": anchored_every(card, card.horizon * card.blocks),
    }
    keys = [f.key for f in card.action if f.relative]
    found = {}
    for way, changed in ways.items():
        action = compute(dataset, changed).action
        low, high = (np.concatenate([getattr(action[k], q) for k in keys]) for q in ("q01", "q99"))
        found[way] = (low, high)
    return found


def reach(quantiles: Mapping[str, Quantiles]) -> dict[str, float]:
    """Width of each way's quantile range over that of "per block": median of the joints."""
    base = quantiles["per block"][1] - quantiles["per block"][0]
    varies = base > 1e-6
    return {
        way: float(np.median((high - low)[varies] / base[varies]))
        for way, (low, high) in quantiles.items()
    }


def normalised(dataset: Dataset, normalizer: Normalizer) -> dict[str, np.ndarray]:
    """States and actions of all whole blocks as the model sees them: kind -> ``[n, d]``."""
    card = normalizer.card
    parts = [blocks(dataset, card, e.index, most=10_000) for e in dataset.episodes]
    states = [normalizer.state(p.state) for p in parts]
    found = {"state": np.concatenate(states)}
    if card.action and dataset.has_action:
        actions = [normalizer.action(p.absolute, p.state) for p in parts]
        found["action"] = np.concatenate([a.reshape(-1, a.shape[-1]) for a in actions])
    return found


def names_of(dataset: Dataset, card: Embodiment) -> dict[str, list[str]]:
    """Names of the card's state and action dimensions, as the recording calls them."""
    found = {}
    for kind, fields, names in (
        ("state", card.state, dataset.state_names),
        ("action", card.action, dataset.action_names),
    ):
        found[kind] = [names[i] for f in fields for i in range(f.start, f.stop)] if names else []
    return found


def summary_rows(dataset: Dataset, card: Embodiment) -> list[dict[str, Any]]:
    """Format, rates, sizes and names of a recording as rows of a table."""
    lengths = [e.length for e in dataset.episodes]
    views = ", ".join(
        f"{view.rsplit('.', 1)[-1]} {h} x {w} ({dataset.codecs[view]})"
        for view, (h, w) in dataset.views.items()
    )
    minutes = sum(lengths) / dataset.fps / 60
    facts = {
        "format": f"LeRobot {dataset.version}",
        "robot": str(dataset.info.get("robot_type") or "not stated"),
        "episodes": f"{len(lengths)} of {dataset.described}, {min(lengths)} to {max(lengths)} rows",
        "length": f"{sum(lengths)} rows at {dataset.fps:g} fps, {minutes:.1f} minutes",
        "views": views or "none",
        "state": ", ".join(dataset.state_names) or "not recorded",
        "action": ", ".join(dataset.action_names) or "not recorded",
        "instructions": f"{len(dataset.tasks)} different",
        "card": f"{card.name}: {card.frames_per_block} frames and {card.horizon} actions a block",
    }
    return [{"": name, "what is there": text} for name, text in facts.items()]


def held_out(colours: Sequence[str], kinds: Sequence[str]) -> np.ndarray:
    """bool ``[colours, kinds]``: which tasks are never trained on; kinds as "push left"."""
    from dreamzero.sim import HELD_OUT, Task

    def task(colour: str, kind: str) -> Task:
        verb, _, target = kind.partition(" ")
        return Task(verb, colour, target or None)

    return np.array([[task(c, k) in HELD_OUT for k in kinds] for c in colours])


def first_frames(table: Tabletop, suite: str, count: int, seed: int) -> list[np.ndarray]:
    """The first frame of ``count`` scenes of a suite, uint8 ``[h, w, 3]`` each."""
    from dreamzero.sim import sample_scene

    frames = []
    for i in range(count):
        table.reset_quietly(sample_scene(suite, seed * 1_000_000 + i))
        frames.append(table.render_views(["front"])["front"])
    return frames


def find_real_data() -> Path | None:
    """The folder of real recordings (``DREAMZERO_REAL_DATA``); None where it is not at hand.

    Without the variable, ``shared/real_data`` beside the checkout is looked at.
    """
    given = os.environ.get("DREAMZERO_REAL_DATA")
    path = Path(given) if given else paths.repository_root().parent / "shared" / "real_data"
    return path if path.is_dir() else None


def droid_views(folder: Path | None, frame: int = 200) -> dict[str, np.ndarray] | None:
    """One instant of three DROID cameras: view -> uint8 ``[180, 320, 3]``; None where absent."""
    from dreamzero import embodiments
    from dreamzero.data.video import Clip

    files = [folder / "droid_clips" / name for name in DROID_FILES] if folder else []
    if not files or not all(path.is_file() for path in files):
        return None
    views = embodiments.get("droid").views
    return {v: Clip(path).read([frame])[0] for v, path in zip(views, files, strict=True)}
