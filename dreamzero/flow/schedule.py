"""Noise levels of training and sampling (MODEL.md 4 and 5). Sigma 1 is noise, timestep = 1000 sigma."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

TRAIN_STEPS = 1000
# The first training indices; at shift 5 they are sigmas from 1 to 0.998.
_NEARLY_PURE = 10


def shift_sigma(s: Tensor | float, shift: float) -> Tensor | float:
    """The flow shift of sigmas of any shape: ``shift * s / (1 + (shift - 1) * s)`` moves uniform s
    towards noise.
    """
    return shift * s / (1 + (shift - 1) * s)


@lru_cache
def train_sigmas(shift: float = 5.0) -> Tensor:
    """The 1000 training sigmas, float32 ``[1000]``, from noise down to 0.005."""
    s = 1 - torch.arange(TRAIN_STEPS, dtype=torch.float64) / TRAIN_STEPS
    return torch.as_tensor(shift_sigma(s, shift)).float()


@lru_cache
def train_weights(shift: float = 5.0) -> Tensor:
    """Loss weight of each training sigma, float32 ``[1000]``: Wan's bell around t = 500, minimum
    shifted to zero, mean 1."""
    return weight_at(train_sigmas(shift), shift)


def weight_at(sigma: Tensor, shift: float = 5.0) -> Tensor:
    """The same weight at sigmas of any shape, float32, scaled by the training sigmas' minimum and
    mean.
    """

    def bell(s: Tensor) -> Tensor:
        return torch.exp(-2 * (s.double() - 0.5) ** 2)

    known = bell(train_sigmas(shift))
    low = known.min()
    return ((bell(sigma) - low).clamp(min=0) / (known - low).mean()).float()


@dataclass(frozen=True)
class Noise:
    """Noise levels drawn for one training batch.

    Attributes:
        video: sigma of each latent frame ``[b, f]``; action: of each action step ``[b, n * k]``.
        video_weight, action_weight: loss weights of the same shapes.
    """

    video: Tensor
    action: Tensor
    video_weight: Tensor
    action_weight: Tensor


@dataclass(frozen=True)
class CoupledNoise:
    """One training index a block, shared by its video and its actions; the first frame has its own.

    This is how DreamZero is trained before the Flash stage (MODEL.md 4).

    Attributes:
        pure: share of the blocks that are drawn at (nearly) pure noise instead. At any lower level
            the noisy video still tells which way things go; only there has the instruction to.
        independent: actions have a level of their own (an ablation of the paper).
    """

    shift: float = 5.0
    pure: float = 0.0
    independent: bool = False

    def sample(
        self,
        batch: int,
        blocks: int,
        frames_per_block: int,
        horizon: int,
        generator: torch.Generator | None = None,
    ) -> Noise:
        """Draw noise for ``batch`` windows of ``blocks`` blocks."""
        index = torch.randint(0, TRAIN_STEPS, (batch, blocks + 1), generator=generator)
        if self.pure > 0:
            chosen = torch.rand(batch, blocks + 1, generator=generator) < self.pure
            index = torch.where(chosen, index % _NEARLY_PURE, index)
        frames = torch.cat([index[:, :1], index[:, 1:].repeat_interleave(frames_per_block, 1)], 1)
        own = index[:, 1:]
        if self.independent:
            own = torch.randint(0, TRAIN_STEPS, own.shape, generator=generator)
        steps = own.repeat_interleave(horizon, 1)
        sigmas, weights = train_sigmas(self.shift), train_weights(self.shift)
        return Noise(sigmas[frames], sigmas[steps], weights[frames], weights[steps])


@dataclass(frozen=True)
class FlashNoise:
    """Video nearly pure noise, actions anywhere: the last stage, for one step of denoising.

    The clean share of a video frame is 1 - Beta(7, 1), mean 1/8, so that its sigma is Beta(7, 1). One
    level a block (the first frame has its own); an action block's level is uniform in [0, 1] and has
    nothing to do with its video's (MODEL.md 4).

    Attributes:
        power: the first parameter of Beta; shift: of the schedule whose weights are used.
    """

    power: float = 7.0
    shift: float = 5.0

    def sample(
        self,
        batch: int,
        blocks: int,
        frames_per_block: int,
        horizon: int,
        generator: torch.Generator | None = None,
    ) -> Noise:
        """Draw noise for ``batch`` windows of ``blocks`` blocks."""
        drawn = torch.rand(batch, 1 + 2 * blocks, generator=generator)
        # u ** (1 / a) is Beta(a, 1): its distribution function is x ** a.
        level = drawn[:, : 1 + blocks] ** (1 / self.power)
        video = torch.cat(
            [level[:, :1], level[:, 1:].repeat_interleave(frames_per_block, 1)], dim=1
        )
        action = drawn[:, 1 + blocks :].repeat_interleave(horizon, 1)
        weights = (weight_at(sigma, self.shift) for sigma in (video, action))
        return Noise(video, action, *weights)


def sampling_sigmas(steps: int, shift: float = 5.0, final: float = 0.0) -> Tensor:
    """Sigmas of a sampler with ``steps`` evaluations: float32 ``[steps + 1]``, noise first.

    The grid of the release: s from 0.999 down in equal steps, shifted, and the end exactly
    ``final``. With ``final`` > 0 (the decoupled schedule) the range [max, 0] is mapped linearly
    to [max, final], so that the video stays noisy while the actions are finished.
    """
    s = torch.linspace(1 - 1 / TRAIN_STEPS, 0, steps + 1, dtype=torch.float64)
    sigmas = torch.as_tensor(shift_sigma(s, shift))
    top = sigmas[0]
    return (final + sigmas * (top - final) / top).float()


def sampling_timesteps(sigmas: Tensor) -> Tensor:
    """Timesteps of the evaluations, truncated to integers as the release does: int64 ``[steps]``."""
    return torch.from_numpy((sigmas[:-1].double().numpy() * TRAIN_STEPS).astype(np.int64))
