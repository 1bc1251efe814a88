"""Cameras that were swapped or mounted mirrored in some episodes, found by comparing episodes.

Two things are compared under every flip and with every other view: the episode's mean picture with
that of the other episodes, and how its pixels change with the joints with how they do there (a ridge
regression). Scenes that look like their own mirror image cannot be told from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ..reader import Dataset
from .findings import Finding
from .video import SIDE_PX, Look

# By how much another explanation must fit better; sound recordings stay below 0.3.
_MARGIN = 0.4
_LEAST = 3
# Episodes that fit worst may be the ones that are wrong: they say nothing about the others.
_TRUSTED = 0.75
_RIDGE = 0.05
_FLIPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored left to right": lambda x: x[..., ::-1, :],
    "mirrored top to bottom": lambda x: x[..., ::-1, :, :],
    "turned by 180 degrees": lambda x: x[..., ::-1, ::-1, :],
}


def check_views(dataset: Dataset, looks: Sequence[Look]) -> Iterator[Finding]:
    """Findings about views that at least three episodes were looked at of."""
    by_view: dict[str, dict[int, Look]] = {}
    for seen in looks:
        by_view.setdefault(seen.view, {})[seen.episode] = seen
    models = {view: _Model(dataset, own) for view, own in by_view.items() if len(own) >= _LEAST}
    for view, model in models.items():
        for episode, seen in by_view[view].items():
            own = model.fit(seen.pictures, episode)
            flips = {name: model.fit(flip(seen.pictures), episode) for name, flip in _FLIPS.items()}
            others = {o: m.fit(seen.pictures, episode) for o, m in models.items() if o != view}
            yield from _verdict(seen, own, flips, others)


def _verdict(
    seen: Look, own: float, flips: Mapping[str, float], others: Mapping[str, float]
) -> Iterator[Finding]:
    flip = max(flips, key=lambda name: flips[name])
    other = max(others, key=lambda name: others[name], default=None)
    if other is not None and others[other] > max(own + _MARGIN, flips[flip]):
        text = f"looks like {other.rsplit('.', 1)[-1]} does in the other episodes"
        yield Finding("error", "camera-swapped", text, seen.episode, 0, seen.view)
    elif flips[flip] > own + _MARGIN:
        text = f"is {flip} against the other episodes"
        yield Finding("error", "camera-flipped", text, seen.episode, 0, seen.view)


class _Model:
    """How one view looks, and how it moves with the joints, in all episodes but one."""

    def __init__(self, dataset: Dataset, looks: Mapping[int, Look]) -> None:
        states = {i: dataset.rows(i)["state"] for i in looks}
        everything = np.concatenate(list(states.values()))
        usable = everything.shape[1] > 0 and bool(np.isfinite(everything).all())
        self._features: dict[int, np.ndarray] = {}
        self._squares: dict[int, np.ndarray] = {}
        self._crossed: dict[int, np.ndarray] = {}
        self._means = {i: _centred(seen.pictures.mean(0)) for i, seen in looks.items()}
        if usable:
            mean, std = everything.mean(0), everything.std(0) + 1e-6
            for i, seen in looks.items():
                x = _features((states[i] - mean) / std)
                self._features[i] = x
                self._squares[i] = x.T @ x
                self._crossed[i] = x.T @ _changes(seen.pictures)
        self._trusted = set(looks)
        fits = {i: self.fit(seen.pictures, i) for i, seen in looks.items()}
        best = sorted(fits, key=lambda i: -fits[i])
        self._trusted = set(best[: max(_LEAST, math.ceil(_TRUSTED * len(best)))])

    def fit(self, pictures: np.ndarray, episode: int) -> float:
        """How well pictures fit into the view in that episode, -2 to 2."""
        rest = [i for i in self._means if i != episode and i in self._trusted]
        usual = np.median([self._means[i] for i in rest], axis=0)
        spread = np.var([self._means[i] for i in rest], axis=0) + 0.05
        found = _correlation(_centred(pictures.mean(0)), usual, 1.0 / spread)
        if not self._features or episode not in self._features:
            return found
        squares = np.sum([self._squares[i] for i in rest], axis=0)
        crossed = np.sum([self._crossed[i] for i in rest], axis=0)
        rows = sum(len(self._features[i]) for i in rest)
        weights = np.linalg.solve(squares + _RIDGE * rows * np.eye(len(squares)), crossed)
        predicted, shown = self._features[episode] @ weights, _changes(pictures)
        scale = np.sqrt((predicted**2).sum() * (shown**2).sum())
        return found + float((predicted * shown).sum() / (scale + 1e-9))


def _features(state: np.ndarray) -> np.ndarray:
    """States and products of pairs of the first eight, without their mean over the episode."""
    first = state[:, :8]
    i, j = np.triu_indices(first.shape[1])
    x = np.concatenate([state, first[:, i] * first[:, j]], axis=1)
    return np.asarray(x - x.mean(0))


def _changes(pictures: np.ndarray) -> np.ndarray:
    """Brightness of each pixel against its mean over the episode, ``[t, pixels]``, of unit variance."""
    gray = pictures.astype(np.float64).mean(-1).reshape(len(pictures), SIDE_PX * SIDE_PX)
    gray -= gray.mean(0)
    return np.asarray(gray / (gray.std() + 1e-6))


def _centred(picture: np.ndarray) -> np.ndarray:
    x = picture.astype(np.float64)
    x = x - x.mean((0, 1))
    return np.asarray(x / (x.std() + 1e-6))


def _correlation(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    x, y = (v - (weight * v).sum() / weight.sum() for v in (x, y))
    scale = np.sqrt((weight * x * x).sum() * (weight * y * y).sum())
    return float((weight * x * y).sum() / (scale + 1e-9))
