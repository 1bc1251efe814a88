"""Defects that the rows alone show: time, rate, jumps, idleness, limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from ...embodiments import Embodiment
from ..reader import Dataset
from ..resample import select
from .findings import Finding

# A row moves if a dimension changes by more than this share of its range in the dataset.
_MOVES = 2e-3
_IDLE_S = 2.0


def check_rows(dataset: Dataset, card: Embodiment | None) -> Iterator[Finding]:
    """Findings in every episode's rows, then those about all of them."""
    spans = {kind: _span(dataset, kind) for kind in ("state", "action")}
    for episode in tqdm(dataset.episodes, desc="check rows", delay=2, disable=None):
        yield from _episode(dataset, episode.index, spans, card)
    yield from _idleness(dataset, spans)


def _span(dataset: Dataset, kind: str) -> np.ndarray:
    """Range of each dimension over all episodes."""
    rows = [dataset.rows(e.index)[kind] for e in dataset.episodes]
    low = np.min([np.nanmin(x, axis=0) for x in rows], axis=0)
    high = np.max([np.nanmax(x, axis=0) for x in rows], axis=0)
    return np.asarray(high - low)


def moving(rows: np.ndarray, span: np.ndarray) -> np.ndarray:
    """bool ``[t - 1]``: whether anything changes from a row to the next."""
    least = _MOVES * np.where(span > 1e-6, span, np.inf)
    return np.asarray((np.abs(np.diff(rows, axis=0)) > least).any(axis=1))


def _episode(
    dataset: Dataset, index: int, spans: dict[str, np.ndarray], card: Embodiment | None
) -> Iterator[Finding]:
    rows = dataset.rows(index)
    for kind in ("state", "action"):
        bad = ~np.isfinite(rows[kind]).all(axis=1)
        if bad.any():
            text = f"{kind} holds NaN or infinity in {bad.sum()} rows"
            yield Finding("error", "not-finite", text, index, _first(bad))
    yield from _time(dataset, index, rows["timestamp"])
    state = rows["state"]
    if not state.shape[1] or not np.isfinite(state).all():
        return
    yield from _jumps(dataset, index, state, card)
    yield from _repeated(dataset, index, state, spans["state"])
    yield from _idle_stretch(dataset, index, moving(state, spans["state"]))
    if card is not None and card.state_dim:
        yield from _limits(dataset, index, select(card.state, state), card)


def _first(where: Any) -> int:
    return int(np.flatnonzero(where)[0])


def _time(dataset: Dataset, index: int, stamps: np.ndarray) -> Iterator[Finding]:
    steps = np.diff(stamps) * dataset.fps
    if not len(steps):
        return
    own = 1.0 / float(np.median(steps)) if np.median(steps) > 0 else np.nan
    if (steps <= 0).any():
        row = _first(steps <= 0) + 1
        yield Finding("error", "time-backwards", "timestamps do not increase", index, row)
    elif abs(own - 1) > 0.05:
        text = f"its rows step {1 / own / dataset.fps:.4g} s; the dataset's {1 / dataset.fps:.4g} s"
        yield Finding("error", "rate-differs", text, index)
    elif (steps > 1.5).any():
        lost = int(np.round(steps - 1)[steps > 1.5].sum())
        text = f"{lost} rows are missing between timestamps"
        yield Finding("warning", "time-gap", text, index, _first(steps > 1.5) + 1)
    elif np.abs(steps - 1).max() > 0.25:
        text = "steps differ by more than a quarter from the rate"
        yield Finding("warning", "time-jitter", text, index, _first(np.abs(steps - 1) > 0.25) + 1)


def _jumps(
    dataset: Dataset, index: int, state: np.ndarray, card: Embodiment | None
) -> Iterator[Finding]:
    if len(state) < 3:
        return
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
    far = (moved > np.minimum(np.where(switch, np.inf, limit), abrupt)).any(axis=1)
    if far.any():
        text = "the state jumps farther in a row than it can move"
        yield Finding("warning", "jump", text, index, _first(far) + 1)


def _repeated(
    dataset: Dataset, index: int, state: np.ndarray, span: np.ndarray
) -> Iterator[Finding]:
    """States that change only every so many rows, all through the episode's motion."""
    changes = np.flatnonzero((np.diff(state, axis=0) != 0).any(axis=1))
    if len(changes) < 10 or not moving(state, span).any():
        return
    every = float(np.median(np.diff(changes)))
    same = float((np.diff(changes) == every).mean())
    if every >= 2 and same > 0.8:
        hz = dataset.fps / every
        text = f"the state changes only every {every:.0f} rows: it was recorded at {hz:.3g} Hz"
        yield Finding("warning", "repeated-rows", text, index, int(changes[0]))


def _idle_stretch(dataset: Dataset, index: int, moves: np.ndarray) -> Iterator[Finding]:
    edges = np.flatnonzero(np.diff(np.concatenate([[True], moves, [True]]).astype(int)))
    starts, stops = edges[::2], edges[1::2]
    if not len(starts):
        return
    longest = int(np.argmax(stops - starts))
    seconds = (stops - starts)[longest] / dataset.fps
    if seconds >= _IDLE_S:
        text = f"nothing moves for {seconds:.1f} s"
        yield Finding("warning", "idle-stretch", text, index, int(starts[longest]))


def _limits(dataset: Dataset, index: int, state: np.ndarray, card: Embodiment) -> Iterator[Finding]:
    """Values and speeds that the card's limits cannot explain: degrees, another order, a wrong rate."""
    if len(card.lower) == len(card.upper) == card.state_dim:
        low, high = np.asarray(card.lower), np.asarray(card.upper)
        slack = np.maximum(0.1 * (high - low), 0.1)
        # A switch may be recorded from -1 to 1 as well as from 0 to 1.
        joint = np.concatenate([[f.unit != "1"] * f.width for f in card.state])
        out = ((state < low - slack) | (state > high + slack)) & joint
        if out.mean(axis=0).max() > 0.05:
            worst = int(out.mean(axis=0).argmax())
            text = (
                f"state {worst} reaches {state[:, worst].min():.3g} to {state[:, worst].max():.3g}; "
                f"the card allows {low[worst]:.3g} to {high[worst]:.3g}"
            )
            yield Finding("error", "out-of-range", text, index, _first(out.any(axis=1)))
    if len(card.velocity) == card.state_dim and len(state) > 3:
        speed = np.abs(state[2:] - state[:-2]) * dataset.fps / 2
        fast = speed > 1.5 * np.asarray(card.velocity)
        if fast.mean(axis=0).max() > 0.02:
            worst = int(fast.mean(axis=0).argmax())
            text = (
                f"state {worst} moves at {speed[:, worst].max():.3g} a second; the card allows "
                f"{card.velocity[worst]:.3g}"
            )
            yield Finding("error", "too-fast", text, index, _first(fast.any(axis=1)))


def _idleness(dataset: Dataset, spans: dict[str, np.ndarray]) -> Iterator[Finding]:
    kind = "state" if dataset.state_names else "action"
    span = spans[kind]
    if not len(span):
        return
    names = dataset.state_names if kind == "state" else dataset.action_names
    constant = [name for name, width in zip(names, span, strict=True) if width <= 1e-6]
    if constant:
        yield Finding("note", "constant", f"{kind} never varies: {', '.join(constant)}")
    parts = [moving(dataset.rows(e.index)[kind], span) for e in dataset.episodes]
    moves = np.concatenate(parts)
    if len(moves) and moves.mean() < 0.5:
        text = f"nothing moves in {1 - moves.mean():.0%} of the rows; consider the idle filter"
        yield Finding("warning", "idle", text)
