"""A quick policy that remembers what it was told, and can be made to wait, fail or dream."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dreamzero import embodiments
from dreamzero.embodiments import Embodiment
from dreamzero.serve import Source
from dreamzero.types import ActionChunk

DROID = embodiments.get("droid")


@dataclass
class Spy:
    """Answers with the state it saw, ``card.horizon`` times."""

    card: Embodiment = DROID
    calls: list[Any] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    inside: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None
    video: np.ndarray | None = None
    frames: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.go.set()

    def reset(self, prompt: str) -> None:
        self.calls.append(prompt)

    def observe(self, frames: Mapping[str, np.ndarray], state: np.ndarray) -> None:
        self.frames, self.state = frames, state
        self.calls.append(len(next(iter(frames.values()))))

    def act(self) -> ActionChunk:
        self.inside.set()
        assert self.go.wait(30)
        if self.fault is not None:
            raise self.fault
        actions = np.repeat(self.state[None, : self.card.action_dim], self.card.horizon, axis=0)
        return ActionChunk(actions, self.card.action_hz, self.video, {"evaluations": 4})


@dataclass
class Spies:
    """Makes spies, at most ``most``; the first is the one that the server warms up."""

    card: Embodiment = DROID
    most: int = 99
    made: list[Spy] = field(default_factory=list)

    def __call__(self) -> Spy:
        from dreamzero.errors import UserError

        if len(self.made) >= self.most:
            raise UserError("no memory for another session")
        self.made.append(Spy(self.card))
        return self.made[-1]

    @property
    def source(self) -> Source:
        return Source("spy", self.card, self)

    @property
    def calls(self) -> list[list[Any]]:
        """What each was told after the warm-up."""
        warm = 1 + 1 + self.card.blocks
        return [spy.calls[warm:] if i == 0 else spy.calls for i, spy in enumerate(self.made)]
