"""Rotary position embedding: three axes for video tokens, one for actions and states (MODEL.md 2).

Pairs are neighbouring channels, written as complex numbers. A head of dimension d gives
``d - 4 * (d // 6)`` channels to time and ``2 * (d // 6)`` each to height and width; action and
state tokens turn over the full head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

THETA = 10000.0


def _angles(positions: Tensor, dim: int) -> Tensor:
    """float64 angles ``[len(positions), dim / 2]``."""
    exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
    return positions.to(torch.float64)[:, None] * THETA**-exponent


def _turn(angles: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def video_rope(frames: Tensor, height: int, width: int, head_dim: int) -> Tensor:
    """Rotations of video tokens in (frame, row, column) order.

    Args:
        frames: latent-frame indices ``[f]`` in the context window.
        height, width: tokens a latent frame has along each axis.
        head_dim: channels of one head.

    Returns:
        complex64 ``[f * height * width, head_dim / 2]``.
    """
    side = 2 * (head_dim // 6)
    device = frames.device
    t = _angles(frames, head_dim - 2 * side)
    y = _angles(torch.arange(height, device=device), side)
    x = _angles(torch.arange(width, device=device), side)
    shape = (len(frames), height, width, -1)
    angles = torch.cat(
        [
            t[:, None, None].expand(shape),
            y[None, :, None].expand(shape),
            x[None, None, :].expand(shape),
        ],
        dim=-1,
    )
    return _turn(angles.flatten(0, 2))


def sequence_rope(positions: Tensor, head_dim: int) -> Tensor:
    """Rotations of action or state tokens at 1-D ``positions [l]``: complex64 ``[l, head_dim / 2]``."""
    return _turn(_angles(positions, head_dim))


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn ``x [b, l, heads, head_dim]`` by ``rope [l, head_dim / 2]``; dtype is kept."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rope[:, None]).flatten(-2).to(x.dtype)
