"""Every operation timed side by side: reference, the same compiled, PyTorch's own kernel, ours.

Each result is checked against the reference in the same run, and a speed-up is given only where it
agrees: over the fastest of the alternatives, never over the slowest.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from .common import FP8, PREFERRED_FILE, capability, has_triton, preferred
from .problems import (
    NEEDS_FP8,
    PROBLEMS,
    WAN_14B,
    Maker,
    Problem,
    Sizes,
    relative_error,
    tolerance,
)
from .tiles import TUNED, Tile, candidates, keep, trial

TINY = Sizes(
    batch=1, frames=2, frame=16, actions=8, dim=192, heads=3, ffn=512, cached=112, capacity=153,
    text=16, image=0, latent=(24, 2, 8, 8),
)  # fmt: skip
"""Preset ``tiny``, one branch, the last block of a full window: what a CPU runs."""
_OPERATIONS = ("gated_residual_norm", "qk_norm_rope", "rms_norm", "cached_attention",
               "cross_attention", "fp8_linear", "quantize_rows", "unipc_step", "adaln")  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """Median and 5th to 95th percentile of ``n`` calls, milliseconds."""

    ms: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Ceilings:
    """What this device reaches in the same run: a large copy, and square matrix products.

    Attributes:
        bandwidth: bytes a second, read and written ones counted.
        matrix: floating-point operations a second by dtype of the operands.
    """

    bandwidth: float
    matrix: dict[torch.dtype, float]


@dataclass
class Row:
    """One operation.

    Attributes:
        timings: by backend: "reference", "compiled", "library", "triton".
        errors: largest relative error of a backend's results against the reference's.
        failed: why a backend has no timing, or why its timing does not count.
        bandwidth, matrix: percent of the ceilings by backend; matrix only for products.
    """

    name: str
    shape: str
    timings: dict[str, Timing] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    bandwidth: dict[str, float] = field(default_factory=dict)
    matrix: dict[str, float] = field(default_factory=dict)

    @property
    def wrong(self) -> bool:
        """Whether a result differed from the reference's, or our own kernel broke."""
        ours = self.failed.get("triton", "").startswith("failed")
        return ours or any(why.startswith("differs") for why in self.failed.values())

    @property
    def speedup(self) -> float | None:
        """Fastest alternative over ours; None where ours was not run or did not agree."""
        others = [t.ms for b, t in self.timings.items() if b != "triton" and b not in self.failed]
        if "triton" not in self.timings or "triton" in self.failed or not others:
            return None
        return min(others) / self.timings["triton"].ms


def operation(name: str) -> str:
    """The operation a problem belongs to: "fp8_linear_gelu" -> "fp8_linear"."""
    return next(op for op in _OPERATIONS if name.startswith(op))


def measure(
    device: str,
    names: Sequence[str] = tuple(PROBLEMS),
    compiled: bool = True,
    seconds: float = 0.3,
) -> tuple[Ceilings | None, list[Row]]:
    """Time operations at 14B sizes in bf16 on a GPU, at the tiny model's in fp32 on a CPU.

    Args:
        device: "cpu" or "cuda[:i]".
        names: of ``PROBLEMS``.
        compiled: time ``torch.compile`` of the reference too (tens of seconds a problem on a CPU).
        seconds: spent on each timing.

    Returns:
        the device's ceilings (None for a CPU, in whose caches these small problems live), and a
        row an operation.

    Raises:
        ValueError: a name is unknown.
    """
    for name in names:
        if name not in PROBLEMS:
            raise ValueError(f"no operation {name!r}; there are {', '.join(PROBLEMS)}")
    ceilings = _ceilings(device, seconds) if device.startswith("cuda") else None
    return ceilings, [_row(name, device, ceilings, compiled, seconds) for name in names]


def prefer(rows: Sequence[Row], device: str) -> dict[str, str]:
    """Write into ``preferred.json`` what was faster on this GPU, ours or the library's, over all
    problems of an operation that has both and agrees; returns it."""
    spent: dict[str, dict[str, float]] = {}
    for row in rows:
        if {"triton", "library"} <= row.timings.keys() and not {"triton", "library"} & set(
            row.failed
        ):
            total = spent.setdefault(operation(row.name), {"triton": 0.0, "library": 0.0})
            for backend in total:
                total[backend] += row.timings[backend].ms
    chosen = {op: min(total, key=total.__getitem__) for op, total in spent.items()}
    here = "cpu" if device == "cpu" else f"sm_{capability(torch.empty(1, device=device))}"
    table = {**preferred(), here: {**preferred().get(here, {}), **chosen}}
    lines = [f' "{key}": {json.dumps(value)}' for key, value in table.items()]
    PREFERRED_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    preferred.cache_clear()
    return chosen


def tune(device: str, seconds: float = 0.1) -> dict[str, Tile]:
    """Time every candidate tile of the kernels with matrix products at 14B sizes and write the
    fastest that agrees with the reference into ``tiles.json``; returns them. About a minute each."""
    found: dict[str, Tile] = {}
    compute_capability = capability(torch.empty(1, device=device))
    for name, problem_name in TUNED.items():
        if _too_old(problem_name, device):
            continue
        problem = PROBLEMS[problem_name](Maker(torch.bfloat16, device), WAN_14B)
        wanted = problem.run("reference")
        best = math.inf
        for tile in candidates(name):
            with trial(name, tile):
                ms = _attempt(problem_name, problem, wanted, device, seconds)
            if ms < best:
                best, found[name] = ms, tile
    keep(found, compute_capability)
    return found


