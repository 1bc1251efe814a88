"""Data that crosses rooms of the house, and the one legend of axis letters and units.

Axis letters, used in every docstring:

    b batch          t video frames       f latent frames (1 + (t - 1) / 4)
    c channels       h, w height, width   n blocks (a block is what one chunk predicts)
    k action steps   a action dimensions  s state dimensions        l tokens, d model width

Units are SI and stand in the name: ``_s`` seconds, ``_hz`` per second, ``_rad``, ``_m``, ``_px``.
Grippers are 0 (closed) to 1 (open). Video is uint8 ``[t, h, w, 3]`` RGB at the edges and float
``[b, c, t, h, w]`` in [-1, 1] inside. Sigma 1 is noise; velocity = noise - sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Observation:
    """What a robot (real, emulated or simulated) reports at one instant.

    Attributes:
        frames: view name -> uint8 ``[h, w, 3]`` RGB, the newest frame of each camera.
        state: float32 ``[s]``, SI units, in the order of the embodiment card.
        time_s: monotonic time at which the frames were taken.
    """

    frames: Mapping[str, np.ndarray]
    state: np.ndarray
    time_s: float = 0.0


@dataclass(frozen=True)
class ActionChunk:
    """One predicted chunk.

    Attributes:
        actions: float32 ``[k, a]``, absolute, SI units, in the order of the embodiment card.
        rate_hz: step rate of ``actions``.
        video: uint8 ``[t, h, w, 3]`` canvas that the model dreamed for this chunk, if it was decoded.
        info: figures of this prediction (seconds, evaluations, cache position ...).
    """

    actions: np.ndarray
    rate_hz: float
    video: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class Batch:
    """What the training loop consumes: whole windows of one embodiment, ready for the model.

    Attributes:
        latents: float ``[b, c, f, h, w]`` normalised codec latents, f = 1 + n * frames per block.
        action: float ``[b, n * k, a]`` normalised, zero-padded to the model's action width.
        state: float ``[b, n, s]`` normalised, zero-padded to the model's state width.
        action_mask: bool ``[b, n * k, a]``, true on real dimensions.
        has_action: bool ``[b]``; false for video-only samples, whose action loss is dropped.
        prompt: b prompts, the card's template already applied.
        embodiment: name of the card.
        first_frame: float ``[b, c, f, h, w]`` latents of [first frame, grey ...], where the model
            reads them beside every noisy latent.
        image_features: float ``[b, 257, d]`` of the first frame, where the model reads them.
    """

    latents: torch.Tensor
    action: torch.Tensor
    state: torch.Tensor
    action_mask: torch.Tensor
    has_action: torch.Tensor
    prompt: list[str]
    embodiment: str
    first_frame: torch.Tensor | None = None
    image_features: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on ``device``."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: v.to(device) if hasattr(v, "to") else v for k, v in moved.items()})


@runtime_checkable
class Policy(Protocol):
    """Anything that turns observations into chunks: the engine, a baseline, a replay, a server.

    ``reset`` starts an episode. ``observe`` takes the frames since the last call (oldest first;
    one frame at the start of an episode) and the state *now*. ``act`` returns the next chunk.
    """

    def reset(self, prompt: str) -> None:
        """Start an episode with this instruction; what was observed before is forgotten."""

    def observe(self, frames: Mapping[str, np.ndarray], state: np.ndarray) -> None:
        """``frames``: view name -> uint8 ``[t, h, w, 3]``; ``state``: float32 ``[s]``, SI units."""

    def act(self) -> ActionChunk:
        """The next chunk. UserError: nothing was observed yet."""
