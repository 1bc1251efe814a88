"""Two policies that need no model, for wiring an arm up: hold still, and replay a recording."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..embodiments import Embodiment
from ..errors import UserError
from ..types import ActionChunk


class HoldPolicy:
    """Asks for the pose in which the arm was first seen."""

    def __init__(self, card: Embodiment) -> None:
        self._card = card
        self._pose: np.ndarray | None = None

    def reset(self, prompt: str) -> None:
        """Forget the pose."""
        self._pose = None

    def observe(self, frames: Mapping[str, np.ndarray], state: np.ndarray) -> None:
        """Remember the first ``state [s]``; frames are not looked at."""
        if self._pose is None:
            self._pose = np.asarray(state[: self._card.action_dim], dtype=np.float32)

    def act(self) -> ActionChunk:
        """The pose, a chunk long. UserError: nothing was observed yet."""
        if self._pose is None:
            raise UserError("the hold policy was asked to act before it observed anything")
        actions = np.repeat(self._pose[None], self._card.horizon, axis=0)
        return ActionChunk(actions, self._card.action_hz)


class ReplayPolicy:
    """Plays recorded actions, chunk by chunk; at the end it stays at the last one.

    Args:
        card: gives the length of a chunk and its rate.
        actions: float ``[n, a]``, absolute, SI units, at ``card.action_hz``.
    """

    def __init__(self, card: Embodiment, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions, dtype=np.float32)
        if self._actions.ndim != 2 or self._actions.shape[1] != card.action_dim:
            raise UserError(
                f"recorded actions of shape {list(self._actions.shape)} do not fit the "
                f"{card.action_dim} actions of {card.name}"
            )
        if not len(self._actions):
            raise UserError("a recording without actions cannot be replayed")
        self._card = card
        self._next = 0

    def reset(self, prompt: str) -> None:
        """Begin the recording again."""
        self._next = 0

    def observe(self, frames: Mapping[str, np.ndarray], state: np.ndarray) -> None:
        """A recording looks at nothing."""

    def act(self) -> ActionChunk:
        """The next chunk of the recording."""
        steps = np.arange(self._next, self._next + self._card.horizon)
        self._next += self._card.horizon
        actions = self._actions[np.minimum(steps, len(self._actions) - 1)]
        return ActionChunk(actions, self._card.action_hz)
