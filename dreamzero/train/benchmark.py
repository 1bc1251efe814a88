"""Measuring a training step on this machine: attention against a dense mask, and what recomputing costs.

Everything that is compared is timed in turn, in one run, forward and backward, and has to agree first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model.attention import TeacherForcing, dense_mask, teacher_forcing_attention
from ..model.presets import preset
from ..model.transformer import DreamZeroTransformer
from ..report.record import RunRecord
from .config import TrainSettings
from .flops import arithmetic, layout_of, peak_flops, seen_pairs
from .plan import default_canvas
from .precision import in_bf16
from .recompute import LiveBytes, set_recompute

# Relative root mean square by which the two attentions may differ, by dtype.
BARS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Timing:
    """Median and quartiles of ``n``, ms."""

    ms: float
    low: float
    high: float
    n: int


def interleaved(
    calls: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device
) -> dict[str, Timing]:
    """Each call in turn, ``repeats`` times, after one of each that does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeats + 1):
        for name, call in calls.items():
            _finish(device)
            began = time.perf_counter()
            call()
            _finish(device)
            if i:
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: _timing(found) for name, found in times.items()}


def _timing(times: list[float]) -> Timing:
    if len(times) < 2:
        return Timing(times[0], times[0], times[0], len(times))
    low, middle, high = statistics.quantiles(times, n=4)
    return Timing(middle, low, high, len(times))


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def attention(
    layout: TeacherForcing,
    heads: int,
    head_dim: int,
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
) -> tuple[dict[str, Timing], float]:
    """Forward and backward of one layer's attention: ours, and one with a mask over everything.

    Returns:
        timings of "blocks" and "mask", and the relative error between their outputs.
    """
    g = torch.Generator().manual_seed(0)
    shape = (1, layout.length, heads, head_dim)
    q, k, v, weight = (torch.randn(shape, generator=g).to(device, dtype) for _ in range(4))
    for x in (q, k, v):
        x.requires_grad_(True)
    mask = dense_mask(layout, device)

    def masked() -> Tensor:
        heads = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)

    def blocks() -> Tensor:
        return teacher_forcing_attention(q, k, v, layout)

    def both(call: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            torch.autograd.grad((call() * weight).sum(), (q, k, v))

        return run

    with torch.no_grad():
        a, b = blocks().float(), masked().float()
        error = float((a - b).norm() / b.norm())
    return interleaved({"blocks": both(blocks), "mask": both(masked)}, repeats, device), error


def measure(
    name: str, device: str, repeats: int = 5, windows: int = 4, bf16: bool = True
) -> RunRecord:
    """All of it for a preset's shapes, on random weights.

    Ratios in the record are of this run. "attention_mask_over_blocks" is how many times as long a dense
    mask takes at the preset's own length, "long_mask_over_blocks" at that of large frames: short
    sequences on a CPU are quicker in one dense product, though it computes three times as much.
    "MODE_time" and "MODE_memory" are of the step that recomputes nothing.

    Args:
        windows: full windows a step.
    """
    config, where = preset(name), torch.device(device)
    bf16 = in_bf16(bf16, where)
    record = RunRecord(
        "bench-train",
        parameters={
            "preset": name, "repeats": repeats, "windows": windows, "bf16": bf16,
            "threads": torch.get_num_threads(),
        },
        seed=0,
        device=device,
    )  # fmt: skip
    height, width = default_canvas(name)
    factor = 16 if name == "wan2.2-5b" else 8
    size = (height // factor, width // factor)
    layout = layout_of(config, size, 4)
    head_dim = config["dim"] // config["num_heads"]
    dtype = torch.bfloat16 if bf16 else torch.float32
    # The released model's sequence where there is a GPU for it; a quarter of its frames elsewhere.
    longer = replace(layout, frame=880 if where.type == "cuda" else 220)
    record.notes |= {"tokens": {"attention": layout.length, "long": longer.length}, "agrees": True}
    for what, each in {"attention": layout, "long": longer}.items():
        timings, error = attention(each, config["num_heads"], head_dim, where, dtype, repeats)
        for path, found in timings.items():
            _add(record, f"{what}_{path}", found)
        record.add(f"{what}_mask_over_blocks", timings["mask"].ms / timings["blocks"].ms)
        record.add(f"{what}_useful_blocks", 1.0)
        record.add(f"{what}_useful_mask", seen_pairs(each) / each.length**2)
        record.add(f"{what}_error", error)
        record.notes["agrees"] &= error <= BARS[dtype]
    _steps(record, name, config, layout, size, where, repeats, windows, bf16)
    return record


def _steps(
    record: RunRecord,
    name: str,
    config: dict[str, Any],
    layout: TeacherForcing,
    size: tuple[int, int],
    device: torch.device,
    repeats: int,
    windows: int,
    bf16: bool,
) -> None:
    """Forward and backward of the whole transformer with each way of recomputing, in turn."""
    settings = TrainSettings(bf16=bf16)
    torch.manual_seed(0)
    with device:
        transformer = DreamZeroTransformer(**config)
    n, g = layout.blocks, torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(windows, *shape, generator=g).to(device)

    text = 512 if config["text_dim"] > 1000 else 12
    clean = normal(config["out_channels"], 1 + 2 * n, *size)
    extra = config["in_channels"] - config["out_channels"]
    first = normal(extra, 1 + 2 * n, *size) if extra else None
    words, state = normal(text, config["text_dim"]), normal(n, config["state_dim"])
    image = normal(257, config["image_dim"]) if config.get("image_dim") else None
    action = normal(n * config["horizon"], config["action_dim"])
    times = torch.full((windows, 2 * n), 500.0, device=device)
    action_times = torch.full(action.shape[:2], 500.0, device=device)

    def step(how: str) -> Callable[[], None]:
        def run() -> None:
            set_recompute(transformer.blocks, how)
            transformer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
                video, moves = transformer(
                    clean[:, :, 1:], clean, times, transformer.embed_context(words, image), action,
                    action_times, state, first,
                )  # fmt: skip
            assert moves is not None
            (video.float().square().mean() + moves.float().square().mean()).backward()  # type: ignore[no-untyped-call]

        return run

    steps = {how: step(how) for how in ("none", "selective", "full")}
    memory = {how: _peak(call, device) for how, call in steps.items()}
    timings = interleaved(steps, repeats, device)
    peak, origin = peak_flops(device, bf16)
    record.notes["peak_flops"] = {"value": peak, "from": origin}
    one = arithmetic(config, layout, text, 257)
    for how, found in timings.items():
        _add(record, f"step_{how}", found)
        record.add(f"{how}_memory", memory[how] / memory["none"])
        record.add(f"{how}_time", found.ms / timings["none"].ms)
        record.add(f"{how}_peak", memory[how] / 1e9, unit="GB")
    seconds = timings["none"].ms / 1e3
    record.add("tokens_per_s", windows * one.tokens / seconds, unit="1/s")
    record.add("mfu", windows * one.step / seconds / peak)


def _peak(call: Callable[[], None], device: torch.device) -> float:
    """Bytes that a step makes at most, gradients included."""
    if device.type == "cuda":
        call()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return float(torch.cuda.max_memory_allocated(device) - before)
    with LiveBytes() as live:
        call()
    return float(live.peak)


def _add(record: RunRecord, name: str, found: Timing) -> None:
    record.add(name, found.ms, unit="ms", n=found.n, low=found.low, high=found.high)
