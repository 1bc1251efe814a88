"""What a window's first frame tells the model besides its own latent (MODEL.md 1, 2 and 5).

Image-to-video backbones read it in two places: as channels beside every noisy latent, and as CLIP
features in cross-attention. Small models have neither.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError
from .bundle import WorldActionModel
from .codecs import Codec
from .transformer import DreamZeroTransformer


def first_frame_latents(codec: Codec, frame: Tensor, latent_frames: int) -> Tensor:
    """Latents ``[b, c, f, h', w']`` of a clip that holds the first frame and then nothing.

    Args:
        frame: ``[b, 3, 1, h, w]`` in [-1, 1]; what follows it is zero, which is mid-grey.
        latent_frames: f, of the whole window.
    """
    count = codec.temporal_factor * (latent_frames - 1)
    grey = torch.zeros_like(frame).expand(-1, -1, count, -1, -1)
    return codec.encode(torch.cat([frame, grey], dim=2))


def with_mask(latents: Tensor, channels: int) -> Tensor:
    """``[b, c, f, h, w]`` -> ``[b, channels + c, f, h, w]``: a mask before them, 1 on the first
    latent frame and 0 on the others."""
    batch, _, frames, height, width = latents.shape
    mask = latents.new_zeros(batch, channels, frames, height, width)
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


def first_frame_channels(codec: Codec, frame: Tensor, latent_frames: int) -> Tensor:
    """[mask | latents] of ``first_frame_latents``: ``[b, temporal_factor + c, f, h', w']``."""
    return with_mask(first_frame_latents(codec, frame, latent_frames), codec.temporal_factor)


def reads_first_frame(transformer: DreamZeroTransformer) -> bool:
    """Whether the first frame's latents lie beside every noisy latent."""
    return bool(transformer.config.in_channels > transformer.config.out_channels)


def reads_image(transformer: DreamZeroTransformer) -> bool:
    """Whether cross-attention reads CLIP features of the first frame."""
    return transformer.config.image_dim is not None


def check(model: WorldActionModel) -> None:
    """Raise UserError if the networks of a model do not read what the others give."""
    config, codec = model.transformer.config, model.codec
    if config.out_channels != codec.latent_channels:
        raise UserError(
            f"the transformer writes {config.out_channels} latent channels and the codec has "
            f"{codec.latent_channels}: they belong to different models"
        )
    extra = config.in_channels - config.out_channels
    if extra not in (0, codec.temporal_factor + codec.latent_channels):
        raise UserError(
            f"the transformer reads {extra} channels beside the latent; a first frame has "
            f"{codec.temporal_factor} of mask and {codec.latent_channels} of latent"
        )
    if reads_image(model.transformer) and model.image_encoder is None:
        raise UserError(
            "the transformer reads CLIP features of the first frame and the model has no "
            "image_encoder: import it from a checkpoint that holds one"
        )


def image_features(model: WorldActionModel, frame: Tensor) -> Tensor | None:
    """CLIP features ``[b, 257, image_dim]`` of ``frame [b, 3, 1, h, w]``; None if not read."""
    if not reads_image(model.transformer) or model.image_encoder is None:
        return None
    return model.image_encoder.encode(frame[:, :, 0])
