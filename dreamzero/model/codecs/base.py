"""What a video codec is to the rest of the house: four calls and three numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError


@dataclass(frozen=True)
class CodecCache:
    """What a stream remembers between two calls; it belongs to the codec that made it.

    Attributes:
        latents: latent frames coded so far; 0 only before the first call.
        state: the codec's own memory. Never changed in place: a cache may be used twice, for
            instance to decode two dreams that continue one past.
    """

    latents: int
    state: tuple[Any, ...] = ()


@runtime_checkable
class Codec(Protocol):
    """Video to latents and back, causal in time: t = 1 + 4 n frames <-> f = 1 + n latents.

    The calls run without gradients: wherever this interface is used, the codec is frozen.
    """

    @property
    def latent_channels(self) -> int:
        """c of the latents."""

    @property
    def spatial_factor(self) -> int:
        """Pixels a latent covers, along each side."""

    @property
    def temporal_factor(self) -> int:
        """Frames a latent frame covers, after the first."""

    def encode(self, video: Tensor) -> Tensor:
        """``[b, 3, t, h, w]`` in [-1, 1] -> ``[b, c, f, h/8, w/8]``, zero mean and unit std.

        Raises:
            UserError: t is not 1 + 4 n, or a side is no multiple of ``spatial_factor``.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """``[b, c, f, h/8, w/8]`` -> ``[b, 3, t, h, w]`` clamped to [-1, 1]."""
        ...

    def encode_next(
        self, frames: Tensor, cache: CodecCache | None = None
    ) -> tuple[Tensor, CodecCache]:
        """Encode what follows: at the start 1 + 4 n frames, then 4 n; equal to ``encode``.

        ``[b, 3, t, h, w]`` and the cache of the call before, None at the start -> latents, cache.
        """
        ...

    def decode_next(
        self, latents: Tensor, cache: CodecCache | None = None
    ) -> tuple[Tensor, CodecCache]:
        """Decode what follows, ``[b, c, f, h/8, w/8]``; equal to ``decode`` of everything."""
        ...

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write configuration and weights into a folder, as diffusers' models do."""


def check_video(video: Tensor, started: bool, spatial: int, temporal: int) -> None:
    """Refuse shapes that would be cut silently.

    Args:
        video: ``[b, 3, t, h, w]``; ``started``: earlier frames of the stream were coded already.

    Raises:
        UserError: with the shape that would be right.
    """
    if video.ndim != 5 or video.shape[1] != 3:
        raise UserError(f"a codec takes video [b, 3, t, h, w], got {list(video.shape)}")
    frames, height, width = video.shape[2:]
    rest = frames if started else frames - 1
    if frames < 1 or rest % temporal:
        want = f"{temporal} n" if started else f"1 + {temporal} n"
        raise UserError(f"a codec takes {want} frames here, got {frames}")
    if height % spatial or width % spatial:
        raise UserError(f"frames of {height} x {width} px: sides must be multiples of {spatial}")


def check_latents(latents: Tensor, channels: int) -> None:
    """Refuse anything but ``[b, channels, f >= 1, h, w]`` with a ``UserError``."""
    if latents.ndim != 5 or latents.shape[1] != channels or latents.shape[2] < 1:
        raise UserError(
            f"this codec takes latents [b, {channels}, f, h, w], got {list(latents.shape)}"
        )


def to_float(frames: np.ndarray | Sequence[np.ndarray]) -> Tensor:
    """uint8 ``[t, h, w, 3]`` (or ``[b, t, h, w, 3]``) -> float32 ``[3, t, h, w]`` in [-1, 1]."""
    video = torch.from_numpy(np.ascontiguousarray(frames))
    if video.dtype != torch.uint8 or video.ndim not in (4, 5) or video.shape[-1] != 3:
        raise UserError(f"frames are uint8 [t, h, w, 3], got {video.dtype} {list(video.shape)}")
    return video.movedim(-1, -4).float().div_(127.5).sub_(1.0).contiguous()


def to_uint8(video: Tensor) -> np.ndarray:
    """Float ``[3, t, h, w]`` (or with a batch axis) in [-1, 1] -> uint8 ``[t, h, w, 3]``."""
    scaled = video.detach().float().add(1.0).mul(127.5).round().clamp(0, 255)
    return np.ascontiguousarray(scaled.to(torch.uint8).movedim(-4, -1).cpu().numpy())
