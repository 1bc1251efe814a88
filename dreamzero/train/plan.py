"""What a training will cost, before anyone rents anything: memory a GPU, FLOPs and seconds a step, days.

Nothing is allocated: parameters are counted on torch's meta device, activations by a formula that
``tests/train/test_plan.py`` holds against bytes counted in a real backward pass, and time is arithmetic
divided by an assumed share of the data sheet's peak. The same tests hold the whole against what others
published about the 14B model (``stacks.PUBLISHED``). What it does not see: kernels that are too small to
fill a GPU (a 5B model at one window a GPU takes 1.8 s by RLinf's account, eight times its arithmetic), slow
data, and stragglers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import torch

from ..errors import UserError
from ..model.presets import ENCODERS, UMT5_XXL, preset
from .config import Source, TrainSettings
from .flops import Arithmetic, arithmetic, layout_of
from .stacks import CONTEXT_GB, FRAGMENTS, GPUS, GPUS_A_MACHINE, NETWORK, Stack

GB = 1e9


@dataclass(frozen=True)
class Count:
    """Parameters: all, trained, trained matrices inside blocks, of one block, outside of blocks."""

    all: int
    trained: int
    matrices: int
    block: int
    outside: int


@dataclass(frozen=True)
class Plan:
    """See ``plan``. Memory in GB a GPU by what takes it; the rest as named."""

    memory_gb: dict[str, float]
    capacity_gb: float
    parameters: int
    trained: int
    tokens_a_window: int
    windows_a_step: float
    useful_attention: float
    pflop_a_step: float
    seconds: dict[str, float]
    steps: int
    gpus: int
    assumed: list[str] = field(default_factory=list)

    @property
    def total_gb(self) -> float:
        """Memory on a GPU, GB."""
        return sum(self.memory_gb.values())

    @property
    def fits(self) -> bool:
        """Whether that is no more than a GPU has."""
        return self.total_gb <= self.capacity_gb

    @property
    def step_s(self) -> float:
        """Arithmetic and communication overlap; the optimiser comes after them."""
        overlapped = max(self.seconds["arithmetic"], self.seconds["communication"])
        return overlapped + self.seconds["optimiser"]

    @property
    def days(self) -> float:
        """Duration of all steps, days."""
        return self.steps * self.step_s / 86400

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return vars(self) | {
            "total_gb": self.total_gb,
            "fits": self.fits,
            "step_s": self.step_s,
            "days": self.days,
            "gpu_hours": 24 * self.days * self.gpus,
        }


@lru_cache
def count(name: str, trained: Literal["all", "coders", "lora"] = "all", rank: int = 4) -> Count:
    """Parameters of a preset and of what is trained, without allocating any."""
    from types import SimpleNamespace

    from ..model.transformer import DreamZeroTransformer
    from .trained import networks

    config = preset(name)
    with torch.device("meta"):
        transformer = DreamZeroTransformer(**config)
        model: Any = SimpleNamespace(transformer=transformer, text_encoder=None)
        networks(model, TrainSettings(trained=trained, lora_rank=rank))
    named = list(transformer.named_parameters())
    own = [(n, p) for n, p in named if p.requires_grad]
    inside = [p for n, p in own if n.startswith("blocks.") and ".lora_" not in n]
    total = sum(p.numel() for _, p in named)
    blocks = sum(p.numel() for n, p in named if n.startswith("blocks."))
    return Count(
        total,
        sum(p.numel() for _, p in own),
        sum(p.numel() for p in inside if p.ndim == 2),
        blocks // config["num_layers"],
        total - blocks,
    )


def activations(
    config: Mapping[str, Any], tokens: int, seen: float, recompute: str, every: int = 1
) -> tuple[float, float]:
    """Bytes of one window that wait for the backward pass, and that come on top within it.

    Coefficients are bytes a token of our block under bf16 autocast with fused attention.

    Args:
        tokens: in the sequence; seen: keys and values joined for its queries, in tokens.
    """
    dim, ffn, layers = config["dim"], config["ffn_dim"], config["num_layers"]
    image = 2 if config.get("image_dim") else 0
    whole = tokens * ((70 + image) * dim + 4 * ffn) + 4 * seen * dim
    kept = {
        "none": whole,
        "selective": tokens * ((20.5 + image) * dim + 2 * ffn),
        "full": 2.0 * tokens * dim,
    }[recompute]
    again = -(-layers // every) if recompute != "none" else 0
    held = again * kept + (layers - again) * whole
    # Gradients of a block's widest tensors, and the block that is computed again.
    working = tokens * (12 * dim + 4 * ffn) + (whole - kept if again else 0)
    return held, working


def plan(
    name: str,
    settings: TrainSettings,
    gpu: str = "H100",
    gpus: int = 8,
    *,
    canvas_px: tuple[int, int] | None = None,
    text_tokens: int | None = None,
    utilisation: float | None = None,
    stack: Stack | None = None,
) -> Plan:
    """Memory, arithmetic and time of a training.

    Args:
        name: preset of the transformer.
        settings: batches, what is trained, sharding, recomputation, optimiser, steps.
        canvas_px: (height, width) of the frames; by default that of the preset's robots.
        utilisation: share of the peak, in place of the assumed one.

    Raises:
        UserError: unknown preset or GPU, or batches smaller than the pieces they are cut into.
    """
    if gpu not in GPUS:
        raise UserError(f"--gpu {gpu}: known are {', '.join(GPUS)}")
    if gpus < 1:
        raise UserError(f"--gpus {gpus}: must be at least 1")
    stack, kind, config = stack or Stack(), GPUS[gpu], preset(name)
    settings = replace(settings, sharding="none") if gpus == 1 else settings
    sizes = count(name, settings.trained, settings.lora_rank)
    parts = gpus * settings.accumulate
    height, width = canvas_px or default_canvas(name)
    factor = 16 if name == "wan2.2-5b" else 8
    size = (height // factor, width // factor)
    text = text_tokens or (512 if name in ENCODERS else 12)
    kinds: list[tuple[Source, Arithmetic, float]] = []
    for source in (settings.full, settings.first):
        if source.batch < 1:
            continue
        if source.batch < parts:
            raise UserError(
                f"a batch of {source.batch} cannot be cut into {parts} pieces ({gpus} GPUs, "
                f"train.accumulate={settings.accumulate}): set train.full.batch and "
                "train.first.batch (0 leaves that kind out)"
            )
        kinds.append((source, *_sequence(config, size, source.blocks, settings, stack, text)))
    memory, once = _memory(config, settings, stack, sizes, gpus), 1 / len(kinds)
    worst = (0.0, 0.0)
    flops = tokens = windows = pairs = dense = 0.0
    for source, one, seen in kinds:
        a_piece = -(-source.batch // parts)
        found = activations(config, one.tokens, seen, settings.recompute, settings.recompute_every)
        worst = max(worst, (a_piece * found[0], a_piece * found[1]), key=sum)
        flops += once * source.batch * _work(config, one, settings, stack, name)
        tokens, windows = max(tokens, one.tokens), windows + once * source.batch
        pairs += source.batch * one.attention
        dense += source.batch * one.dense_attention
    memory["activations"], memory["working set"] = worst[0] / GB, worst[1] / GB
    memory["fragments"] = FRAGMENTS * sum(memory.values())
    memory["CUDA and NCCL"] = CONTEXT_GB
    reached = utilisation or kind.utilisation
    moved = _moved(settings, stack, sizes, gpus) * (
        settings.accumulate if settings.sharding == "full" else 1
    )
    link = kind.link if gpus <= GPUS_A_MACHINE else NETWORK
    shards = gpus if settings.sharding == "full" or stack.divided == "gradients" else 1
    stepped = sizes.trained * (
        2 * (stack.weights + stack.optimizer + stack.average) + stack.gradients
    )
    return Plan(
        memory_gb=memory,
        capacity_gb=kind.memory_gb,
        parameters=sizes.all,
        trained=sizes.trained,
        tokens_a_window=int(tokens),
        windows_a_step=windows,
        useful_attention=pairs / dense,
        pflop_a_step=flops / 1e15,
        seconds={
            "arithmetic": flops / gpus / (kind.peak * reached),
            "communication": moved / link,
            "optimiser": stepped / shards / kind.bandwidth,
        },
        steps=settings.steps,
        gpus=gpus,
        assumed=[
            f"{gpu}: {kind.peak / 1e12:.0f} TFLOP/s bf16, of which a step reaches {reached:.0%}",
            f"{link / 1e9:.0f} GB/s a GPU for collectives, which overlap with arithmetic",
            f"{CONTEXT_GB:g} GB for CUDA and NCCL, {FRAGMENTS:.0%} lost to fragments",
            f"frames of {height} x {width} px, {text} tokens of text; latents encoded beforehand",
            "kernels that fill the GPU: those of small models, or of one small window, do not",
        ],
    )  # fmt: skip


def default_canvas(name: str) -> tuple[int, int]:
    """Frames of the preset's robots (MODEL.md 1), px."""
    return {"wan2.2-5b": (160, 320), "tiny": (64, 64), "small": (64, 64)}.get(name, (352, 640))


