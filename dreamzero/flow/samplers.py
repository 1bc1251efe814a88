"""How a chunk is denoised: steps, guidance, step cache, decoupled schedule (MODEL.md 5).

The solver is diffusers' UniPC. Its state after any step is a fixed linear combination of the first
noise and the velocities so far, so that it is asked once, on unit vectors, for all its coefficients
(``solver_table``); a chunk then costs one small product an evaluation, and a step whose velocity is
reused costs nothing at all. On a GPU a kernel does a step in one launch instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from diffusers import UniPCMultistepScheduler
from torch import Tensor

from ..errors import UserError
from .schedule import sampling_sigmas, sampling_timesteps


class Guided(NamedTuple):
    """Velocities of both branches, not yet put together.

    Attributes:
        conditional, unconditional: of one shape.
        scale: of guidance; see ``guide``.
    """

    conditional: Tensor
    unconditional: Tensor
    scale: float


# (video, action, video timestep, action timestep) -> (video velocity, action velocity)
VelocityFn = Callable[[Tensor, Tensor, int, int], tuple[Tensor | Guided, Tensor]]

Grid = tuple[int, float, float]  # steps, shift, final noise

# The release's fixed masks: evaluations -> steps out of 16 that are evaluated.
EVALUATED = {
    5: (0, 1, 2, 7, 12),
    6: (0, 1, 5, 10, 14, 15),
    7: (0, 1, 2, 6, 10, 14, 15),
    8: (0, 1, 2, 6, 10, 13, 14, 15),
}
STEP_MASKS = {n: tuple(i in steps for i in range(16)) for n, steps in EVALUATED.items()}


@dataclass(frozen=True)
class Reuse:
    """Dynamic step cache: similar velocities are not computed again.

    Attributes:
        rules: (cosine, steps): when the last two guided video velocities are more alike than
            ``cosine``, so many steps reuse the last one. The first rule that holds counts.
    """

    rules: tuple[tuple[float, int], ...] = ((0.95, 4), (0.93, 2))

    def __post_init__(self) -> None:
        for cosine, steps in self.rules:
            if not (-1 <= cosine <= 1 and steps >= 1):
                raise UserError(
                    f"step reuse ({cosine}, {steps}): a cosine is between -1 and 1, and at least 1 "
                    "step is skipped"
                )

    def skip(self, alike: float) -> int:
        """Steps to skip when the last two velocities have this cosine."""
        return next((steps for cosine, steps in self.rules if alike > cosine), 0)


@dataclass(frozen=True)
class SamplerConfig:
    """How a chunk is denoised.

    Attributes:
        steps: scheduler steps.
        shift: flow shift of the sigma grid.
        guidance: classifier-free guidance on the video velocity only; 1 runs the conditional
            branch alone, and actions always take the conditional branch.
        step_mask: true where the model is evaluated; at false steps the last velocities are
            reused. None evaluates every step. The first step must be true. ``STEP_MASKS`` has the
            release's.
        video_final_noise: sigma at which the video is left (decoupled schedule); 0 finishes it.
        reuse: skip steps whose velocity has stopped changing, instead of a fixed mask.
        guidance_interval: video sigmas (low, high) at which guidance is applied; at others the
            conditional branch runs alone.
    """

    steps: int = 16
    shift: float = 5.0
    guidance: float = 5.0
    step_mask: tuple[bool, ...] | None = None
    video_final_noise: float = 0.0
    reuse: Reuse | None = None
    guidance_interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps={self.steps}: denoising takes at least 1 step")
        if self.step_mask is not None:
            if len(self.step_mask) != self.steps:
                raise UserError(
                    f"step_mask has {len(self.step_mask)} entries and steps is {self.steps}: give "
                    "one for each step"
                )
            if not self.step_mask[0]:
                raise UserError("step_mask leaves out the first step, which must be evaluated")
            if self.reuse is not None:
                raise UserError("a step mask and dynamic reuse exclude each other: give one")
        low, high = self.guidance_interval
        if not 0 <= low < high <= 1:
            raise UserError(
                f"guidance_interval ({low}, {high}): two sigmas, 0 <= low < high <= 1 (all noise)"
            )

    @classmethod
    def flash(cls, video_final_noise: float = 0.8) -> SamplerConfig:
        """One evaluation, no guidance, video left noisy: for models trained that way (MODEL.md 4)."""
        return cls(steps=1, guidance=1.0, video_final_noise=video_final_noise)

    @property
    def evaluations(self) -> int:
        """Model evaluations a chunk (a guided one runs two branches); with ``reuse``, at most."""
        return self.steps if self.step_mask is None else sum(self.step_mask)

    @property
    def branches(self) -> int:
        """2 with guidance, else 1."""
        return 1 if self.guidance == 1.0 else 2

    @property
    def approximate(self) -> bool:
        """Whether evaluations, or their guided half, are left out of the schedule."""
        partly = self.branches == 2 and self.guidance_interval != (0.0, 1.0)
        return self.evaluations < self.steps or self.reuse is not None or partly

    def guided(self, timestep: int) -> bool:
        """Whether both branches run at this video timestep."""
        low, high = self.guidance_interval
        return self.branches == 2 and low <= timestep / 1000 <= high


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


@lru_cache
def solver_table(steps: int, shift: float = 5.0, final: float = 0.0) -> Tensor:
    """Every state of the solver in terms of what it is made of: float64 ``[steps, steps + 1]``.

    Row i holds, for the state after step i, the weights of the starting noise (column 0) and of the
    velocity of step j (column j + 1).
    """
    solver = unipc(sampling_sigmas(steps, shift, final))
    unit = torch.eye(steps + 1, dtype=torch.float64).unsqueeze(1)  # the solver wants [b, c]
    state, rows = unit[0], []
    for i, timestep in enumerate(solver.timesteps):
        state = solver.step(unit[i + 1], timestep, state, return_dict=False)[0]
        rows.append(state[0])
    return torch.stack(rows)


@lru_cache
def _timesteps(steps: int, shift: float, final: float) -> list[int]:
    found: list[int] = sampling_timesteps(sampling_sigmas(steps, shift, final)).tolist()
    return found


@lru_cache(maxsize=4096)
def _weights(grid: Grid, evaluated: tuple[int, ...], step: int, device: torch.device) -> Tensor:
    """Weights of [noise, one velocity an evaluation] for the state before ``step``, on the device.

    Args:
        evaluated: steps evaluated so far; what lies between them reuses the one before.
    """
    row = solver_table(*grid)[step - 1, : step + 1]
    ends = (*evaluated[1:], step)
    parts = [row[1 + a : 1 + b].sum() for a, b in zip(evaluated, ends, strict=True)]
    return torch.stack([row[0], *parts]).float().to(device)


class _Path(Protocol):
    """How one of the two modalities gets from noise to data."""

    def add(self, step: int, velocity: Tensor | Guided) -> None:
        """The velocity evaluated at ``step``."""
        ...

    def state(self, step: int) -> Tensor:
        """The sample before ``step``; steps since the last evaluation reuse its velocity."""
        ...

    def cosine(self) -> float:
        """Between the last two velocities; reading it waits for the device."""
        ...


class _Table:
    """The starting noise and all velocities as rows of one buffer; a state is a weighted sum."""

    def __init__(self, start: Tensor, evaluations: int, grid: Grid) -> None:
        self.grid, self.shape = grid, start.shape
        self.evaluated: tuple[int, ...] = ()
        self.rows = torch.empty(
            1 + evaluations, start.numel(), device=start.device, dtype=torch.float32
        )
        self.rows[0] = start.flatten()

    def add(self, step: int, velocity: Tensor | Guided) -> None:
        self.evaluated = (*self.evaluated, step)
        together = guide(*velocity) if isinstance(velocity, Guided) else velocity
        self.rows[len(self.evaluated)] = together.flatten()

    def state(self, step: int) -> Tensor:
        weights = _weights(self.grid, self.evaluated, step, self.rows.device)
        return (weights @ self.rows[: len(weights)]).view(self.shape)

    def cosine(self) -> float:
        last = len(self.evaluated)
        return F.cosine_similarity(self.rows[last], self.rows[last - 1], dim=0).item()


class _Fused:
    """Guidance, step and cosine in one kernel launch (``dreamzero_kernels.unipc_step``)."""

    def __init__(self, start: Tensor, grid: Grid) -> None:
        from dreamzero_kernels.unipc_step import solver_state

        self.solver = solver_state(start, sampling_sigmas(*grid))
        self.steps = torch.arange(grid[0], dtype=torch.int32, device=start.device)
        self.done = 0

    def add(self, step: int, velocity: Tensor | Guided) -> None:
        if isinstance(velocity, Guided):
            self._step(*velocity)
        else:
            self._step(velocity, None, 1.0)

    def _step(self, conditional: Tensor, unconditional: Tensor | None, scale: float) -> None:
        from dreamzero_kernels.unipc_step import unipc_step

        step = self.steps[self.done : self.done + 1]
        unipc_step(self.solver, conditional, unconditional, step, scale)
        self.done += 1

    def state(self, step: int) -> Tensor:
        while self.done < step:
            self._step(self.solver.velocity, None, 1.0)
        return self.solver.sample

    def cosine(self) -> float:
        return float(self.solver.sums[0])


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, any shape: ``u + scale * (c - u)``."""
    return unconditional + scale * (conditional - unconditional)


