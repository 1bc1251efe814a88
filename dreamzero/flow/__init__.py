"""Flow matching: noise schedules, the loss, and the samplers that solve the flow."""

from .losses import Loss, add_noise, flow_loss, velocity_target
from .objectives import ActionObjective, noisy_actions, sample_block
from .samplers import STEP_MASKS, Guided, Reuse, SamplerConfig, guide, sample, solver_table, unipc
from .schedule import (
    CoupledNoise,
    FlashNoise,
    Noise,
    sampling_sigmas,
    sampling_timesteps,
    train_sigmas,
    train_weights,
    weight_at,
)

__all__ = [
    "STEP_MASKS",
    "ActionObjective",
    "CoupledNoise",
    "FlashNoise",
    "Guided",
    "Loss",
    "Noise",
    "Reuse",
    "SamplerConfig",
    "add_noise",
    "flow_loss",
    "guide",
    "noisy_actions",
    "sample",
    "sample_block",
    "sampling_sigmas",
    "sampling_timesteps",
    "solver_table",
    "train_sigmas",
    "train_weights",
    "unipc",
    "velocity_target",
    "weight_at",
]