def _attempt(
    name: str, problem: Problem, wanted: Sequence[torch.Tensor], device: str, seconds: float
) -> float:
    """Milliseconds of our kernel; infinite where it does not fit the GPU or does not agree."""
    try:
        found = problem.run("triton")
    except _failures():
        return math.inf
    for a, b in zip(found, wanted, strict=True):
        if not relative_error(a, b) <= tolerance(name, a):
            return math.inf
    return _time(partial(problem.call, "triton"), device, seconds).ms


def driver() -> str | None:
    """Version of the GPU's driver, None without one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n")[0].strip()


def _row(name: str, device: str, ceilings: Ceilings | None, compiled: bool, seconds: float) -> Row:
    cuda = device.startswith("cuda")
    dtype, sizes = (torch.bfloat16, WAN_14B) if cuda else (torch.float32, TINY)
    if not cuda and name.startswith("fp8_linear"):
        dtype = torch.bfloat16  # of the results; the operands are fp8
    problem = PROBLEMS[name](Maker(dtype, device), sizes)
    first = next(iter(problem.arguments.values()))
    shape = getattr(first, "sample", first).shape
    row = Row(name, "x".join(map(str, shape)))
    runs: dict[str, Problem] = {b: problem for b in problem.backends}
    if compiled:
        torch._dynamo.reset()
        runs["compiled"] = replace(problem, function=torch.compile(problem.function))
    # All results first: timing an operation that works in place changes its inputs.
    wanted: tuple[torch.Tensor, ...] = ()
    for timing in (False, True):
        for backend in ("reference", "compiled", "library", "triton"):
            if backend not in runs or (timing and backend not in row.errors):
                continue
            real = "reference" if backend == "compiled" else backend
            missing = _missing(name, backend, device)
            if missing:
                row.failed[backend] = missing
                continue
            try:
                if timing:
                    call = partial(runs[backend].call, real)
                    row.timings[backend] = _time(call, device, seconds)
                else:
                    found = runs[backend].run(real)
                    wanted = wanted or found
                    _judge(row, backend, found, wanted)
            except torch.OutOfMemoryError:
                row.failed[backend] = "out of memory"
                if backend == "reference":
                    return row  # nothing to hold the others against
            except _failures() as error:
                text = str(error).strip() or repr(error)
                row.failed[backend] = f"failed: {text.splitlines()[0][:160]}"
        wanted = ()
    if ceilings is not None:
        _percent(row, problem, ceilings)
    return row


def _percent(row: Row, problem: Problem, ceilings: Ceilings) -> None:
    operand = problem.arguments.get("x", problem.arguments.get("q"))
    peak = None if operand is None else ceilings.matrix.get(operand.dtype)
    for backend, timing in row.timings.items():
        row.bandwidth[backend] = 100 * problem.bytes / (timing.ms / 1e3) / ceilings.bandwidth
        if problem.flops and peak:
            row.matrix[backend] = 100 * problem.flops / (timing.ms / 1e3) / peak


def _judge(row: Row, backend: str, found: Sequence[Any], wanted: Sequence[Any]) -> None:
    errors = [relative_error(a, b) for a, b in zip(found, wanted, strict=True)]
    row.errors[backend] = max(errors)
    limits = [tolerance(row.name, a) for a in found]
    if any(not error <= limit for error, limit in zip(errors, limits, strict=True)):
        row.failed[backend] = f"differs from the reference by {max(errors):.1e}: no speed-up given"


def _failures() -> tuple[type[Exception], ...]:
    """What refusals look like: of shapes by the library, of a missing or a failing compiler."""
    if not has_triton():
        return (RuntimeError, ValueError)
    from triton.errors import TritonError

    return (RuntimeError, ValueError, TritonError)


def _missing(name: str, backend: str, device: str) -> str:
    """Why a backend cannot run here, or ""."""
    if backend == "triton" and not (device.startswith("cuda") and has_triton()):
        return "needs a GPU and triton"
    if backend != "reference" and device.startswith("cuda") and _too_old(name, device):
        return "fp8 needs compute capability 8.9 or later"
    return ""


def _too_old(name: str, device: str) -> bool:
    fp8 = name.startswith("fp8_linear") or name in NEEDS_FP8
    return fp8 and capability(torch.empty(1, device=device)) < 89


def _time(call: Callable[[], Any], device: str, seconds: float) -> Timing:
    """On a GPU with a cold L2 cache and by the device's own clock; elsewhere wall time."""
    if device.startswith("cuda"):
        from triton.testing import do_bench

        spent = do_bench(call, warmup=100, rep=int(1000 * seconds), return_mode="all")
    else:
        spent, begin = [], time.perf_counter()
        call()
        while len(spent) < 10 or time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            call()
            spent.append(1e3 * (time.perf_counter() - start))
    # A slow call may have been timed once.
    points = statistics.quantiles(spent, n=20) if len(spent) > 1 else spent * 2
    return Timing(statistics.median(spent), points[0], points[-1], len(spent))


def _ceilings(device: str, seconds: float) -> Ceilings:
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = _time(lambda: target.copy_(source), device, seconds)
    side, ones = 8192, torch.ones(8192, 1, device=device)
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    matrix = {a.dtype: 2e3 * side**3 / _time(lambda: a @ a, device, seconds).ms}
    if capability(source) >= 89:
        b = a.to(FP8)

        def scaled() -> torch.Tensor:
            return torch._scaled_mm(
                b, b.t(), ones, ones.t(), out_dtype=torch.bfloat16, use_fast_accum=True
            )

        matrix[FP8] = 2e3 * side**3 / _time(scaled, device, seconds).ms
    return Ceilings(2e3 * source.numel() / copy.ms, matrix)
