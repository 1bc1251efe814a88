"""The references against the modules they replace, the fp8 arithmetic, and refusals in one line."""

from __future__ import annotations

import json
from functools import partialmethod
from typing import Any

import pytest
import torch
from dreamzero_kernels import common
from dreamzero_kernels.adaln import adaln, adaln_fp8
from dreamzero_kernels.bench import operation
from dreamzero_kernels.cached_attention import cached_attention
from dreamzero_kernels.common import FP8, group_index
from dreamzero_kernels.fp8_linear import fp8_linear, quantize_rows
from dreamzero_kernels.problems import (
    PROBLEMS,
    TOLERANCE,
    Maker,
    problems,
    relative_error,
    tolerance,
)
from dreamzero_kernels.unipc_step import solver_state, unipc_step, unipc_table
from torch import Tensor

from dreamzero.flow.samplers import unipc
from dreamzero.flow.schedule import sampling_sigmas
from dreamzero.model.attention import attend
from dreamzero.model.blocks import Groups

from .samples import ODD, block_inputs, compare_block, trained_block


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_block_of_operations_equals_the_model(dtype: torch.dtype) -> None:
    assert compare_block(dtype, "cpu", "reference") < 3 * TOLERANCE[dtype]


def test_library_equals_reference() -> None:
    """What the engine runs on a CPU, and on a GPU where it is the faster one."""
    compared = 0
    for name, problem in problems(ODD["branches"], torch.bfloat16, "cpu"):
        if problem.library:
            (wanted,), (found,) = problem.run("reference"), problem.run("library")
            assert relative_error(found, wanted) < tolerance(name, found), name
            compared += 1
    assert compared == 5


def test_groups_are_those_of_the_model() -> None:
    runs = ((2, 5), (3, 1), (1, 1))
    table = torch.randn(2, 6, 7)
    assert torch.equal(table[:, group_index(runs)], Groups(runs).spread(table))


def test_gradients_are_those_of_the_model() -> None:
    inputs = block_inputs(torch.float32, "cpu")
    block, x, modulation, groups, rope, context, *_ = inputs.values()
    block.requires_grad_(True)
    grads = []
    for fused in (False, True):
        run = partialmethod(trained_block, backend="reference").__get__(block) if fused else block
        leaf, leaf2 = x.clone().requires_grad_(), modulation.clone().requires_grad_()
        out = run(leaf, leaf2, groups, rope, context, attend)
        parameters = [p for n, p in block.named_parameters() if "attn2" not in n]
        grads.append(torch.autograd.grad(out.square().sum(), [leaf, leaf2, *parameters]))
    for wanted, found in zip(*grads, strict=True):
        assert relative_error(found, wanted) < 1e-5


def test_backward_pass_of_a_kernel_is_the_references() -> None:
    """The wrapper that training goes through, with a forward that is not differentiable."""
    from dreamzero_kernels.autograd import with_reference_backward

    a, b = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)

    def reference(a: Tensor, none: Tensor | None, b: Tensor) -> tuple[Tensor, ...]:
        return a * b, a.sin()

    def run(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(x.detach().clone() for x in reference(*inputs))

    out = with_reference_backward(run, reference, a, None, b)
    wanted = torch.autograd.grad(sum(reference(a, None, b)).sum(), (a, b))
    found = torch.autograd.grad(sum(out).sum(), (a, b))
    assert all(map(torch.equal, found, wanted))


def test_fp8_rows_use_the_whole_range() -> None:
    x = torch.randn(5, 64) * torch.tensor([1e-4, 1.0, 7.0, 3e3, 0.0])[:, None]
    value, scale = quantize_rows(x)
    assert value.dtype == FP8 and scale.shape == (5,)
    assert value.float().abs().amax(-1).tolist() == [448.0] * 4 + [0.0]
    # Three bits of mantissa: at most 1/16 off, about 2.5 % in the mean.
    back = value.float() * scale[:, None]
    assert (back - x).abs().max(-1).values.le(x.abs().amax(-1) / 16).all()
    assert relative_error(back, x) < 0.03


def test_fp8_chain_is_near_the_exact_product() -> None:
    make = Maker(torch.float32, "cpu")
    x, table, groups = (
        make.normal(2, 9, 64),
        make.normal(2, 3, 2, 64),
        group_index(((2, 4), (1, 1))),
    )
    weight, bias = make.normal(32, 64), make.normal(32)
    scale, shift = table.unbind(2)
    exact = adaln(x, scale, shift, groups) @ weight.t() + bias
    rows, row_scale = adaln_fp8(x, scale, shift, groups)
    found = fp8_linear(rows, row_scale, *quantize_rows(weight), bias, out_dtype=torch.float32)
    assert 1e-3 < relative_error(found, exact) < 0.05
    gate, residual = make.normal(2, 3, 32), make.normal(2, 9, 32)
    full = fp8_linear(
        rows, row_scale, *quantize_rows(weight), bias, gelu=True, gate=gate, groups=groups,
        residual=residual, out_dtype=torch.float32,
    )  # fmt: skip
    wanted = residual + gate[:, groups] * torch.nn.functional.gelu(found, approximate="tanh")
    assert relative_error(full, wanted) < 1e-6


@pytest.mark.parametrize(("steps", "final"), [(1, 0.0), (3, 0.0), (16, 0.0), (16, 0.8)])
def test_solver_equals_diffusers(steps: int, final: float) -> None:
    sigmas = sampling_sigmas(steps, 5.0, final)
    noise = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    scheduler, wanted, state = unipc(sigmas), noise[..., None, None], solver_state(noise, sigmas)
    for i in range(steps):
        flow = torch.cos(wanted + i)
        wanted = scheduler.step(flow, scheduler.timesteps[i], wanted, return_dict=False)[0]
        flow = torch.cos(state.sample + i)
        unipc_step(state, flow, None, torch.tensor([i], dtype=torch.int32))
    assert relative_error(state.sample, wanted[..., 0, 0]) < 1e-5


def test_solver_cosine() -> None:
    state = solver_state(torch.zeros(1, 3), torch.tensor([0.9, 0.5, 0.0]))
    first, second = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[3.0, 4.0, 0.0]])
    unipc_step(state, first, None, torch.tensor([0], dtype=torch.int32))
    sums = unipc_step(state, second, torch.zeros(1, 3), torch.tensor([1], dtype=torch.int32), 2.0)
    assert sums.tolist() == pytest.approx([0.6, 6.0, 100.0, 1.0])
    repeated = unipc_step(state, state.velocity, None, torch.tensor([1], dtype=torch.int32))
    assert repeated[0].item() == pytest.approx(1.0)


