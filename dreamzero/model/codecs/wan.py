"""diffusers' ``AutoencoderKLWan`` (Wan 2.1 and 2.2) behind the codec interface.

The library's ``_encode`` walks its causal encoder over one frame, then four at a time, with a list
of past activations that it throws away at the end. Streaming is the same walk with the list kept.
Source: diffusers ``models/autoencoders/autoencoder_kl_wan.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify
from torch import Tensor, nn

from .base import CodecCache, check_latents, check_video


class WanCodec(nn.Module):
    """Adapter; latents are posterior means, normalised by the config's mean and std.

    Args:
        vae: with float weights in any dtype; latents and video have that dtype.
    """

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae
        config = vae.config
        self.register_buffer("latents_mean", torch.tensor(config.latents_mean), persistent=False)
        self.register_buffer("latents_std", torch.tensor(config.latents_std), persistent=False)

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.z_dim)

    @property
    def spatial_factor(self) -> int:
        return int(self.vae.config.scale_factor_spatial)

    @property
    def temporal_factor(self) -> int:
        return int(self.vae.config.scale_factor_temporal)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        shape = (1, -1, 1, 1, 1)
        dtype = self.vae.dtype
        return self.latents_mean.view(shape).to(dtype), self.latents_std.view(shape).to(dtype)

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
        """See ``Codec.encode_next``; the cache holds the encoder's causal activations."""
        vae, done = self.vae, cache.latents if cache else 0
        check_video(frames, done > 0, self.spatial_factor, self.temporal_factor)
        x = patchify(frames.to(vae.dtype), vae.config.patch_size or 1)
        past = list(cache.state) if cache else [None] * vae._cached_conv_counts["encoder"]
        sizes = [self.temporal_factor] * ((x.shape[2] - (not done)) // self.temporal_factor)
        pieces = x.split(sizes if done else [1, *sizes], dim=2)
        hidden = [vae.encoder(piece, feat_cache=past, feat_idx=[0]) for piece in pieces]
        mean = vae.quant_conv(torch.cat(hidden, 2))[:, : self.latent_channels]
        shift, scale = self._statistics()
        latents = (mean - shift) / scale
        return latents, CodecCache(done + latents.shape[2], tuple(past))

    @torch.no_grad()
    def decode_next(
        self, latents: Tensor, cache: CodecCache | None = None
    ) -> tuple[Tensor, CodecCache]:
        """See ``Codec.decode_next``; the cache holds the decoder's causal activations."""
        check_latents(latents, self.latent_channels)
        vae, done = self.vae, cache.latents if cache else 0
        shift, scale = self._statistics()
        x = vae.post_quant_conv(latents.to(vae.dtype) * scale + shift)
        past = list(cache.state) if cache else [None] * vae._cached_conv_counts["decoder"]
        frames = []
        for i, piece in enumerate(x.split(1, dim=2)):
            first: dict[str, Any] = {"first_chunk": True} if done + i == 0 else {}
            frames.append(vae.decoder(piece, feat_cache=past, feat_idx=[0], **first))
        video = unpatchify(torch.cat(frames, 2), vae.config.patch_size or 1).clamp(-1.0, 1.0)
        return video, CodecCache(done + latents.shape[2], tuple(past))

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the library's own folder; ``codecs.load`` reads it back."""
        self.vae.save_pretrained(save_directory)
