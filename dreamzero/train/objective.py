"""One training loss: noise drawn, velocities predicted, errors weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from ..flow import (
    CoupledNoise,
    FlashNoise,
    Loss,
    add_noise,
    flow_loss,
    noisy_actions,
    sample_block,
    velocity_target,
)
from ..flow.samplers import SamplerConfig
from ..model.conditioning import with_mask
from ..model.transformer import DreamZeroTransformer
from ..types import Batch
from .config import TrainSettings
from .precision import in_bf16
from .prompts import Prompts


@dataclass
class Drawn:
    """What chance decides about a batch: noise levels, their weights, noise, dropped prompts.

    Attributes:
        video_sigma, video_weight: ``[b, f]``; action_sigma, action_weight: ``[b, n * k]``.
        video, action: standard normal, shaped like the latents and the actions.
        dropped: bool ``[b]``, samples that read an empty prompt.
    """

    video_sigma: Tensor
    video_weight: Tensor
    action_sigma: Tensor
    action_weight: Tensor
    video: Tensor
    action: Tensor
    dropped: Tensor

    def to(self, device: torch.device | str) -> Drawn:
        """The same on ``device``."""
        return Drawn(*(getattr(self, f.name).to(device) for f in fields(self)))


def generators(seed: int, step: int, rows: Sequence[int]) -> list[torch.Generator]:
    """One a sample, decided by the seed, the step and its place in the whole batch alone."""
    found = []
    for row in rows:
        (word,) = np.random.SeedSequence((seed, step, row)).generate_state(1, np.uint64)
        found.append(torch.Generator().manual_seed(int(word) >> 1))
    return found


def draw(
    batch: Batch,
    settings: TrainSettings,
    frames_per_block: int,
    sources: Sequence[torch.Generator],
) -> Drawn:
    """Chance for each sample of a batch from its own generator."""
    steps, blocks = batch.action.shape[1], batch.state.shape[1]
    schedule: CoupledNoise | FlashNoise = (
        FlashNoise(shift=settings.shift)
        if settings.stage == "flash"
        else CoupledNoise(settings.shift, settings.pure, settings.timesteps == "independent")
    )
    rows: list[tuple[Tensor, ...]] = []
    for g in sources:
        noise = schedule.sample(1, blocks, frames_per_block, steps // blocks, g)
        rows.append(
            (
                noise.video, noise.video_weight, noise.action, noise.action_weight,
                torch.randn(1, *batch.latents.shape[1:], generator=g),
                torch.randn(1, *batch.action.shape[1:], generator=g),
                torch.rand(1, generator=g) < settings.prompt_dropout,
            )
        )  # fmt: skip
    drawn = Drawn(*(torch.cat(part) for part in zip(*rows, strict=True)))
    if settings.weighting == "uniform":
        drawn.video_weight.fill_(1.0)
        drawn.action_weight.fill_(1.0)
    return drawn


def training_loss(
    transformer: DreamZeroTransformer,
    prompts: Prompts,
    batch: Batch,
    drawn: Drawn,
    settings: TrainSettings,
    with_action: bool = True,
) -> Loss:
    """Teacher-forced flow-matching loss of one batch (MODEL.md 3 and 4).

    Args:
        prompts: instructions to embeddings: a word encoder, or a table made beforehand.
        drawn: noise, on the batch's device.
        with_action: false where no sample has actions: their tokens are then left out.
    """
    skip = 0 if settings.first_frame else 1
    clean, device = batch.latents, batch.latents.device
    if transformer.config.dream == "none":
        skip = clean.shape[2]  # no video is denoised
    target, video_noise = clean[:, :, skip:], drawn.video[:, :, skip:]
    video_sigma = drawn.video_sigma[:, skip:]
    noisy_action, action_target, action_times = noisy_actions(
        transformer.config.objective, batch.action, drawn.action, drawn.action_sigma, settings.shift
    )
    dropped = drawn.dropped.tolist()
    words = ["" if d else p for p, d in zip(batch.prompt, dropped, strict=True)]
    half = in_bf16(settings.bf16, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        context = transformer.embed_context(prompts.encode(words), batch.image_features)
        video, action = transformer(
            add_noise(target, video_noise, video_sigma[:, None, :, None, None]),
            clean,
            1000 * video_sigma,
            context,
            noisy_action if with_action else None,
            action_times if with_action else None,
            batch.state if with_action else None,
            first_frame_of(transformer, batch),
        )
    return flow_loss(
        video,
        velocity_target(target, video_noise),
        drawn.video_weight[:, skip:],
        action,
        action_target,
        drawn.action_weight,
        batch.action_mask,
        batch.has_action,
        settings.action_scale,
    )


class Objective(nn.Module):
    """The networks that are trained and what is asked of them, as one module.

    Everything goes through it, so that DDP and FSDP find the weights where they expect them.

    Args:
        prompts: the word encoder, if it is trained along; a table otherwise.
    """

    def __init__(
        self, transformer: DreamZeroTransformer, prompts: Prompts, settings: TrainSettings
    ) -> None:
        super().__init__()
        self.transformer, self.prompts, self.settings = transformer, prompts, settings

    def forward(
        self, batch: Batch, drawn: Drawn, with_action: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Video and action loss of ``training_loss``; bare tensors, which FSDP puts its hooks on."""
        loss = training_loss(
            self.transformer, self.prompts, batch, drawn, self.settings, with_action
        )
        return loss.video, loss.action

    @torch.no_grad()
    def imagine(
        self, batch: Batch, blocks: int, sampler: SamplerConfig, first: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Video and actions of the block after the first ``blocks``, sampled from noise.

        As a policy would that has seen the true frames up to there, for all samples at once.

        Args:
            first: number of the batch's first sample, which decides its noise.

        Returns:
            latents ``[b, c, dreamed frames, h, w]`` and actions ``[b, k, a]``, float32, normalised.
        """
        model, device = self.transformer, batch.latents.device
        per_block, count = model.config.frames_per_block, len(batch.latents)
        seen, dreamed = 1 + blocks * per_block, model.dream_frames
        given = first_frame_of(model, batch)
        half = in_bf16(self.settings.bf16, device)
        dtype = torch.bfloat16 if half else torch.float32

        def channels(start: int, frames: int) -> Tensor | None:
            return None if given is None else given[:, :, start : start + frames]

        # Every length of the window would be compiled apart, for a few calls.
        with (
            torch.compiler.set_stance("force_eager"),
            torch.autocast(device.type, torch.bfloat16, enabled=half),
        ):
            text = self.prompts.encode(batch.prompt)
            context = model.embed_context(text, batch.image_features)
            height, width = batch.latents.shape[-2:]
            cache = model.new_cache((height, width), count, dtype)
            for piece in batch.latents[:, :, :seen].split([1] + [per_block] * blocks, dim=2):
                frames = piece.shape[2]
                zeros = torch.zeros(count, frames, device=device)
                model.step(piece, zeros, context, cache, first_frame=channels(cache.frames, frames))

            def velocity(video: Tensor, action: Tensor, tv: int, ta: int) -> tuple[Tensor, Tensor]:
                times = torch.full((count, dreamed), float(tv), device=device)
                action_times = torch.full(action.shape[:2], float(ta), device=device)
                state = batch.state[:, blocks : blocks + 1]
                found = model.step(
                    video, times, context, cache, action, action_times, state,
                    channels(seen, dreamed),
                )  # fmt: skip
                assert found[1] is not None
                return found[0].float(), found[1].float()

            video, action = [], []
            for g in generators(0, blocks, range(first, first + count)):
                video.append(
                    torch.randn(batch.latents.shape[1], dreamed, height, width, generator=g)
                )
                action.append(torch.randn(model.config.horizon, batch.action.shape[2], generator=g))
            noise = torch.stack(video).to(device), torch.stack(action).to(device)
            return sample_block(model.config.objective, velocity, *noise, sampler)


def first_frame_of(transformer: DreamZeroTransformer, batch: Batch) -> Tensor | None:
    """Mask and first-frame channels ``[b, 4 + c, f, h, w]`` of a batch; None if not read."""
    if batch.first_frame is None:
        return None
    config = transformer.config
    return with_mask(batch.first_frame, config.in_channels - 2 * config.out_channels)
