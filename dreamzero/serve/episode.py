"""One session's episode on a policy: when it begins, what continues it, what restarts its context."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from ..types import Policy
from . import frames as blocks
from .messages import Answer
from .wire import Wire


class Episode:
    """Lets one client drive one policy.

    Args:
        policy: this episode's alone while it lasts.
        wire: names and card.
        real_clock: whether the client's robot lives in real time, so that frames that come too soon
            are not believed (see `frames`); False for clients in simulation.
    """

    def __init__(self, policy: Policy, wire: Wire, real_clock: bool = True) -> None:
        self.policy, self.wire, self._real = policy, wire, real_clock
        self._prompt: str | None = None
        self._answered_s = 0.0

    def infer(
        self,
        prompt: str,
        frames: Mapping[str, np.ndarray],
        state: np.ndarray,
        executed_steps: int | None = None,
        arrived_s: float | None = None,
    ) -> Answer:
        """Observe and act; another prompt than the last begins a new episode.

        Args:
            frames: view -> uint8 ``[t, h, w, 3]``: one at the beginning, then those since the last call.
            state: float32 ``[s]``, SI units, now.
            executed_steps: of the last chunk, where the client says so.
            arrived_s: monotonic time of the request; now, if not given.

        Raises:
            UserError: what the policy refuses.
        """
        started = time.monotonic()
        arrived_s = started if arrived_s is None else arrived_s
        count = len(next(iter(frames.values()))) if frames else 1
        why, context = "", "continued"
        if prompt != self._prompt:
            self.policy.reset(prompt)
            self._prompt, context = prompt, "begun"
        else:
            elapsed_s = arrived_s - self._answered_s if self._real else None
            why = blocks.refusal(self.wire, count, executed_steps, elapsed_s)
            context = "restarted" if why else context
        if context == "continued":
            frames = blocks.spread(frames, self.wire.card.frames_per_block)
        else:
            frames = {view: clip[-1:] for view, clip in frames.items()}
        self.policy.observe(frames, state)
        chunk = self.policy.act()
        self._answered_s = time.monotonic()
        return Answer(chunk, self._answered_s - started, context, why)

    def warm_up(self) -> None:
        """Every position of the window once, on black frames: what is compiled or captured is then."""
        card, size = self.wire.card, self.wire.config.image_resolution or self.wire.card.canvas_px
        state = np.zeros(card.state_dim, np.float32)
        self.policy.reset("warm up")
        for count in (1, *[card.frames_per_block] * card.blocks):
            black = np.zeros((count, *size, 3), np.uint8)
            self.policy.observe({view: black for view in card.views}, state)
            self.policy.act()
