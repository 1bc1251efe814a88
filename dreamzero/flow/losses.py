"""The flow-matching objective of video and actions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def add_noise(sample: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The point at ``sigma`` on the straight line from sample (0) to noise (1).

    Any shape; ``sigma`` in one that broadcasts to it.
    """
    return (1 - sigma) * sample + sigma * noise


def velocity_target(sample: Tensor, noise: Tensor) -> Tensor:
    """noise - sample, of any one shape: the derivative of ``add_noise`` with respect to sigma."""
    return noise - sample


@dataclass(frozen=True)
class Loss:
    """Scalars of one batch; ``total`` is what is differentiated."""

    total: Tensor
    video: Tensor
    action: Tensor


def flow_loss(
    video: Tensor,
    video_target: Tensor,
    video_weight: Tensor,
    action: Tensor | None = None,
    action_target: Tensor | None = None,
    action_weight: Tensor | None = None,
    action_mask: Tensor | None = None,
    has_action: Tensor | None = None,
    action_scale: float = 1.0,
) -> Loss:
    """Mean weighted video MSE plus mean weighted action MSE (MODEL.md 4).

    Args:
        video, video_target: velocities ``[b, c, f, h, w]``, f may be 0; video_weight: ``[b, f]``.
        action, action_target: velocities ``[b, n * k, a]``; action_weight: ``[b, n * k]``.
        action_mask: bool ``[b, n * k, a]``, true on real dimensions.
        has_action: bool ``[b]``; samples without labels contribute no action loss.
        action_scale: factor of the action loss (the paper's is 1).
    """
    if video.shape[2]:
        error = (video.float() - video_target.float()).square().mean(dim=(1, 3, 4))
        video_loss = (error * video_weight).mean()
    else:  # a policy that dreams nothing
        video_loss = video.float().sum()
    if action is None or action_target is None or action_weight is None:
        return Loss(video_loss, video_loss, torch.zeros_like(video_loss))
    mask = torch.ones_like(action, dtype=torch.bool) if action_mask is None else action_mask
    if has_action is not None:
        mask = mask & has_action[:, None, None]
    squared = (action.float() - action_target.float()).square() * action_weight[..., None]
    action_loss = (squared * mask).sum() / mask.sum().clamp(min=1)
    return Loss(video_loss + action_scale * action_loss, video_loss, action_loss)