def _sequence(
    config: Mapping[str, Any],
    size: tuple[int, int],
    blocks: int,
    settings: TrainSettings,
    stack: Stack,
    text: int,
) -> tuple[Arithmetic, float]:
    """Arithmetic of a window, and keys and values joined for its queries, in tokens."""
    released = stack.released_sequence
    layout = layout_of(config, size, blocks, True, settings.first_frame or released)
    seen = sum(layout.past(i).stop + layout.block + layout.actions + 1 for i in range(blocks))
    seen += sum(layout.clean(i).stop for i in range(-1, layout.clean_blocks))
    if not released:
        return arithmetic(config, layout, text), float(seen)
    extra = replace(layout, blocks=blocks + 1)  # its clean video is one block longer
    one, longer = arithmetic(config, layout, text), arithmetic(config, extra, text)
    share = layout.block / (extra.length - layout.length)
    last = 4.0 * config["dim"] * config["num_layers"] * layout.block * extra.clean_video
    found = Arithmetic(
        one.products + share * (longer.products - one.products),
        one.attention + last,
        one.dense_attention * ((layout.length + layout.block) / layout.length) ** 2,
        layout.length + layout.block,
    )
    return found, float(seen + extra.clean_video)


def _work(
    config: Mapping[str, Any],
    one: Arithmetic,
    settings: TrainSettings,
    stack: Stack,
    name: str,
) -> float:
    """FLOPs of a window, with what is computed again and, if they run, text and image encoders."""
    again = 1 / settings.recompute_every if settings.recompute == "full" else 0.0
    if settings.recompute == "selective":
        again = 0.02  # norms and gates: hardly any arithmetic
    # Weights that stay need no gradient of their own: a third of the backward pass of products less.
    backward = 2.0 if settings.trained == "all" else 1.0
    work = one.products * (1 + backward + again) + one.attention * (3 + again)
    if stack.encoders and name in ENCODERS:
        work += 2 * 512 * text_parameters() + 2 * 257 * 0.63e9
    return work


