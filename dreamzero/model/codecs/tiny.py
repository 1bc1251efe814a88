"""A codec of 1.3 M parameters for small machines, trained in minutes on the recordings at hand.

Every group of four frames becomes one latent; the first frame is a group that stands still. Four
frames lie in the channels of 2-D convolutions, so there is no convolution over time: a latent
depends on its own group alone, and the same frames give the same latents in whatever window they
are. The decoder sees the latent and the one before it.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from .base import CodecCache, check_latents, check_video

GROUP = 4
STRIDE = 8


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))); starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.silu(self.conv1(F.silu(x))))
        return out


class TinyCodec(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The codec of ``quick`` and ``small``; see ``codecs.base.Codec`` for the interface.

    Args:
        latent_channels: c.
        width_half, width_quarter, width_eighth: channels at 1/2 (decoder only), 1/4 and 1/8 of the
            resolution.
        blocks: residual blocks at each resolution.
    """

    spatial_factor = STRIDE
    temporal_factor = GROUP
    latents_mean: Tensor
    latents_std: Tensor

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 24,
        width_half: int = 64,
        width_quarter: int = 64,
        width_eighth: int = 160,
        blocks: int = 1,
    ) -> None:
        super().__init__()

        def stack(width: int) -> list[nn.Module]:
            return [ResidualBlock(width) for _ in range(blocks)]

        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(GROUP * 3 * 16, width_quarter, 1),
            *stack(width_quarter),
            nn.PixelUnshuffle(2),
            nn.Conv2d(width_quarter * 4, width_eighth, 1),
            *stack(width_eighth),
            nn.Conv2d(width_eighth, latent_channels, 1),
        )
        # Unit variance while training, so that noise on the latents means the same everywhere.
        self.norm = nn.BatchNorm2d(latent_channels, affine=False, momentum=0.02)
        # What is left to zero mean and unit std, measured on real clips after training.
        self.register_buffer("latents_mean", torch.zeros(latent_channels))
        self.register_buffer("latents_std", torch.ones(latent_channels))
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels * 2, width_eighth, 3, padding=1),
            *stack(width_eighth),
            nn.Conv2d(width_eighth, width_quarter * 4, 1),
            nn.PixelShuffle(2),
            *stack(width_quarter),
            nn.Conv2d(width_quarter, width_half * 4, 1),
            nn.PixelShuffle(2),
            *stack(width_half),
            nn.SiLU(),
            nn.Conv2d(width_half, GROUP * 3 * 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    @property
    def latent_channels(self) -> int:
        return int(self.config.latent_channels)

    def analyse(self, video: Tensor, started: bool = False) -> Tensor:
        """With gradients: video ``[b, 3, t, h, w]`` -> raw latents ``[b, c, f, h/8, w/8]``."""
        if not started:
            video = torch.cat([video[:, :, :1].expand(-1, -1, GROUP - 1, -1, -1), video], 2)
        batch, _, frames, height, width = video.shape
        groups = video.transpose(1, 2).reshape(-1, GROUP * 3, height, width)
        z = self.norm(self.encoder(groups.contiguous(memory_format=torch.channels_last)).float())
        return z.unflatten(0, (batch, frames // GROUP)).transpose(1, 2)

    def synthesise(self, raw: Tensor, before: Tensor | None = None) -> Tensor:
        """With gradients: raw latents ``[b, c, f, h, w]``, and the one before them or None -> video
        ``[b, 3, t, h, w]``, not clamped.
        """
        started = before is not None
        previous = torch.cat([raw[:, :, :1] if before is None else before, raw[:, :, :-1]], 2)
        pair = torch.cat([raw, previous], 1).transpose(1, 2)
        out = self.decoder(pair.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        batch, length = pair.shape[:2]
        video = out.unflatten(0, (batch, length)).unflatten(2, (GROUP, 3)).flatten(1, 2)
        return video.transpose(1, 2)[:, :, 0 if started else GROUP - 1 :]

    def forward(self, video: Tensor, noise: float = 0.0) -> Tensor:
        """Reconstruct ``[b, 3, t, h, w]`` with gradients; ``noise``: its std on the latents."""
        raw = self.analyse(video)
        return self.synthesise(raw + noise * torch.randn_like(raw))

    def _statistics(self) -> tuple[Tensor, Tensor]:
        return self.latents_mean.view(1, -1, 1, 1, 1), self.latents_std.view(1, -1, 1, 1, 1)

    def encode(self, video: Tensor) -> Tensor:
        """See ``Codec.encode``."""
        return self.encode_next(video)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """See ``Codec.decode``."""
        return self.decode_next(latents)[0]

    @torch.no_grad()
    def encode_next(
        self, frames: Tensor, cache: CodecCache | None = None
    ) -> tuple[Tensor, CodecCache]:
        """See ``Codec.encode_next``; the encoder needs no past beyond having started."""
        done = cache.latents if cache else 0
        check_video(frames, done > 0, STRIDE, GROUP)
        mean, std = self._statistics()
        latents = (self.analyse(frames.to(self.dtype), done > 0) - mean) / std
        return latents, CodecCache(done + latents.shape[2])

    @torch.no_grad()
    def decode_next(
        self, latents: Tensor, cache: CodecCache | None = None
    ) -> tuple[Tensor, CodecCache]:
        """See ``Codec.decode_next``; the cache holds the last latent."""
        check_latents(latents, self.latent_channels)
        mean, std = self._statistics()
        raw = latents.to(self.dtype) * std + mean
        video = self.synthesise(raw, cache.state[0] if cache else None).clamp(-1.0, 1.0)
        done = cache.latents if cache else 0
        return video, CodecCache(done + raw.shape[2], (raw[:, :, -1:],))

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write the folder; convolutions as float16 (half the size, the picture stays)."""
        stored = copy.deepcopy(self)
        stored.encoder.half()
        stored.decoder.half()
        ModelMixin.save_pretrained(stored, save_directory, **options)
