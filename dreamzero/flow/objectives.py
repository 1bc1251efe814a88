"""What a network may be trained to say about actions, and how they come out of it.

A world action model says velocities. Its rivals of equal size may say the action itself (behaviour
cloning by regression) or the noise of a DDPM (Diffusion Policy: Chi et al. 2023, arXiv 2303.04137).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from .losses import add_noise, velocity_target
from .samplers import SamplerConfig, VelocityFn, sample

ActionObjective = Literal["flow", "regression", "diffusion"]

# As in Diffusion Policy: 100 levels of a squared cosine; actions are about -1 to 1.
DDPM_STEPS, DDPM_CLIP = 100, 1.5


@lru_cache
def ddpm() -> DDIMScheduler:
    """diffusers' scheduler of the "diffusion" objective; DDIM takes few of its steps."""
    return DDIMScheduler(
        num_train_timesteps=DDPM_STEPS,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        clip_sample_range=DDPM_CLIP,
        prediction_type="epsilon",
    )


def noisy_actions(
    objective: ActionObjective, action: Tensor, noise: Tensor, sigma: Tensor, shift: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What the network is given and asked for in training.

    Args:
        action, noise: ``[b, n, a]``; sigma: levels of the flow ``[b, n]``, drawn under ``shift``.

    Returns:
        noisy actions and target, like ``action``; timesteps ``[b, n]``, 0 to 1000.
    """
    if objective == "regression":  # from no noise, in one step
        return torch.zeros_like(action), -action, torch.full_like(sigma, 1000.0)
    if objective == "diffusion":
        uniform = sigma / (shift - (shift - 1) * sigma)  # the shift undone
        level = (uniform * DDPM_STEPS).ceil().long().clamp(1, DDPM_STEPS) - 1
        kept = ddpm().alphas_cumprod.to(action.device)[level][..., None]
        noisy = kept.sqrt() * action + (1 - kept).sqrt() * noise
        return noisy, noise, level * (1000 / DDPM_STEPS)
    return add_noise(action, noise, sigma[..., None]), velocity_target(action, noise), 1000 * sigma


def sample_block(
    objective: ActionObjective,
    network: VelocityFn,
    video: Tensor,
    action: Tensor,
    config: SamplerConfig,
) -> tuple[Tensor, Tensor]:
    """Denoise one block with a network of any objective; shapes as in ``samplers.sample``."""
    if objective == "regression":
        _, predicted = network(video, torch.zeros_like(action), 1000, 1000)
        return video, -predicted.float()
    if objective == "diffusion":
        scheduler = DDIMScheduler.from_config(ddpm().config)
        scheduler.set_timesteps(config.steps)
        for level in scheduler.timesteps:
            time = round(int(level) * 1000 / DDPM_STEPS)
            _, predicted = network(video, action, time, time)
            action = scheduler.step(predicted.float(), level, action).prev_sample
        return video, action
    return sample(network, video, action, config)
