"""What a card's cameras and state are called in a request, and how one becomes the other.

A card in `TABLES` has names of its own there; DROID's are those its clients send. Every other card is
spoken to by one rule:

    observation/<view>     uint8 (H, W, 3) or (t, H, W, 3); <view> is the last part of the view's name
    observation/state      float (s,), SI units, in the order of the card

so the tabletop's arm sends ``observation/front`` and ``observation/state``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..embodiments import FRAMES_PER_LATENT, Embodiment, real
from .messages import ServerConfig
from .protocol import ProtocolError

MAX_FRAMES, MAX_SIDE_PX = 64, 4096


@dataclass(frozen=True)
class Wire:
    """Names of one card on the wire.

    Attributes:
        card: the card.
        views: request key of each of ``card.views``, in their order.
        state: (request key, width) of the parts of the state, in their order.
        config: what the server says on connect.
        frame_counts: how many frames a request may bring for a whole block when its client does not
            say what was executed (see `frames`).
    """

    card: Embodiment
    views: tuple[str, ...]
    state: tuple[tuple[str, int], ...]
    config: ServerConfig
    frame_counts: tuple[int, ...]

    def read(self, observation: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """(view -> uint8 ``[t, h, w, 3]``, state float32 ``[s]``) of a request.

        Raises:
            ProtocolError: a key is missing, or holds something else.
        """
        names = zip(self.card.views, self.views, strict=True)
        frames = {view: _images(observation, key) for view, key in names}
        counts = {len(clip) for clip in frames.values()}
        if len(counts) != 1:
            raise ProtocolError(f"cameras differ in frames: {sorted(counts)}")
        parts = [_numbers(observation, key, width) for key, width in self.state]
        return frames, np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def write(self, frames: Mapping[str, np.ndarray], state: np.ndarray) -> dict[str, np.ndarray]:
        """The request keys of an observation; a single frame goes as (H, W, 3)."""
        found: dict[str, np.ndarray] = {}
        for view, key in zip(self.card.views, self.views, strict=True):
            clip = frames[view]
            found[key] = clip[0] if len(clip) == 1 else clip
        at = 0
        for key, width in self.state:
            found[key] = np.asarray(state[at : at + width], np.float32)
            at += width
        return found


def wire(card: Embodiment) -> Wire:
    """The names of a card."""
    return TABLES.get(_shape(card), _generic)(card)


def _generic(card: Embodiment) -> Wire:
    views = tuple(f"observation/{view.rsplit('.', 1)[-1]}" for view in card.views)
    state = (("observation/state", card.state_dim),) if card.state else ()
    config = ServerConfig(None, needs_wrist_camera=False, n_external_cameras=0)
    return Wire(card, views, state, config, _counts(card))


def _droid(card: Embodiment) -> Wire:
    """Exterior image 0 of the client is exterior camera 1 of the data set (MODEL.md 8)."""
    views = ("exterior_image_0_left", "exterior_image_1_left", "wrist_image_left")
    return Wire(
        card,
        tuple(f"observation/{view}" for view in views),
        (("observation/joint_position", 7), ("observation/gripper_position", 1)),
        ServerConfig((180, 320), needs_wrist_camera=True, n_external_cameras=2),
        # Clients of the release bring four frames a chunk, which its server holds for two each.
        (*_counts(card), FRAMES_PER_LATENT),
    )


def _counts(card: Embodiment) -> tuple[int, ...]:
    """A frame of every video instant of a block, or of every action."""
    return (card.frames_per_block, card.horizon)


def _shape(card: Embodiment) -> tuple[Any, ...]:
    return card.views, card.state


# By what a card looks like: an imported checkpoint calls the same robot by another tag.
TABLES = {_shape(real.DROID): _droid}


def _images(observation: Mapping[str, Any], key: str) -> np.ndarray:
    value = _found(observation, key)
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim not in (3, 4):
        raise ProtocolError(f"{key} should be uint8 (H, W, 3) or (t, H, W, 3), not {_what(value)}")
    clip = value[None] if value.ndim == 3 else value
    count, height, width, channels = clip.shape
    if channels != 3 or not 0 < count <= MAX_FRAMES or not 0 < min(height, width):
        raise ProtocolError(f"{key} should be 1 to {MAX_FRAMES} RGB frames, not {_what(value)}")
    if max(height, width) > MAX_SIDE_PX:
        raise ProtocolError(f"{key}: frames of {height} x {width} px; {MAX_SIDE_PX} are the most")
    return clip


def _numbers(observation: Mapping[str, Any], key: str, width: int) -> np.ndarray:
    value = _found(observation, key)
    plain = isinstance(value, (list, int, float, np.generic))
    try:
        numbers = np.asarray(value) if plain or isinstance(value, np.ndarray) else None
    except ValueError:  # a ragged list
        numbers = None
    if numbers is None or numbers.dtype.kind not in "iuf" or numbers.size != width:
        raise ProtocolError(f"{key} should be {width} numbers, not {_what(value)}")
    with np.errstate(over="ignore"):
        flat = numbers.reshape(-1).astype(np.float32)
    if not np.isfinite(flat).all():
        raise ProtocolError(f"{key} holds a number that is not finite")
    return flat


def _found(observation: Mapping[str, Any], key: str) -> Any:
    if key not in observation:
        there = [name for name in observation if name.startswith("observation/")]
        raise ProtocolError(
            f"the request lacks {key}; it has {', '.join(there[:8])[:200] or 'none'}"
        )
    return observation[key]


def _what(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
