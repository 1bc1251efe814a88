"""Solving the flow: UniPC through diffusers, guidance on video, cached steps (MODEL.md 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffusers import UniPCMultistepScheduler
from torch import Tensor

from ..errors import UserError
from .schedule import sampling_sigmas, sampling_timesteps

# (video, action, video timestep, action timestep) -> (video velocity, action velocity)
VelocityFn = Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SamplerConfig:
    """How a chunk is denoised.

    Attributes:
        steps: scheduler steps.
        shift: flow shift of the sigma grid.
        guidance: classifier-free guidance on the video velocity only; 1 runs the conditional
            branch alone, and actions always take the conditional branch.
        step_mask: true where the model is evaluated; at false steps the last velocities are
            reused. None evaluates every step. The first step must be true.
        video_final_noise: sigma at which the video is left (decoupled schedule); 0 finishes it.
    """

    steps: int = 16
    shift: float = 5.0
    guidance: float = 5.0
    step_mask: tuple[bool, ...] | None = None
    video_final_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps={self.steps}: denoising takes at least 1 step")
        if self.step_mask is not None:
            if len(self.step_mask) != self.steps:
                raise ValueError(
                    f"step_mask has {len(self.step_mask)} entries for {self.steps} steps"
                )
            if not self.step_mask[0]:
                raise ValueError("step_mask must evaluate the first step")

    @property
    def evaluations(self) -> int:
        """Model evaluations a chunk (a guided one runs two branches)."""
        return self.steps if self.step_mask is None else sum(self.step_mask)


def unipc(sigmas: Tensor) -> UniPCMultistepScheduler:
    """diffusers' UniPC (order 2, flow prediction) on exactly these sigmas ``[steps + 1]``.

    Its own grid differs from the release's by up to 3e-3, so the sigmas are set, not asked for.
    """
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=2
    )
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas = sigmas.clone()
    scheduler.timesteps = sampling_timesteps(sigmas)
    scheduler.set_begin_index(0)
    return scheduler


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: ``unconditional + scale * (conditional - unconditional)``."""
    return unconditional + scale * (conditional - unconditional)


def sample(
    velocity: VelocityFn, video: Tensor, action: Tensor, config: SamplerConfig
) -> tuple[Tensor, Tensor]:
    """Denoise one block.

    Args:
        velocity: guided velocities at integer timesteps.
        video: noise ``[b, c, f, h, w]``; action: noise ``[b, k, a]``.

    Returns:
        video latents (still at ``video_final_noise``) and actions, of the same shapes.
    """
    video_sigmas = sampling_sigmas(config.steps, config.shift, config.video_final_noise)
    action_sigmas = sampling_sigmas(config.steps, config.shift)
    video_solver, action_solver = unipc(video_sigmas), unipc(action_sigmas)
    mask: Sequence[bool] = config.step_mask or (True,) * config.steps
    for i, evaluate in enumerate(mask):
        tv, ta = video_solver.timesteps[i], action_solver.timesteps[i]
        if evaluate:
            velocities = velocity(video, action, int(tv), int(ta))
        video = video_solver.step(velocities[0], tv, video, return_dict=False)[0]
        action = action_solver.step(velocities[1], ta, action, return_dict=False)[0]
    return video, action