def sample(
    velocity: VelocityFn, video: Tensor, action: Tensor, config: SamplerConfig
) -> tuple[Tensor, Tensor]:
    """Denoise one block. Nothing waits for the device but the decision of ``config.reuse``.

    Args:
        velocity: at integer timesteps, called once an evaluation; with an attribute ``fused`` that
            is true, steps are kernel launches.
        video: noise ``[b, c, f, h, w]``, f may be 0; action: noise ``[b, k, a]``.

    Returns:
        video latents (still at ``video_final_noise``) and actions, float32 of the same shapes.
    """
    steps = config.steps
    grids: tuple[Grid, Grid] = (
        (steps, config.shift, config.video_final_noise),
        (steps, config.shift, 0.0),
    )
    video_times, action_times = (_timesteps(*grid) for grid in grids)
    fused = getattr(velocity, "fused", False)

    def path(start: Tensor, grid: Grid) -> _Path:
        # A policy may have no video to denoise; a launch over nothing is an error.
        launch = fused and start.numel() > 0
        return _Fused(start, grid) if launch else _Table(start, config.evaluations, grid)

    videos, actions = path(video, grids[0]), path(action, grids[1])
    step, evaluated = 0, 0
    while step < steps:
        if step:
            video, action = videos.state(step), actions.state(step)
        predicted = velocity(video, action, video_times[step], action_times[step])
        videos.add(step, predicted[0])
        actions.add(step, predicted[1])
        step, evaluated = step + 1, evaluated + 1
        if config.step_mask is not None:
            while step < steps and not config.step_mask[step]:
                step += 1
        elif config.reuse is not None and evaluated >= 2 and step < steps:
            step += config.reuse.skip(videos.cosine())
    return videos.state(steps), actions.state(steps)
