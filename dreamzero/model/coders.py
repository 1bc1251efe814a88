"""What stands around the blocks: time embedding, state and action coders, absolute positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoid(values: Tensor, dim: int, *, sine_first: bool = False) -> Tensor:
    """Sinusoidal embedding ``[..., dim]`` of ``values``, computed in float64, returned in float32.

    Args:
        values: any shape; timesteps are 1000 * sigma.
        dim: even width; half sines, half cosines.
        sine_first: [sin | cos] (action coder) instead of [cos | sin] (timesteps).
    """
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float64, device=values.device) / half
    angles = values.to(torch.float64)[..., None] * 10000.0**-exponent
    parts = (angles.sin(), angles.cos()) if sine_first else (angles.cos(), angles.sin())
    return torch.cat(parts, dim=-1).float()


class SlotLinear(nn.Module):
    """One affine map per embodiment slot: ``weight [slots, in, out]``, ``bias [slots, out]``.

    The released checkpoints have one shared slot and send every embodiment through it.
    """

    def __init__(self, slots: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = in_features**-0.5
        self.weight = nn.Parameter(
            torch.empty(slots, in_features, out_features).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.zeros(slots, out_features))

    def forward(self, x: Tensor, slot: int = 0) -> Tensor:
        """``[b, l, in] -> [b, l, out]``."""
        return F.linear(x, self.weight[slot].T, self.bias[slot])


class SlotMLP(nn.Module):
    """Linear, ReLU, Linear: the state encoder and the action decoder."""

    def __init__(self, slots: int, in_features: int, hidden: int, out_features: int) -> None:
        super().__init__()
        self.layer1 = SlotLinear(slots, in_features, hidden)
        self.layer2 = SlotLinear(slots, hidden, out_features)

    def forward(self, x: Tensor, slot: int = 0) -> Tensor:
        """``[b, l, in] -> [b, l, out]``."""
        return self.layer2(F.relu(self.layer1(x, slot)), slot)


class ActionEncoder(nn.Module):
    """Noisy actions and their timesteps to tokens: W3 swish(W2 [W1 x, tau])."""

    def __init__(self, slots: int, action_dim: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.W1 = SlotLinear(slots, action_dim, dim)
        self.W2 = SlotLinear(slots, 2 * dim, dim)
        self.W3 = SlotLinear(slots, dim, dim)

    def forward(self, action: Tensor, timestep: Tensor, slot: int = 0) -> Tensor:
        """``action [b, l, a]`` with ``timestep [b, l]`` -> ``[b, l, d]``."""
        x = self.W1(action, slot)
        tau = sinusoid(timestep, self.dim, sine_first=True).to(x.dtype)
        return self.W3(F.silu(self.W2(torch.cat([x, tau], dim=-1), slot)), slot)


class AbsolutePositions(nn.Module):
    """Learned positions added to the tokens of small models, started as sines and cosines.

    Rotary embedding alone tells tokens apart but not *where* they are; large models learn that
    from data, models of a few million parameters learn it much sooner when told.
    """

    def __init__(
        self, grid: tuple[int, int], horizon: int, dim: int, amplitude: float = 0.5
    ) -> None:
        super().__init__()
        height, width = grid
        rows = sinusoid(torch.arange(height), dim // 2)
        columns = sinusoid(torch.arange(width), dim // 2)
        plane = torch.cat(
            [
                rows[:, None].expand(-1, width, -1),
                columns[None].expand(height, -1, -1),
            ],
            dim=-1,
        )
        self.grid = nn.Parameter(amplitude * plane.flatten(0, 1))
        steps = sinusoid(torch.arange(horizon), dim)
        self.horizon = nn.Parameter(amplitude * steps)

    def video(self, tokens: Tensor) -> Tensor:
        """``tokens [b, f * h * w, d]`` plus the position in the frame."""
        frames = tokens.shape[1] // self.grid.shape[0]
        return tokens + self.grid.repeat(frames, 1)

    def action(self, tokens: Tensor) -> Tensor:
        """``tokens [b, n * k, d]`` plus the step in the chunk."""
        return tokens + self.horizon.repeat(tokens.shape[1] // self.horizon.shape[0], 1)


def init_weights(module: nn.Module, layers: int) -> None:
    """Xavier for matrices, small outputs of residual branches (1 / sqrt(2 layers)), zero biases."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
            if name.endswith(("to_out.0", "ffn.net.2")):
                child.weight.data.mul_(1 / math.sqrt(2 * layers))
        elif isinstance(child, nn.Conv3d):
            nn.init.xavier_uniform_(child.weight.flatten(1))
            if child.bias is not None:
                nn.init.zeros_(child.bias)