def text_parameters() -> float:
    """Of UMT5-XXL's encoder without its table of words."""
    t = UMT5_XXL
    inner = t["num_heads"] * t["d_kv"]
    return float(t["num_layers"] * t["d_model"] * (4 * inner + 3 * t["d_ff"]))


def _memory(
    config: Mapping[str, Any], settings: TrainSettings, stack: Stack, sizes: Count, gpus: int
) -> dict[str, float]:
    """GB that do not depend on the batch."""
    trained, frozen = sizes.trained, sizes.all - sizes.trained
    full = settings.sharding == "full"
    late = gpus if full or stack.divided == "gradients" else 1
    optimizer = stack.optimizer * trained
    if settings.optimizer == "muon":
        optimizer -= 4 * sizes.matrices  # one momentum, no second moment
    gathered = 0.0
    if full:
        # Two blocks on their way, what lies outside of blocks, and one block's gradients, twice.
        share = trained / sizes.all
        gathered = 2 * (2 * sizes.block + sizes.outside) + 6 * share * sizes.block
    elif stack.weights == 4:
        gathered = 2.0 * trained  # autocast's bf16 copies
    own = gpus if full else 1
    memory = {
        "weights": (stack.weights * trained + stack.frozen * frozen) / own,
        "gradients": stack.gradients * trained / late,
        "optimiser": optimizer / late,
        "average": stack.average * trained / own,
        "gathered weights": gathered,
        "buffers": stack.buffers_gb * GB,
        "encoders": 2 * 6.44e9 if stack.encoders else 0.0,
    }
    return {name: value / GB for name, value in memory.items() if value}


def _moved(settings: TrainSettings, stack: Stack, sizes: Count, gpus: int) -> float:
    """Bytes each GPU sends in one pass over the weights, as rings do."""
    ring = (gpus - 1) / gpus
    if settings.sharding == "full":
        return ring * (2 * 2 * sizes.all + 4 * sizes.trained)
    return ring * 2 * stack.gradients * sizes.trained if gpus > 1 else 0.0
