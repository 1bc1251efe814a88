"""What would make a training on a recording wrong, found before it is spent.

Loss falls on misaligned data as it does on good data (MODEL.md 7); only the robot notices. Each finding
has a level: "error" (training on this would be wrong), "warning" (it works, know it), "note".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..embodiments import Embodiment
from ..errors import UserError
from .lerobot import ACTION, STATE
from .reader import Dataset
from .resample import select, validate

Level = Literal["error", "warning", "note"]
_MOVES = 2e-3
_WARNINGS = ("rate", "episodes-missing", "undescribed", "length", "image-columns", "no-timestamp")


@dataclass(frozen=True)
class Finding:
    """One thing found: ``name`` for programs, ``where`` (episodes, views), ``text`` for people."""

    level: Level
    name: str
    where: str
    text: str


def check(
    dataset: Dataset, card: Embodiment | None = None, thorough: bool = False
) -> list[Finding]:
    """All findings, the worst first.

    Args:
        dataset: an opened dataset; every row and each episode's last frame is read.
        card: adds its demands (views, widths, joint speeds).
        thorough: decode every frame, which finds damage in the middle of a file.
    """
    found = list(_of_notes(dataset))
    found += _of_statistics(dataset)
    if card is not None:
        misfits = list(_of_card(dataset, card))
        found += misfits
        card = None if any(f.name == "card" for f in misfits) else card
    per_episode: dict[tuple[Level, str, str], list[int]] = {}
    for episode in dataset.episodes:
        for level, name, text in _of_episode(dataset, episode.index, card, thorough):
            per_episode.setdefault((level, name, text), []).append(episode.index)
    found += [
        Finding(level, name, _where(episodes), text)
        for (level, name, text), episodes in per_episode.items()
    ]
    found += _of_lag(dataset)
    found += _of_idleness(dataset)
    order = ("error", "warning", "note")
    return sorted(found, key=lambda f: order.index(f.level))


def _where(episodes: Sequence[int]) -> str:
    shown = ", ".join(str(e) for e in episodes[:8])
    more = f" and {len(episodes) - 8} more" if len(episodes) > 8 else ""
    return f"episode{'s' if len(episodes) > 1 else ''} {shown}{more}"


def _of_notes(dataset: Dataset) -> Iterator[Finding]:
    for note in dataset.notes:
        name, _, text = note.partition(": ")
        level: Level = "warning" if name in _WARNINGS else "note"
        yield Finding("error" if name == "truncated" else level, name, "dataset", text)


def _of_card(dataset: Dataset, card: Embodiment) -> Iterator[Finding]:
    try:
        validate(dataset, card)
    except UserError as error:
        yield Finding("error", "card", card.name, str(error))
    for view in card.views:
        if view not in dataset.views:
            yield Finding("error", "view-missing", view, f"card {card.name} looks through it")
    if card.has_action and not dataset.has_action:
        yield Finding("warning", "no-action", "dataset", "no actions: it trains the video only")


def _of_statistics(dataset: Dataset) -> Iterator[Finding]:
    """stats.json against the rows: numbers of other data normalise silently wrong."""
    path = dataset.root / "meta/stats.json"
    if not path.is_file():
        return
    try:
        stats = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield Finding("warning", "stats-unreadable", path.name, str(error))
        return
    for key, kind in ((STATE, "state"), (ACTION, "action")):
        numbers = stats.get(key) if isinstance(stats, dict) else None
        rows = [dataset.rows(e.index)[kind] for e in dataset.episodes]
        if not isinstance(numbers, dict) or not {"min", "max"} <= numbers.keys():
            continue
        if not rows[0].shape[1]:
            continue
        values = np.concatenate(rows)
        low, high = (np.ravel(numbers[n]).astype(float) for n in ("min", "max"))
        if len(low) != values.shape[1]:
            yield Finding("warning", "stats-foreign", key, "stats.json has another width")
            continue
        slack = 1e-3 * np.maximum(high - low, 1e-6)
        outside = int(((values < low - slack) | (values > high + slack)).any(axis=1).sum())
        if outside:
            yield Finding(
                "warning", "stats-foreign", key, f"{outside} rows lie outside stats.json's min, max"
            )


def _of_episode(
    dataset: Dataset, episode: int, card: Embodiment | None, thorough: bool
) -> Iterator[tuple[Level, str, str]]:
    rows = dataset.rows(episode)
    times = rows["timestamp"]
    for kind in ("state", "action"):
        if not np.isfinite(rows[kind]).all():
            yield "error", "not-finite", f"{kind} holds NaN or infinity"
    steps = np.diff(times) * dataset.fps
    if (steps <= 0).any():
        yield "error", "time-backwards", "timestamps do not increase"
    elif (steps > 1.5).any():
        yield "warning", "time-gap", "rows are missing between timestamps"
    elif len(steps) and np.abs(steps - 1).max() > 0.25:
        yield "warning", "time-jitter", "steps differ by more than a quarter from the rate"
    if _jumps(dataset, rows["state"], card):
        yield "warning", "jump", "the state jumps farther in a row than it can move"
    for view in dataset.views:
        yield from _of_video(dataset, episode, view, thorough)


def _of_video(
    dataset: Dataset, episode: int, view: str, thorough: bool
) -> Iterator[tuple[Level, str, str]]:
    stamps = dataset.rows(episode)["timestamp"]
    try:
        first, times = dataset.frame_times(episode, view)
        places = dataset.frame_of_row(episode, view)
        path = dataset.episode(episode).videos[view].path
        last = first + len(times) - 1
        for start in range(first if thorough else last, last + 1, 64):
            dataset.clips.read(path, np.arange(start, min(start + 64, last + 1)))
    except UserError as error:
        yield "error", "video-damaged", str(error)
        return
    step = max(1.0 / dataset.fps, float(np.median(np.diff(times))) if len(times) > 1 else 0.0)
    shown = times[places - first]
    counted = np.array_equal(places - first, np.minimum(np.arange(len(stamps)), len(times) - 1))
    late = np.abs(shown - (stamps - (0.0 if stamps[0] <= 2.5 * step else stamps[0]))) / step
    if len(stamps) - len(times) > 2 and late.max() > 1.5:
        short = len(stamps) / dataset.fps - times[-1]
        yield "error", "video-short", f"{view} ends about {short:.1f} s before the rows do"
    elif late.max() > 1.5:
        if counted and abs(len(times) - len(stamps)) <= 2:
            yield "warning", "video-clock", f"{view} runs at another rate than the rows; counted"
        else:
            yield "error", "misaligned", f"{view} and rows drift apart by {late.max():.0f} steps"


def _jumps(dataset: Dataset, state: np.ndarray, card: Embodiment | None) -> bool:
    if len(state) < 3 or not state.shape[1]:
        return False
    values = state
    limit = np.full(state.shape[1], np.inf)
    if card is not None and len(card.velocity) == card.state_dim and card.state_dim:
        values = select(card.state, state)
        # Sensors and clocks jitter: only what twice the top speed cannot explain counts.
        limit = 2.0 * np.asarray(card.velocity) / dataset.fps
    moved = np.abs(np.diff(values, axis=0))
    span = np.ptp(values, axis=0)
    usual = np.quantile(moved, 0.99, axis=0)
    switch = np.array([len(np.unique(column)) <= 4 for column in values.T])
    abrupt = np.where(switch, np.inf, np.maximum(0.25 * span, 10 * usual))
    abrupt = np.where(span > 0.02, abrupt, np.inf)
    return bool((moved > np.minimum(np.where(switch, np.inf, limit), abrupt)).any())


def _of_lag(dataset: Dataset) -> Iterator[Finding]:
    """By how many rows actions lead the state: none or less means they say nothing new."""
    if not dataset.has_action or len(dataset.state_names) != len(dataset.action_names):
        return
    pairs = [(r["state"], r["action"]) for r in (dataset.rows(e.index) for e in dataset.episodes)]
    span = np.ptp(np.concatenate([s for s, _ in pairs]), axis=0)
    varies = span > 1e-4
    if not varies.any():
        return
    lags = range(-3, 16)

    def distance(lag: int) -> np.ndarray:
        parts = []
        for s, a in pairs:
            if len(s) <= abs(lag):
                continue
            past, later = (a[: len(a) - lag], s[lag:]) if lag >= 0 else (a[-lag:], s[:lag])
            parts.append((np.abs(past - later) / np.where(varies, span, 1.0))[:, varies])
        return np.concatenate(parts).mean(0) if parts else np.full(int(varies.sum()), np.inf)

    # The median dimension: one joint with an offset of its own must not hide the others.
    distances = [float(np.median(distance(lag))) for lag in lags]
    best, least = lags[int(np.argmin(distances))], min(distances)
    if least > 0.1:
        yield Finding(
            "note", "action-space", ACTION, "actions are not in the state's space; lag not measured"
        )
    elif distance(0).max() < 1e-6:
        yield Finding(
            "error", "action-is-state", ACTION, "action[t] equals state[t]: nothing to learn from"
        )
    elif best < 0:
        yield Finding(
            "error", "action-late", ACTION, f"actions follow the state by {-best} rows: shifted"
        )
    elif distance(1).max() < 1e-6:
        yield Finding(
            "warning",
            "action-is-next-state",
            ACTION,
            "action[t] equals state[t+1]: the state reached, no command was recorded",
        )
    else:
        yield Finding("note", "action-lead", ACTION, f"actions lead the state by {best} rows")


def _of_idleness(dataset: Dataset) -> Iterator[Finding]:
    kind = "state" if dataset.state_names else "action"
    rows = [dataset.rows(e.index)[kind] for e in dataset.episodes]
    if not rows[0].shape[1]:
        return
    names = dataset.state_names if kind == "state" else dataset.action_names
    everything = np.concatenate(rows)
    span = np.ptp(everything, axis=0)
    constant = [name for name, width in zip(names, span, strict=True) if width <= 1e-6]
    if constant:
        yield Finding("note", "constant", kind, f"never varies: {', '.join(constant)}")
    least = _MOVES * np.where(span > 1e-6, span, np.inf)
    moving = np.concatenate([(np.abs(np.diff(x, axis=0)) > least).any(axis=1) for x in rows])
    if len(moving) and moving.mean() < 0.5:
        yield Finding(
            "warning",
            "idle",
            "dataset",
            f"nothing moves in {1 - moving.mean():.0%} of the rows; consider the idle filter",
        )
