"""Inputs for every operation at any size: what the tests, the resource table and the benchmark run.

A problem is made on any device; on ``meta`` it has shapes and no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .adaln import adaln, adaln_fp8
from .cached_attention import cached_attention
from .common import FP8, group_index
from .cross_attention import cross_attention
from .fp8_linear import fp8_linear, quantize_rows
from .gated_residual_norm import gated_residual_norm, gated_residual_norm_fp8
from .qk_norm_rope import qk_norm_rope, rms_norm
from .unipc_step import SolverState, solver_state, unipc_step


@dataclass(frozen=True)
class Sizes:
    """One denoising evaluation: branches, new tokens, width, and what is attended to.

    Attributes:
        frames, frame: latent frames of the new block, and tokens in each.
        cached: tokens in the KV buffer before the new ones.
        latent: shape of one branch's video latent ``(c, f, h, w)``.
    """

    batch: int = 2
    frames: int = 2
    frame: int = 880
    actions: int = 24
    dim: int = 5120
    heads: int = 40
    ffn: int = 13824
    cached: int = 7 * 880
    capacity: int = 9 * 880 + 25
    text: int = 512
    image: int = 257
    latent: tuple[int, int, int, int] = (16, 2, 44, 80)

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        return ((self.frames, self.frame), (self.actions, 1), (1, 1))

    @property
    def groups(self) -> int:
        return sum(count for count, _ in self.runs)

    @property
    def length(self) -> int:
        return sum(count * repeat for count, repeat in self.runs)

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


WAN_14B = Sizes()
"""Preset ``wan2.1-14b-droid``, both guidance branches, the last block of a full window."""


@dataclass
class Problem:
    """A call of one operation.

    Attributes:
        function: public function, called with ``arguments`` and ``backend``.
        mutated: names of arguments that are written in place: results like what is returned.
        flops: multiplications and additions of matrix products, 0 where memory decides.
        bytes: least that has to be read and written, each once.
    """

    function: Callable[..., Any]
    arguments: dict[str, Any]
    flops: float
    bytes: float
    mutated: tuple[str, ...] = ()
    library: bool = False
    backends: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.backends = ("reference", "triton", *(("library",) if self.library else ()))

    def run(self, backend: str) -> tuple[Tensor, ...]:
        """All results, in-place ones as copies: the problem stays as it was."""
        arguments = dict(self.arguments)
        for name in self.mutated:
            arguments[name] = _copy(arguments[name])
        out = self.function(**arguments, backend=backend)
        results = list(out) if isinstance(out, tuple) else [out]
        for name in self.mutated:
            changed = arguments[name]
            if isinstance(changed, SolverState):
                results += [changed.sample, changed.velocity, changed.history]
            else:
                results.append(changed)
        return tuple(results)

    def call(self, backend: str) -> Any:
        """The bare call, for timing: in-place arguments change."""
        return self.function(**self.arguments, backend=backend)


def _copy(x: Any) -> Any:
    if isinstance(x, SolverState):
        return SolverState(**{name: value.clone() for name, value in vars(x).items()})
    return x.clone()


class Maker:
    """Random tensors of one dtype on one device, the same for the same seed."""

    def __init__(self, dtype: torch.dtype, device: torch.device | str, seed: int = 0) -> None:
        self.dtype, self.device = dtype, torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        # Big problems are drawn where they live; small ones are the same on every device.
        if self.device.type == "cuda":
            self.generator = torch.Generator(self.device).manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        """Normal numbers of this shape, times ``scale``."""
        if self.device.type == "meta":
            return torch.empty(shape, dtype=dtype or self.dtype, device="meta")
        x = torch.randn(shape, generator=self.generator, device=self.device)
        return (x * scale).to(dtype or self.dtype)

    def index(self, value: int) -> Tensor:
        """One number as int32 ``[1]`` on the device."""
        return torch.full((1,), value, dtype=torch.int32, device=self.device)

    def rope(self, length: int, head_dim: int) -> Tensor:
        angle = self.normal(length, head_dim // 2, scale=3.0, dtype=torch.float32)
        return torch.complex(angle.cos(), angle.sin())

    def quantized(self, *shape: int) -> tuple[Tensor, Tensor]:
        """float8 for bfloat16 problems, the same arithmetic in the problem's dtype otherwise."""
        x = self.normal(*shape, dtype=torch.float32)
        if self.dtype == torch.bfloat16:
            if self.device.type == "meta":
                return x.to(FP8), self.normal(*shape[:-1], dtype=torch.float32)
            return quantize_rows(x, backend="reference")
        scale = self.normal(*shape[:-1], scale=0.3, dtype=torch.float32)
        return x.to(self.dtype), 1 + scale