@pytest.mark.parametrize("sigmas", [[1.0, 0.0], [0.5], [0.5, 0.6], [0.5, -0.1], [0.5, 0.5, 0.0]])
def test_solver_refuses_other_grids(sigmas: list[float]) -> None:
    with pytest.raises(ValueError, match="sigmas must fall"):
        unipc_table(torch.tensor(sigmas))


BAD: dict[str, tuple[str, str, Any, str]] = {
    "dtype": ("adaln", "x", lambda x: x.double(), "x must be float32 or float16 or bfloat16"),
    "shape": ("adaln", "shift", lambda x: x[..., :-1], r"shift must be of shape \[2, 6, 96\]"),
    "transposed": ("rms_norm", "x", lambda x: x.mT.contiguous().mT, "contiguous over its last 1"),
    "strides": ("gated_residual_norm", "gain", lambda x: x.contiguous(), "same strides"),
    "groups": ("gated_residual_norm", "groups", lambda x: None, "groups must be given"),
    "index": ("adaln", "groups", lambda x: x.long(), "groups must be int32, got torch.int64"),
    "rope": ("qk_norm_rope", "rope", lambda x: x[:-1], r"rope must be of shape \[14, 16\]"),
    "heads": (
        "cached_attention",
        "q",
        lambda x: x[..., :24].contiguous(),
        "head_dim must be one of",
    ),
    "full": ("cached_attention_int", "cached", lambda x: 39, "39 cached and 14 new"),
    "library": ("cached_attention", "cached", lambda x: x, "needs cached as an int"),
    "text": ("cross_attention", "text", lambda x: (x[0][:, :0], x[1][:, :0]), "no tokens"),
    "weight": ("fp8_linear_bias", "weight", lambda x: x.half(), "weight must be float32"),
    "gate": ("fp8_linear_gate", "groups", lambda x: None, "groups must be given"),
    "velocity": ("unipc_step", "conditional", lambda x: x[0], "conditional must be of shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals_are_one_line(case: str) -> None:
    name, argument, change, message = BAD[case]
    problem = PROBLEMS[name](Maker(torch.float32, "cpu"), ODD["branches"])
    problem.arguments[argument] = change(problem.arguments[argument])
    with pytest.raises(ValueError, match=message) as caught:
        problem.call("library" if case == "library" else "reference")
    assert "\n" not in str(caught.value)


def test_kernels_need_a_gpu_or_the_interpreter() -> None:
    pytest.importorskip("triton")
    problem = PROBLEMS["adaln"](Maker(torch.float32, "cpu"), ODD["branches"])
    with pytest.raises(ValueError, match="needs CUDA tensors"):
        problem.call("triton")
    with pytest.raises(ValueError, match="backend must be one of auto, triton, reference, got"):
        problem.call("cuda")


def test_preferred_names_backends_that_exist() -> None:
    table = json.loads(common.PREFERRED_FILE.read_text(encoding="utf-8"))
    assert {"cpu", "default"} <= table.keys()
    made = dict(problems(ODD["branches"], torch.bfloat16, "cpu"))
    for key, choices in table.items():
        assert key in ("cpu", "default") or key.removeprefix("sm_").isdigit(), key
        for op, backend in choices.items():
            own = [problem for name, problem in made.items() if operation(name) == op]
            assert any(backend in problem.backends for problem in own), (key, op, backend)


def test_cached_attention_takes_a_number_or_a_tensor() -> None:
    problem = PROBLEMS["cached_attention"](Maker(torch.float32, "cpu"), ODD["branches"])
    (wanted,) = problem.run("reference")
    problem.arguments["cached"] = 13
    assert torch.equal(problem.run("reference")[0], wanted)
    assert relative_error(cached_attention(**problem.arguments), wanted) < 1e-6
