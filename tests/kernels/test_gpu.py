"""Every kernel on a GPU, where bf16 and fp8 can be tested: odd sizes, 14B sizes, graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dreamzero_kernels.common import FP8, capability
from dreamzero_kernels.problems import (
    PROBLEMS,
    TOLERANCE,
    WAN_14B,
    Maker,
    Problem,
    relative_error,
    tolerance,
)
from torch import Tensor

from .samples import ODD, compare_block

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``torch.empty`` gives out is full of NaN: an element that a kernel forgot shows."""
    plain = torch.empty

    def empty(*args: Any, **options: Any) -> Tensor:
        x = plain(*args, **options)
        return x.fill_(float("nan")) if x.is_floating_point() else x

    monkeypatch.setattr(torch, "empty", empty)


def _problem(name: str, dtype: torch.dtype, size: str) -> Problem:
    if capability(torch.empty(1, device="cuda")) < 89:
        fp8 = "fp8" in name or name == "quantize_rows"
        if fp8 and (dtype == torch.bfloat16 or not name.startswith("fp8_linear")):
            pytest.skip("fp8 needs compute capability 8.9")
    sizes = WAN_14B if size == "14b" else ODD[size]
    return PROBLEMS[name](Maker(dtype, "cuda"), sizes)


def _agree(name: str, problem: Problem, backend: str) -> None:
    found, wanted = problem.run(backend), problem.run("reference")
    torch.cuda.synchronize()
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert relative_error(a, b) < tolerance(name, a), (name, i)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", ODD)
@pytest.mark.parametrize("name", PROBLEMS)
def test_operation_equals_its_reference(name: str, size: str, dtype: torch.dtype) -> None:
    _agree(name, _problem(name, dtype, size), "triton")


@pytest.mark.parametrize("name", PROBLEMS)
def test_at_14b_sizes(name: str) -> None:
    problem = _problem(name, torch.bfloat16, "14b")
    for backend in problem.backends[1:]:
        _agree(name, problem, backend)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_block_of_operations_equals_the_model(dtype: torch.dtype) -> None:
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        limit = 1e-4 if dtype == torch.float32 else 3 * TOLERANCE[dtype]
        assert compare_block(dtype, "cuda", "triton") < limit
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32


def test_graph_follows_the_length_on_the_device() -> None:
    """One captured graph, replayed after the cache has grown."""
    problem = _problem("cached_attention", torch.bfloat16, "branches")
    cached: Tensor = problem.arguments["cached"]
    problem.arguments["k_cache"].nan_to_num_(0.5)
    problem.arguments["v_cache"].nan_to_num_(0.5)
    problem.call("triton")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = problem.call("triton")
    for length in (13, 20, 0):
        cached.fill_(length)
        graph.replay()
        assert relative_error(out, problem.call("reference")) < TOLERANCE[torch.bfloat16]


def test_solver_adds_up_the_same_every_time() -> None:
    """The last program to finish sums: another one each time, the order never."""
    problem = _problem("unipc_step", torch.bfloat16, "14b")
    first = problem.run("triton")
    for _ in range(20):
        assert all(map(torch.equal, problem.run("triton"), first))


def test_fp8_is_what_the_tensor_says() -> None:
    problem = _problem("adaln_fp8", torch.bfloat16, "branches")
    value, scale = problem.run("triton")
    assert value.dtype == FP8 and scale.dtype == torch.float32
    assert value.float().abs().amax(-1).min() == 448
