"""Defects between rows and frames: length, clock, damage, shifts in time, frozen pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ...errors import UserError
from ..reader import Dataset
from .findings import Finding

SIDE_PX = 16
_MOST_LAG_S = 1.0
_FOLLOWS = 0.7
_FROZEN_S = 0.5
# Change of a picture, in levels of 256, that no motion is behind.
_STILL = 0.02


@dataclass(frozen=True)
class Look:
    """A view of one episode, small: uint8 ``[t, 16, 16, 3]``, one picture for each row."""

    episode: int
    view: str
    pictures: np.ndarray


def look(dataset: Dataset, episode: int, view: str) -> tuple[Look | None, list[Finding]]:
    """Decode a whole view of an episode; findings instead of pictures where that fails."""
    try:
        places = dataset.frame_of_row(episode, view)
        path = dataset.episode(episode).videos[view].path
    except UserError as error:
        return None, [Finding("error", "video-damaged", str(error), episode, view=view)]
    unique, inverse = np.unique(places, return_inverse=True)
    parts = []
    for start in range(0, len(unique), 64):
        chosen = unique[start : start + 64]
        try:
            parts.append(dataset.clips.read(path, chosen, (SIDE_PX, SIDE_PX)))
        except UserError as error:
            row = int(np.searchsorted(places, _damaged(dataset, path, chosen)))
            return None, [Finding("error", "video-damaged", str(error), episode, row, view)]
    return Look(episode, view, np.concatenate(parts)[inverse]), []


def _damaged(dataset: Dataset, path: object, frames: np.ndarray) -> int:
    """The first of these frames that cannot be decoded."""
    for frame in frames:
        try:
            dataset.clips.read(path, frame[None], (SIDE_PX, SIDE_PX))  # type: ignore[arg-type]
        except UserError:
            return int(frame)
    return int(frames[0])


def check_clock(dataset: Dataset, episode: int, view: str) -> Iterator[Finding]:
    """What lengths and timestamps say, and whether the last frame can be decoded."""
    stamps = dataset.rows(episode)["timestamp"]
    try:
        clip = dataset.clips.about(dataset.episode(episode).videos[view].path)
        if clip.truncated:
            text = f"{clip.path.name} is cut off after {len(clip)} frames"
            yield Finding(
                "error", "video-truncated", text, episode, min(len(clip), len(stamps)), view
            )
        first, times = dataset.frame_times(episode, view)
        places = dataset.frame_of_row(episode, view)
        dataset.clips.read(clip.path, np.array([first + len(times) - 1]), (SIDE_PX, SIDE_PX))
    except UserError as error:
        yield Finding("error", "video-damaged", str(error), episode, view=view)
        return
    step = max(1.0 / dataset.fps, float(np.median(np.diff(times))) if len(times) > 1 else 0.0)
    shown = times[places - first]
    counted = np.array_equal(places - first, np.minimum(np.arange(len(stamps)), len(times) - 1))
    late = np.abs(shown - (stamps - (0.0 if stamps[0] <= 2.5 * step else stamps[0]))) / step
    row = int(np.argmax(late > 1.5))
    if len(stamps) - len(times) > 2 and late.max() > 1.5:
        text = f"ends about {len(stamps) / dataset.fps - times[-1]:.1f} s before the rows do"
        yield Finding("error", "video-short", text, episode, row, view)
    elif late.max() > 1.5:
        if counted and abs(len(times) - len(stamps)) <= 2:
            text = "runs at another rate than the rows; frames are counted"
            yield Finding("warning", "video-clock", text, episode, view=view)
        else:
            text = f"frames and rows drift apart by {late.max():.0f} steps"
            yield Finding("error", "misaligned", text, episode, row, view)


class Alignment:
    """How the pictures of views follow the joints in time, an episode at a time and altogether.

    The speed of the joints and the change of the picture are correlated at shifts up to a second. Only
    where they agree closely (above 0.7 at the best shift) is anything said of it.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._most = round(_MOST_LAG_S * dataset.fps)
        # Cameras answer late by some frames; more than this they do not.
        self._allowed = max(2, round(0.12 * dataset.fps))
        self._curves: dict[str, list[np.ndarray]] = {}
        rows = [dataset.rows(e.index)["state"] for e in dataset.episodes]
        self._span = np.ptp(np.concatenate(rows), axis=0) if rows[0].shape[1] else np.zeros(0)

    def add(self, seen: Look) -> Iterator[Finding]:
        """Findings of one view of one episode."""
        state = self._dataset.rows(seen.episode)["state"]
        if len(state) < 20 or not state.shape[1] or not np.isfinite(state).all():
            return
        energy = np.abs(np.diff(seen.pictures.astype(np.float32).mean(-1), axis=0)).mean((1, 2))
        stands = list(self._frozen(seen, state, energy))
        yield from stands
        if any(f.level == "error" for f in stands) or len(state) <= 3 * self._most:
            return
        curve = _correlations(state, energy, self._most)
        self._curves.setdefault(seen.view, []).append(curve)
        near = curve[self._most - 1 : self._most + 2].max()
        yield from self._shifted(curve, curve.max() - near > 0.05, seen.view, seen.episode)

    def total(self) -> Iterator[Finding]:
        """Findings about whole views."""
        best = []
        for view, curves in self._curves.items():
            curve = np.mean(curves, axis=0)
            best.append(float(curve.max()))
            yield from self._shifted(curve, len(curves) > 1, view, None)
        if best and max(best) <= _FOLLOWS:
            text = f"no view follows the joints closely (correlation {max(best):.2f})"
            yield Finding("note", "alignment-unknown", f"{text}; shifts in time stay unseen")

    def _shifted(
        self, curve: np.ndarray, certain: bool, view: str, episode: int | None
    ) -> Iterator[Finding]:
        lag = int(curve.argmax()) - self._most
        if curve.max() <= _FOLLOWS or abs(lag) <= self._allowed or not certain:
            return
        when = "after" if lag > 0 else "before"
        seconds = abs(lag) / self._dataset.fps
        text = f"shows the motion {abs(lag)} rows ({seconds:.2f} s) {when} the rows do"
        yield Finding("error", "misaligned", text, episode, None if episode is None else 0, view)

    def _frozen(self, seen: Look, state: np.ndarray, energy: np.ndarray) -> Iterator[Finding]:
        """Pictures that are the very same while the robot moves through a tenth of its range."""
        usable = self._span > 1e-3
        share = state[:, usable] / self._span[usable]
        if not usable.any():
            return
        for start, stop in _runs(energy < _STILL):
            moved = float(np.ptp(share[start : stop + 1], axis=0).max())
            seconds = (stop - start) / self._dataset.fps
            if seconds >= _FROZEN_S and moved > 0.1:
                text = f"stands still for {seconds:.1f} s while the robot moves"
                yield Finding("error", "video-frozen", text, seen.episode, int(start), seen.view)
                return
        # Encoders do not repeat a frame exactly: it changes far less than those around it do.
        around = sliding_window_view(np.pad(energy, 3), 7).max(axis=1)
        repeats = energy < np.maximum(0.15 * around, _STILL)
        for start, stop in _runs(repeats):
            if stop - start > 3:
                repeats[start:stop] = False
        moves = np.abs(np.diff(share, axis=0)).max(axis=1) > 0.005
        if moves.sum() >= 20 and repeats[moves].mean() > 0.35:
            text = f"{repeats[moves].mean():.0%} of its frames repeat the one before in motion"
            row = int(np.flatnonzero(repeats & moves)[0])
            yield Finding("warning", "repeated-frames", text, seen.episode, row, seen.view)


def _runs(where: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(int)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _correlations(state: np.ndarray, energy: np.ndarray, most: int) -> np.ndarray:
    """Of joint speed and picture change, the picture later by -most to most rows."""
    speed = np.abs(np.diff(state, axis=0) / np.maximum(state.std(0), 1e-3)).sum(1)
    a, b = (np.convolve(np.sqrt(x), np.ones(3) / 3, "same") for x in (speed, energy))
    found = []
    for lag in range(-most, most + 1):
        x, y = (a[: len(a) - lag], b[lag:]) if lag >= 0 else (a[-lag:], b[:lag])
        x, y = x - x.mean(), y - y.mean()
        scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
        found.append(float((x * y).sum()) / scale if scale > 1e-9 else 0.0)
    return np.array(found)
