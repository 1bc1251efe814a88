"""Run in a process of its own with TRITON_INTERPRET=1: triton reads it when it is imported.

Every operation at odd sizes with outputs poisoned, a whole block, the two fp8 writers with another
output type, UniPC from noise to data, and a short training run. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partialmethod
from pathlib import Path
from typing import Any

import torch
import triton
from dreamzero_kernels.adaln import kernel as adaln_kernel
from dreamzero_kernels.adaln import reference as adaln_reference
from dreamzero_kernels.common import group_index
from dreamzero_kernels.fp8_linear import kernel as linear_kernel
from dreamzero_kernels.problems import NEEDS_FP8, problems, relative_error
from dreamzero_kernels.unipc_step import solver_state, unipc_step

from dreamzero.flow.samplers import unipc
from dreamzero.flow.schedule import sampling_sigmas
from dreamzero.model.blocks import Block
from dreamzero.model.transformer import DreamZeroTransformer

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.kernels.samples import ODD, compare_block, trained_block

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}  # bf16 and fp8 are silently wrong here


def operations() -> dict[str, list[float]]:
    """``{"adaln branches fp32": [relative error of each result]}``."""
    found = {}
    for short, dtype in DTYPES.items():
        for size, sizes in ODD.items():
            for name, problem in problems(sizes, dtype, "cpu"):
                slow = size == "wide" and name.startswith("fp8_linear")
                if name not in NEEDS_FP8 and not slow:
                    pairs = zip(problem.run("triton"), problem.run("reference"), strict=True)
                    found[f"{name} {size} {short}"] = [relative_error(a, b) for a, b in pairs]
    return found


def writers() -> dict[str, list[float]]:
    """What writes fp8 and row scales, with fp16 in place of fp8: error of value x scale, of scales."""
    torch.manual_seed(0)
    x, table = torch.randn(2, 7, 37), torch.randn(2, 3, 6, 37)
    groups = group_index(((2, 3), (1, 1)))
    y = adaln_reference.modulated(x, table[:, :, 1], table[:, :, 0], groups, 1e-6)
    calls = {
        "adaln": (
            y,
            adaln_kernel.adaln(
                x, table[:, :, 1], table[:, :, 0], groups, 1e-6, True, torch.float16
            ),
        ),
        "quantize_rows": (y, linear_kernel.quantize_rows(y.flatten(0, 1), torch.float16)),
    }
    found = {}
    for name, (wanted, (value, scale)) in calls.items():
        value, scale = value.view(wanted.shape), scale.view(wanted.shape[:-1])
        error = relative_error(value.float() * scale.unsqueeze(-1), wanted)
        found[name] = [error, relative_error(scale, wanted.abs().amax(-1) / 448)]
    return found


def solver() -> dict[str, float]:
    """Error of the whole way from noise to data against diffusers, from a state full of NaN."""
    torch.manual_seed(0)
    noise, mix = torch.randn(1, 3, 2, 17, 11), torch.randn(1122, 1122) / 33

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x.flatten() @ mix + sigma).view_as(x)

    found = {}
    for steps, final in ((1, 0.0), (2, 0.0), (4, 0.0), (16, 0.0), (16, 0.8)):
        sigmas = sampling_sigmas(steps, 5.0, final)
        scheduler, wanted = unipc(sigmas), noise
        state = solver_state(torch.full_like(noise, float("nan")), sigmas)
        state.history.fill_(float("nan"))
        state.start(noise)
        for i in range(steps):
            flow = velocity(wanted, sigmas[i])
            wanted = scheduler.step(flow, scheduler.timesteps[i], wanted, return_dict=False)[0]
            flow = velocity(state.sample, sigmas[i])
            index = torch.tensor([i], dtype=torch.int32)
            # u + 3 (c - u) is the velocity again.
            unipc_step(state, flow * 2 / 3, flow / 2, index, guidance=3.0, backend="triton")
        found[f"{steps} steps to {final}"] = relative_error(state.sample, wanted)
    return found


def train(steps: int, fused: bool) -> list[float]:
    """Losses of a small model that learns one batch, with or without kernels."""
    plain = Block.forward
    if fused:
        Block.forward = partialmethod(trained_block, backend="triton")  # type: ignore[assignment,method-assign]
    try:
        torch.manual_seed(0)
        model = DreamZeroTransformer(
            dim=24, ffn_dim=32, num_layers=2, num_heads=2, in_channels=4, out_channels=4,
            text_dim=8, action_dim=3, state_dim=3, horizon=2, projector_dim=16, window_blocks=2,
        )  # fmt: skip
        clean, target = torch.randn(1, 4, 5, 4, 4), torch.randn(1, 4, 5, 4, 4)
        noisy, text = torch.randn(1, 4, 5, 4, 4), torch.randn(1, 3, 8)
        action, goal, state = torch.randn(1, 4, 3), torch.randn(1, 4, 3), torch.randn(1, 2, 3)
        times, action_times = torch.full((1, 5), 400.0), torch.full((1, 4), 400.0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses = []
        for _ in range(steps):
            video, actions = model(
                noisy, clean, times, model.encode_context(text), action, action_times, state
            )
            loss = (video - target).square().mean() + (actions - goal).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses
    finally:
        Block.forward = plain  # type: ignore[method-assign]


def main() -> None:
    assert triton.knobs.runtime.interpret
    torch.set_num_threads(1)
    # Fills what torch.empty gives out with NaN: an element that a kernel forgot shows.
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    found: dict[str, Any] = {}
    parts = {
        "operations": operations,
        "writers": writers,
        "solver": solver,
        "block": lambda: {k: compare_block(d, "cpu", "triton") for k, d in DTYPES.items()},
        "training": lambda: [train(50, False), train(50, True)],
    }
    for name, part in parts.items():
        start = time.perf_counter()
        found[name] = part()
        print(f"{name} {time.perf_counter() - start:.1f} s", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
