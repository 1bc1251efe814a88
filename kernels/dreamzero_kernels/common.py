"""What all operations share: argument checks, the choice of a backend, and kernel launches.

Backends: ``reference`` is plain PyTorch and runs anywhere; ``triton`` runs on CUDA tensors, or on
CPU tensors in Triton's interpreter (``TRITON_INTERPRET=1`` before triton is imported); ``library``
is PyTorch's own fused kernel, where an operation has one. ``auto`` takes what ``preferred.json``
names for the CPU or for the GPU's compute capability: ``dreamzero bench kernels`` measures, and
``--prefer`` writes the faster one there. Nothing in it is measured unless the row says "sm_NN".
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Backend = Literal["auto", "triton", "reference", "library"]

PREFERRED_FILE = Path(__file__).with_name("preferred.json")
FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def check(
    op: str,
    name: str,
    x: Tensor,
    shape: Sequence[int | None],
    dtypes: Sequence[torch.dtype] = FLOATS,
    device: torch.device | None = None,
    contiguous: int = 1,
) -> None:
    """One line of ValueError unless ``x`` has this shape (None: any size), one of these dtypes, sits
    on ``device``, and its last ``contiguous`` axes lie densely in memory (rows may be strided)."""

    def fail(what: str, got: Any) -> None:
        raise ValueError(f"{op}: {name} must be {what}, got {got}")

    if x.ndim != len(shape) or any(
        want not in (None, n) for n, want in zip(x.shape, shape, strict=True)
    ):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        fail(f"of shape [{wanted}]", list(x.shape))
    if x.dtype not in dtypes:
        fail(" or ".join(str(d).removeprefix("torch.") for d in dtypes), x.dtype)
    if device is not None and x.device != device:
        fail(f"on {device}", x.device)
    dense = 1
    for axis in range(x.ndim - 1, x.ndim - 1 - min(contiguous, x.ndim), -1):
        if x.shape[axis] != 1 and x.stride(axis) != dense:
            fail(f"contiguous over its last {contiguous} axes", f"strides {x.stride()}")
        dense *= x.shape[axis]


def same_strides(op: str, names: str, *tensors: Tensor) -> None:
    """ValueError unless all have the same strides (slices of one table have)."""
    if len({x.stride() for x in tensors}) > 1:
        raise ValueError(f"{op}: {names} must have the same strides; call .contiguous() on all")


def require(condition: bool, message: str) -> None:
    """ValueError with ``message`` unless ``condition``."""
    if not condition:
        raise ValueError(message)


@lru_cache
def preferred() -> dict[str, dict[str, str]]:
    """``{"cpu", "default" or "sm_90": {operation: backend}}`` as committed."""
    table: dict[str, dict[str, str]] = json.loads(PREFERRED_FILE.read_text(encoding="utf-8"))
    return table


@lru_cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


@lru_cache
def interpreted() -> bool:
    """Whether kernels run in Triton's CPU interpreter in this process."""
    if not has_triton():
        return False
    import triton

    return bool(triton.knobs.runtime.interpret)


def choose(op: str, x: Tensor, backend: Backend, library: bool = False) -> str:
    """The backend that runs for ``x`` of any shape: "triton", "reference" or "library".

    Raises:
        ValueError: the backend asked for is unknown here or cannot run on this device.
    """
    known = ("auto", "triton", "reference", *(("library",) if library else ()))
    require(backend in known, f"{op}: backend must be one of {', '.join(known)}, got {backend!r}")
    if backend == "auto":
        table = preferred()
        if x.device.type != "cuda":
            return table["cpu"].get(op, "reference")
        here = f"sm_{capability(x)}"
        wanted = table.get(here, {}).get(op) or table["default"].get(op, "triton")
        return wanted if wanted != "triton" or has_triton() else "reference"
    if backend == "triton":
        require(has_triton(), f"{op}: backend 'triton' needs triton: pip install 'triton<3.9'")
        able = x.device.type == "cuda" or _recorded is not None
        require(
            able or (x.device.type == "cpu" and interpreted()),
            f"{op}: backend 'triton' needs CUDA tensors (or TRITON_INTERPRET=1 in the environment "
            f"before triton is imported), got {x.device}",
        )
    return backend


@dataclass(frozen=True)
class Launch:
    """One kernel launch: the kernel, its grid, arguments by name, and Triton's options."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int
    num_stages: int


_recorded: list[Launch] | None = None
_capability = 90


@contextlib.contextmanager
def recording(compute_capability: int) -> Iterator[list[Launch]]:
    """Collect launches instead of running them, as on a GPU of ``compute_capability`` (90 = sm_90).

    With tensors on the meta device this tells, without a GPU and without memory, what would be
    launched; ``resources.py`` compiles exactly that.
    """
    global _recorded, _capability
    before = _recorded, _capability
    _recorded, _capability = [], compute_capability
    try:
        yield _recorded
    finally:
        _recorded, _capability = before


def capability(x: Tensor) -> int:
    """Compute capability of the GPU of ``x``, of any shape, as 80, 90, 100; the recorded one while
    recording.
    """
    if x.device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(x.device)
        return 10 * major + minor
    return _capability


def launch(
    kernel: Any, grid: tuple[int, ...], num_warps: int = 4, num_stages: int = 1, **arguments: Any
) -> None:
    """Run ``kernel`` on the device of its first tensor argument."""
    if _recorded is not None:
        _recorded.append(Launch(kernel, grid, arguments, num_warps, num_stages))
        return
    first = next(x for x in arguments.values() if isinstance(x, Tensor))
    guard = torch.cuda.device_of(first) if first.is_cuda else contextlib.nullcontext()
    with guard:
        kernel[grid](**arguments, num_warps=num_warps, num_stages=num_stages)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least ``n``."""
    return 1 << (n - 1).bit_length()


def row_tile(width: int) -> dict[str, int]:
    """Tile and warps of a kernel that keeps whole rows of ``width`` in registers."""
    block = power_of_two(width)
    return {
        "ROWS": max(1, 2048 // block),
        "BLOCK": block,
        "num_warps": 4 if block <= 2048 else 8,
    }


def group_index(runs: Sequence[tuple[int, int]], device: torch.device | str = "cpu") -> Tensor:
    """Modulation row of each token, int32 ``[l]``, for runs of (groups, tokens a group).

    ``((2, 880), (24, 1), (1, 1))`` is two frames of 880 tokens with a timestep each, 24 actions and
    a state with one of their own. It never changes in an episode: make it once.
    """
    sizes = [repeat for count, repeat in runs for _ in range(count)]
    index = torch.arange(len(sizes), dtype=torch.int32)
    return index.repeat_interleave(torch.tensor(sizes, dtype=torch.int64)).to(device)