def _rows(make: Maker, s: Sizes) -> Tensor:
    return make.normal(s.batch, s.length, s.dim)


def _table(make: Maker, s: Sizes) -> tuple[Tensor, ...]:
    """Six modulation vectors a group, as slices of one table."""
    return make.normal(s.batch, s.groups, 6, s.dim, scale=0.3).unbind(2)


def _adaln(make: Maker, s: Sizes, fp8: bool = False) -> Problem:
    x, groups = _rows(make, s), group_index(s.runs, make.device)
    shift, scale, *_ = _table(make, s)
    arguments = {"x": x, "scale": scale, "shift": shift, "groups": groups}
    each = x.element_size()
    return Problem(
        adaln_fp8 if fp8 else adaln, arguments, 0, x.numel() * (each + (1 if fp8 else each))
    )


def _gated(make: Maker, s: Sizes, modulated: bool, fp8: bool = False) -> Problem:
    x, y, groups = _rows(make, s), _rows(make, s), group_index(s.runs, make.device)
    _, _, gate, shift, scale, _ = _table(make, s)
    if not modulated:
        scale, shift = make.normal(s.dim), make.normal(s.dim)
    arguments = {
        "x": x, "y": y, "gate": gate, "gain": scale, "offset": shift, "groups": groups,
    }  # fmt: skip
    each = x.element_size()
    size = x.numel() * (3 * each + (1 if fp8 else each))
    return Problem(gated_residual_norm_fp8 if fp8 else gated_residual_norm, arguments, 0, size)


def _qk_norm_rope(make: Maker, s: Sizes) -> Problem:
    q, k, v = make.normal(s.batch, s.length, 3 * s.dim).split(s.dim, dim=-1)
    cache = make.normal(2, s.batch, s.capacity, s.heads, s.head_dim)
    arguments = {
        "q": q, "k": k, "v": v, "weight_q": make.normal(s.dim), "weight_k": make.normal(s.dim),
        "rope": make.rope(s.length, s.head_dim), "k_cache": cache[0], "v_cache": cache[1],
        "offset": make.index(s.cached),
    }  # fmt: skip
    size = 6 * q.numel() * q.element_size() + s.length * s.head_dim * 4
    return Problem(qk_norm_rope, arguments, 0, size, mutated=("k_cache", "v_cache"))


def _rms_norm(make: Maker, s: Sizes) -> Problem:
    x = _rows(make, s)
    return Problem(
        rms_norm, {"x": x, "weight": make.normal(s.dim)}, 0, 2 * x.numel() * x.element_size()
    )


def _cached_attention(make: Maker, s: Sizes) -> Problem:
    q = make.normal(s.batch, s.length, s.heads, s.head_dim)
    cache = make.normal(2, s.batch, s.capacity, s.heads, s.head_dim)
    total = s.cached + s.length
    if make.device.type != "meta":
        cache[:, :, total:] = float("nan")  # never read
    arguments = {"q": q, "k_cache": cache[0], "v_cache": cache[1], "cached": make.index(s.cached)}
    flops = 4.0 * s.batch * s.length * total * s.dim
    size = 2.0 * s.batch * (s.length + total) * s.dim * q.element_size()
    return Problem(cached_attention, arguments, flops, size)


def _cached_attention_int(make: Maker, s: Sizes) -> Problem:
    """With the length known on the host: what the library's kernel needs."""
    problem = _cached_attention(make, s)
    arguments = {**problem.arguments, "cached": s.cached}
    return Problem(cached_attention, arguments, problem.flops, problem.bytes, library=True)


def _cross_attention(make: Maker, s: Sizes) -> Problem:
    q = make.normal(s.batch, s.length, s.heads, s.head_dim)
    pairs = [make.normal(2, s.batch, n, s.heads, s.head_dim) for n in (s.text, s.image) if n]
    arguments = {"q": q, "text": (pairs[0][0], pairs[0][1])}
    if len(pairs) == 2:
        arguments["image"] = (pairs[1][0], pairs[1][1])
    seen = s.text + s.image
    flops = 4.0 * s.batch * s.length * seen * s.dim
    size = 2.0 * s.batch * (s.length + seen) * s.dim * q.element_size()
    return Problem(cross_attention, arguments, flops, size, library=True)


