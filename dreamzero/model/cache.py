"""Keys and values of everything observed so far in the context window."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Static buffers ``[layers, 2, b, capacity, heads, head_dim]``, filled from the front.

    Keys are stored after rotation. The buffers never move or grow, so that a graph captured over
    them stays valid; ``length`` tokens are valid.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        capacity: int,
        heads: int,
        head_dim: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (layers, 2, batch, capacity, heads, head_dim)
        self.buffer = torch.zeros(shape, device=device, dtype=dtype)
        self.frames = 0
        self.length = 0

    @property
    def capacity(self) -> int:
        """Tokens that fit."""
        return self.buffer.shape[3]

    def reset(self) -> None:
        """Forget everything; the memory stays."""
        self.frames = 0
        self.length = 0

    def room(self, tokens: int) -> None:
        """Raise ValueError unless ``tokens`` fit behind the valid ones."""
        if self.length + tokens > self.capacity:
            raise ValueError(
                f"cache of {self.capacity} tokens cannot take {tokens} after {self.length}"
            )

    def join(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Cached keys and values followed by new ones: ``[b, length + l, heads, head_dim]`` each.

        The new ones are written behind the valid part (and are overwritten by the next call
        unless ``advance`` makes them part of it), so that no tensor is ever concatenated.
        """
        self.room(k.shape[1])
        end = self.length + k.shape[1]
        self.buffer[layer, 0, :, self.length : end] = k
        self.buffer[layer, 1, :, self.length : end] = v
        return self.buffer[layer, 0, :, :end], self.buffer[layer, 1, :, :end]

    def rewind(self, frames: int) -> None:
        """Forget the last ``frames`` latent frames."""
        self.length -= frames * (self.length // max(self.frames, 1))
        self.frames -= frames

    def advance(self, frames: int, tokens: int) -> None:
        """Keep the ``tokens`` (= ``frames`` latent frames) that the last forward wrote."""
        self.frames += frames
        self.length += tokens
