"""Which frames of a request continue a policy's context: a whole block of them, or the newest alone.

A model that remembers was shown blocks: so many frames of video beside so many actions. Half a block
written as a whole one corrupts its context without a word (MODEL.md 7.7), so, as the control loop and
the rollouts do, anything but a whole block is cut to its newest frame, from which the window begins
again (MODEL.md 5.3). A request holds a whole block if

- it says ``executed_steps`` and that is the horizon: its frames, four or more, are spread over the
  block; any other number of steps is no whole block, however many frames came;
- or it says nothing, brings a count that its kind of client brings for a whole block, and does not
  come sooner than those actions can have run. Eight frames after 8 of 24 actions look like eight
  frames after all of them, but they come three times as soon.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..embodiments import FRAMES_PER_LATENT
from .wire import Wire

# Clocks of robots and the time a request travels: a block that took this share of its time is whole.
SOON = 0.75


def refusal(wire: Wire, count: int, executed_steps: int | None, elapsed_s: float | None) -> str:
    """Why ``count`` frames are not a whole block; empty if they are.

    Args:
        executed_steps: what the client says, None if it does not.
        elapsed_s: since the last answer; None where the client's clock is not ours (simulation).
    """
    card = wire.card
    if count == 1:
        return "one frame"
    if executed_steps is not None:
        if executed_steps != card.horizon:
            return f"{executed_steps} of {card.horizon} actions executed"
        few = count < FRAMES_PER_LATENT
        return f"{count} frames of a whole block" if few else ""
    if count not in wire.frame_counts:
        counts = ", ".join(str(n) for n in sorted(set(wire.frame_counts)))
        return f"{count} frames; a whole block is {counts}"
    if elapsed_s is not None and elapsed_s < SOON * card.block_s:
        return (
            f"{count} frames {elapsed_s:.2f} s after the last answer, and its {card.horizon} actions "
            f"take {card.block_s:.2f} s: send executed_steps"
        )
    return ""


def spread(frames: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """``count`` frames evenly from clips ``[t, h, w, 3]`` that span a block; the last one stays last.

    Of more, the newest up to each instant; of fewer, each stands until the next.
    """
    have = len(next(iter(frames.values())))
    if have == count:
        return dict(frames)
    picked = [-(-(i + 1) * have // count) - 1 for i in range(count)]
    return {view: clip[picked] for view, clip in frames.items()}