def _fp8_linear(make: Maker, s: Sizes, part: str) -> Problem:
    inner, columns = {"bias": (s.dim, 3 * s.dim), "gelu": (s.dim, s.ffn), "gate": (s.ffn, s.dim)}[
        part
    ]
    x, x_scale = make.quantized(s.batch, s.length, inner)
    weight, weight_scale = make.quantized(columns, inner)
    arguments: dict[str, Any] = {
        "x": x, "x_scale": x_scale, "weight": weight, "weight_scale": weight_scale,
        "bias": make.normal(columns), "out_dtype": make.dtype,
    }  # fmt: skip
    rows = s.batch * s.length
    each = torch.empty((), dtype=make.dtype).element_size()
    size = x.element_size() * inner * (rows + columns) + each * rows * columns
    if part == "gelu":
        arguments["gelu"] = True
    if part == "gate":
        arguments["gate"] = _table(make, s)[5]
        arguments["groups"] = group_index(s.runs, make.device)
        arguments["residual"] = _rows(make, s)
        size += each * rows * columns
    library = make.dtype == torch.bfloat16 and inner % 16 == 0 and columns % 16 == 0
    return Problem(fp8_linear, arguments, 2.0 * rows * inner * columns, size, library=library)


def _quantize_rows(make: Maker, s: Sizes) -> Problem:
    x = make.normal(s.batch, s.length, s.ffn)
    return Problem(quantize_rows, {"x": x}, 0, x.numel() * (x.element_size() + 1))


def _unipc_step(make: Maker, s: Sizes) -> Problem:
    noise = make.normal(1, *s.latent, dtype=torch.float32)
    state = solver_state(noise, torch.tensor([0.95, 0.8, 0.6, 0.3, 0.0]))
    if make.device.type != "meta":
        state.history.copy_(make.normal(*state.history.shape, dtype=torch.float32))
        state.velocity.copy_(make.normal(*noise.shape, dtype=torch.float32))
    arguments = {
        "state": state, "conditional": make.normal(*noise.shape),
        "unconditional": make.normal(*noise.shape), "step": make.index(2), "guidance": 5.0,
    }  # fmt: skip
    each = arguments["conditional"].element_size()  # type: ignore[attr-defined]
    return Problem(
        unipc_step, arguments, 0, noise.numel() * (2 * each + 10 * 4), mutated=("state",)
    )


PROBLEMS: dict[str, Callable[[Maker, Sizes], Problem]] = {
    "adaln": _adaln,
    "adaln_fp8": lambda make, s: _adaln(make, s, fp8=True),
    "gated_residual_norm_affine": lambda make, s: _gated(make, s, modulated=False),
    "gated_residual_norm": lambda make, s: _gated(make, s, modulated=True),
    "gated_residual_norm_fp8": lambda make, s: _gated(make, s, modulated=True, fp8=True),
    "qk_norm_rope": _qk_norm_rope,
    "rms_norm": _rms_norm,
    "cached_attention": _cached_attention,
    "cached_attention_int": _cached_attention_int,
    "cross_attention": _cross_attention,
    "fp8_linear_bias": lambda make, s: _fp8_linear(make, s, "bias"),
    "fp8_linear_gelu": lambda make, s: _fp8_linear(make, s, "gelu"),
    "fp8_linear_gate": lambda make, s: _fp8_linear(make, s, "gate"),
    "quantize_rows": _quantize_rows,
    "unipc_step": _unipc_step,
}
"""Name -> how to make the problem. A name begins with its operation's."""

NEEDS_FP8 = ("adaln_fp8", "gated_residual_norm_fp8", "quantize_rows")
"""Problems whose result is float8, whatever the dtype of the problem."""


def problems(
    sizes: Sizes, dtype: torch.dtype, device: torch.device | str, seed: int = 0
) -> Iterator[tuple[str, Problem]]:
    """Every problem at these sizes, one at a time (they are large)."""
    for name, make in PROBLEMS.items():
        yield name, make(Maker(dtype, device, seed), sizes)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Relative RMS error, any shape; infinite where one is NaN and the other is not."""
    found, wanted = found.double(), wanted.double()
    if not torch.equal(found.isnan(), wanted.isnan()):
        return float("inf")
    found, wanted = found.nan_to_num(0.0), wanted.nan_to_num(0.0)
    scale = wanted.square().mean().sqrt().clamp_min(1e-12)
    return float((found - wanted).square().mean().sqrt() / scale)


TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3, FP8: 2e-2}
"""Relative RMS error allowed, by dtype of the result: what rounding alone may do."""


def tolerance(name: str, result: Tensor) -> float:
    """Relative RMS error allowed for one result (of any shape) of the problem ``name``."""
    if name.startswith("fp8_linear") and result.dtype == torch.bfloat16:
        return 2e-2  # Hopper's tensor cores keep about 14 bits of a sum of fp8 products
    if "attention" in name and result.dtype == torch.float32:
        return 1e-5  # exponentials and long sums
    return TOLERANCE[result.dtype]
