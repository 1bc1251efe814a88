"""One training loss: noise drawn, velocities predicted, errors weighed."""

from __future__ import annotations

import torch
from torch import Tensor

from ..flow import CoupledNoise, Loss, add_noise, flow_loss, velocity_target
from ..model.conditioning import with_mask
from ..model.transformer import DreamZeroTransformer
from ..types import Batch
from .config import TrainSettings
from .prompts import Prompts


def training_loss(
    transformer: DreamZeroTransformer,
    prompts: Prompts,
    batch: Batch,
    settings: TrainSettings,
    generator: torch.Generator,
) -> Loss:
    """Teacher-forced flow-matching loss of one batch (MODEL.md 3 and 4).

    Args:
        prompts: instructions to embeddings: a word encoder, or a table made beforehand.
        generator: CPU generator; it alone decides noise levels, noise and dropped prompts.
    """
    device = batch.latents.device
    count, steps = batch.action.shape[:2]
    blocks = batch.state.shape[1]
    per_block = transformer.config.frames_per_block
    noise = CoupledNoise(settings.shift, settings.pure).sample(
        count, blocks, per_block, steps // blocks, generator
    )
    skip = 0 if settings.first_frame else 1

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(device)

    def weight(w: Tensor) -> Tensor:
        return (w if settings.weighting == "bell" else torch.ones_like(w)).to(device)

    clean = batch.latents
    target = clean[:, :, skip:]
    video_noise, action_noise = normal(target), normal(batch.action)
    video_sigma = noise.video[:, skip:].to(device)
    action_sigma = noise.action.to(device)
    words = batch.prompt
    if settings.prompt_dropout > 0:
        dropped = torch.rand(count, generator=generator) < settings.prompt_dropout
        words = ["" if d else p for p, d in zip(words, dropped.tolist(), strict=True)]
    with_action = bool(batch.has_action.any())
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
        context = transformer.encode_context(prompts.encode(words), batch.image_features)
        video, action = transformer(
            add_noise(target, video_noise, video_sigma[:, None, :, None, None]),
            clean,
            1000 * video_sigma,
            context,
            add_noise(batch.action, action_noise, action_sigma[..., None]) if with_action else None,
            1000 * action_sigma if with_action else None,
            batch.state if with_action else None,
            first_frame_of(transformer, batch),
        )
    return flow_loss(
        video,
        velocity_target(target, video_noise),
        weight(noise.video_weight[:, skip:]),
        action,
        velocity_target(batch.action, action_noise),
        weight(noise.action_weight),
        batch.action_mask,
        batch.has_action,
        settings.action_scale,
    )


def first_frame_of(transformer: DreamZeroTransformer, batch: Batch) -> Tensor | None:
    """Mask and first-frame channels ``[b, 4 + c, f, h, w]`` of a batch; None if not read."""
    if batch.first_frame is None:
        return None
    config = transformer.config
    return with_mask(batch.first_frame, config.in_channels - 2 * config.out_channels)
