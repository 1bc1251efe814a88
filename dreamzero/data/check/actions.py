"""Whether actions are commands: they have to lead the state, and by the same time everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..reader import Dataset
from .findings import Finding, Level

_LAGS = range(-3, 16)
Pair = tuple[np.ndarray, np.ndarray]


def check_actions(dataset: Dataset) -> Iterator[Finding]:
    """By how many rows actions lead the state: none or less means they say nothing new."""
    if not dataset.has_action or len(dataset.state_names) != len(dataset.action_names):
        return
    rows = {e.index: dataset.rows(e.index) for e in dataset.episodes}
    pairs = {i: (r["state"], r["action"]) for i, r in rows.items()}
    pairs = {i: p for i, p in pairs.items() if all(np.isfinite(x).all() for x in p)}
    if not pairs:
        return
    span = np.ptp(np.concatenate([s for s, _ in pairs.values()]), axis=0)
    varies = span > 1e-4
    if not varies.any():
        return

    def verdict(chosen: Sequence[Pair]) -> tuple[Level, str, str]:
        distances = [_distance(chosen, lag, span, varies) for lag in _LAGS]
        # The median dimension: one joint with an offset of its own must not hide the others.
        usual = [float(np.median(d)) for d in distances]
        best = _LAGS[int(np.argmin(usual))]
        if min(usual) > 0.1:
            text = "actions are not in the state's space; lag not measured"
            return "note", "action-space", text
        if distances[_LAGS.index(0)].max() < 1e-6:
            return "error", "action-is-state", "action[t] equals state[t]: nothing to learn from"
        if best < 0:
            return "error", "action-late", f"actions follow the state by {-best} rows: shifted"
        if distances[_LAGS.index(1)].max() < 1e-6:
            text = "action[t] equals state[t+1]: the state reached, no command was recorded"
            return "warning", "action-is-next-state", text
        if best == 0:
            text = "actions are those of the state's own time: shifted by a row, or not commands"
            return "warning", "action-not-ahead", text
        return "note", "action-lead", f"actions lead the state by {best} rows"

    level, name, text = verdict(list(pairs.values()))
    yield Finding(level, name, text)
    for index, pair in pairs.items():
        moves = np.ptp(pair[0], axis=0)[varies] / span[varies]
        if moves.max() < 0.1 or len(pair[0]) < 2 * len(_LAGS):
            continue
        own = verdict([pair])
        if own[0] == "error" and own[1] != name:
            yield Finding(*own, index, 0)


def _distance(pairs: Sequence[Pair], lag: int, span: np.ndarray, varies: np.ndarray) -> np.ndarray:
    """Mean distance of action[t] and state[t + lag] as a share of the range, each dimension."""
    parts = []
    for s, a in pairs:
        if len(s) <= abs(lag):
            continue
        past, later = (a[: len(a) - lag], s[lag:]) if lag >= 0 else (a[-lag:], s[:lag])
        parts.append((np.abs(past - later) / np.where(varies, span, 1.0))[:, varies])
    return np.concatenate(parts).mean(0) if parts else np.full(int(varies.sum()), np.inf)
