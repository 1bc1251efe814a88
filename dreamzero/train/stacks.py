"""GPUs and trainers as a plan knows them, and what was published of both."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .config import Source, TrainSettings
from .flops import PEAKS


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU. Peaks, memory and bandwidths are of data sheets; what is assumed says so.

    Attributes:
        memory_gb, bandwidth: GB, and bytes/s of its memory.
        link: bytes/s to the others of its machine that collectives are assumed to reach.
        utilisation: share of the peak that a step is assumed to reach, recomputation counted as work.
    """

    name: str
    memory_gb: float
    bandwidth: float
    link: float
    utilisation: float

    @property
    def peak(self) -> float:
        """Dense bf16 FLOP/s."""
        return PEAKS[self.name]


# Utilisation: on 8 H100, eager FSDP2 without tuning takes 9.0 s a step of one window a GPU (RLinf's
# documentation, "DreamZero SFT", FSDP2 Base) and 8.7 s (FlagScale's training guide): 0.21. RLinf's
# tuned path (6.7 s) reaches 0.28. The other kinds are assumed, not published: Hopper as H100, older
# ones higher and newer ones lower, as peaks have outgrown memory.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A100", 80, 2.0e12, 200e9, 0.30),
        Gpu("H100", 80, 3.35e12, 300e9, 0.21),
        Gpu("H200", 141, 4.8e12, 300e9, 0.21),
        Gpu("B200", 180, 8.0e12, 600e9, 0.16),
        Gpu("GB200", 186, 8.0e12, 600e9, 0.16),
        Gpu("B300", 270, 8.0e12, 600e9, 0.16),
    )
}
GPUS_A_MACHINE, NETWORK = 8, 40e9  # bytes/s a GPU between machines: a 400 Gbit/s card each, 80 %


@dataclass(frozen=True)
class Stack:
    """What a trainer keeps, bytes a parameter; the defaults are ours on a GPU.

    Attributes:
        weights: of trained ones (float32, what the optimiser steps); frozen: of the others.
        gradients, optimizer, average: of trained ones.
        divided: what "full" sharding divides ("all"), or what ZeRO-2 does ("gradients").
        encoders: whether text, image and video encoders stay on the GPU and run at every step.
        released_sequence: also the clean last block and the noisy first frame.
        buffers_gb: communication buffers.
    """

    weights: float = 4
    frozen: float = 2
    gradients: float = 4
    optimizer: float = 8
    average: float = 4
    divided: str = "all"
    encoders: bool = False
    released_sequence: bool = False
    buffers_gb: float = 0.0


CONTEXT_GB = 2.0  # CUDA, cuBLAS and NCCL themselves
FRAGMENTS = 0.05  # of everything else


@dataclass(frozen=True)
class Published:
    """A measurement of somebody else, and how to plan the same training.

    Attributes:
        seconds: a step; gb: memory a GPU; None where it was not said.
    """

    source: str
    settings: TrainSettings
    stack: Stack
    gpu: str = "H100"
    preset: str = "wan2.1-14b-droid"
    utilisation: float | None = None
    seconds: float | None = None
    gb: float | None = None


_FSDP2 = Stack(average=0, encoders=True, released_sequence=True)
# The release trains under DeepSpeed ZeRO-2: bf16 weights everywhere, gradients and optimiser divided.
_ZERO2 = Stack(
    weights=2, gradients=2, optimizer=12, average=0, divided="gradients", encoders=True,
    released_sequence=True, buffers_gb=3.0,
)  # fmt: skip
_ONE_EACH = TrainSettings(
    optimizer="adamw", full=Source(batch=8), first=Source(blocks=1, batch=0), first_frame=True,
    sharding="full", recompute="full",
)  # fmt: skip
_REPLICATED = replace(_ONE_EACH, sharding="none")
# Eight GPUs, one window each. The first is where the utilisation of the H100 is from; memory and the
# optimised path's lead are not fitted.
PUBLISHED = (
    Published("RLinf, FSDP2 Base", _ONE_EACH, _FSDP2, seconds=9.0),
    Published("RLinf, tuned", _ONE_EACH, _FSDP2, utilisation=0.28, seconds=6.7),
    Published(
        "FlagScale, FSDP2", _ONE_EACH, _FSDP2, preset="wan2.1-14b-agibot", seconds=8.7, gb=65
    ),
    Published("dreamzero issue 56, full", _REPLICATED, _ZERO2, gpu="H200", gb=110),
    Published("LoRA, batch 1", replace(_REPLICATED, trained="lora"), _ZERO2, gb=73),
)
