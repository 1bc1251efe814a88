"""Where bfloat16 pays."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")


def in_bf16(wanted: bool, device: torch.device) -> bool:
    """Whether to multiply in bfloat16: wanted, and on a GPU or a CPU that has instructions for it.

    A CPU without them (AVX512-BF16 or AMX) emulates every product: a training step of the small
    preset then takes thirty times as long as in float32.
    """
    return wanted and (device.type != "cpu" or _multiplies(CPUINFO))


@lru_cache
def _multiplies(cpuinfo: Path) -> bool:
    """Whether this CPU multiplies bfloat16, by the flags that Linux lists."""
    try:
        flags = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags) is not None
