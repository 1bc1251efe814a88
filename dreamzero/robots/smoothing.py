"""Chunks made smooth before they are executed: pure functions of the chunk and of what was sent before.

``savgol`` is the paper's filter (MODEL.md 5.6): twice the rate by cubic interpolation, a Savitzky-Golay
filter of 21 samples and order 3, every second sample kept. Each point is that of the cubic that fits the
10 samples, or 5 steps, on both sides best. Where a side is missing a filter has an edge effect. At the
beginning there is none: what was executed before stands in front of the chunk, so that the smoothed chunk
also continues where the arm is. At the end the cubic of the last whole window is read up to its end; what
lies there is replaced by the next chunk in ``overlapped`` mode and executed in ``synchronous``.

``crossfade`` leads from the chunk in execution to the next one, whose first step may be elsewhere.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

WINDOW, ORDER, UPSAMPLE = 21, 3, 2
# Steps that a window reaches back; the interpolation needs one more.
PAST = WINDOW // (2 * UPSAMPLE) + 1


def savgol(actions: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Smooth one chunk.

    Args:
        actions: float ``[k, a]``; columns that may be smoothed only (a gripper's half is no grip).
        past: float ``[p, a]``, what was executed in the ``p`` steps before, oldest first;
            :data:`PAST` are enough.

    Returns:
        float64 ``[k, a]``. A chunk that is too short for any window comes back as it is.
    """
    k = len(actions)
    steps = np.concatenate([np.asarray(past, np.float64).reshape(-1, actions.shape[1]), actions])
    return _matrix(len(steps))[len(steps) - k :] @ steps


def crossfade(
    actions: np.ndarray, old: np.ndarray, shift: float, first: float, width: float
) -> np.ndarray:
    """Begin on the old chunk and end on the new one.

    Args:
        actions, old: float ``[k, a]``, new and old chunk.
        shift: step of the old chunk at the new one's step 0 (both at the same rate).
        first: step of the new chunk that is executed first.
        width: steps from there on in which both have a share.

    Returns:
        float64 ``[k, a]``. Where the old chunk has ended, its last step stands for it.
    """
    steps = np.arange(len(actions), dtype=np.float64)
    share = np.clip((steps - first + 1) / (width + 1), 0.0, 1.0)
    share = (share * share * (3 - 2 * share))[:, None]
    at = np.clip(steps + shift, 0, len(old) - 1)
    before = np.stack([np.interp(at, np.arange(len(old)), column) for column in old.T], axis=1)
    # By choice, not by arithmetic: a step that is no number must not outlive its chunk.
    return np.where(share < 1, before + share * (actions - before), actions)


@lru_cache(maxsize=64)
def _matrix(count: int) -> np.ndarray:
    """Float64 ``[count, count]``: upsample, filter, downsample; a chunk of ``count`` steps is small."""
    if count <= ORDER:
        return np.eye(count)
    samples = UPSAMPLE * (count - 1) + 1
    window = min(WINDOW, samples)
    filtered = _fit(samples, window)[::UPSAMPLE]
    matrix: np.ndarray = filtered @ _spline(count)
    return matrix


def _spline(count: int) -> np.ndarray:
    """Float64 ``[2 count - 1, count]``: the cubic spline through ``count`` points, at halves too.

    The spline is the one whose third derivative does not jump at the second and last but one point
    ("not a knot"), so it is exact on cubics. Unknowns are its second derivatives at the points, whose
    first and last follow from that condition.
    """
    system, right = np.zeros((count, count)), np.zeros((count, count))
    for i in range(1, count - 1):
        system[i, i - 1 : i + 2] = 1, 4, 1
        right[i, i - 1 : i + 2] = 6, -12, 6
    system[0, :3] = system[-1, -3:] = 1, -2, 1
    bend = np.linalg.solve(system, right)
    out = np.zeros((UPSAMPLE * count - 1, count))
    out[::2] = np.eye(count)
    mean = (np.eye(count)[:-1] + np.eye(count)[1:]) / 2
    out[1::2] = mean - (bend[:-1] + bend[1:]) / 16
    return out


def _fit(samples: int, window: int) -> np.ndarray:
    """Float64 ``[samples, samples]``: the value at each sample of the cubic through its window."""
    half = window // 2
    powers = np.arange(-half, half + 1)[:, None] ** np.arange(ORDER + 1)
    # hat[i, j]: what sample j of a window adds to the fitted value at its place i.
    hat = powers @ np.linalg.pinv(powers.astype(np.float64))
    out = np.zeros((samples, samples))
    for i in range(samples):
        start = min(max(i - half, 0), samples - window)
        out[i, start : start + window] = hat[i - start]
    return out
