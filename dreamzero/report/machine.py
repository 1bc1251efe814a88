"""What a run record says about the machine: commit, versions, processor or GPU.

Nothing heavy is imported to find out; torch only when a GPU is asked for by name.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from dreamzero import __version__

_PACKAGES = (
    "torch", "triton", "diffusers", "transformers", "accelerate", "peft", "numpy", "safetensors",
    "mujoco", "gymnasium", "av", "pyarrow", "pyserial", "papermill",
)  # fmt: skip
CPUINFO = Path("/proc/cpuinfo")
_SOURCES = ("dreamzero", "kernels", "notebooks", "pyproject.toml")


def git_state() -> dict[str, Any]:
    """``{"commit": hash or None, "dirty": bool or None}`` of the checkout the package runs from.

    ``dirty`` looks at the sources (package, kernels, notebooks), not at generated reports.
    None outside a checkout, also when the package is installed inside somebody else's.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "dreamzero/__init__.py")
        sources = [name for name in _SOURCES if (root / name).exists()]
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--", *sources)),
        }
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def versions() -> dict[str, str]:
    """Versions of Python, this package and what it computes with, without importing any."""
    found = {"python": platform.python_version(), "dreamzero": __version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe_device(device: str) -> str:
    """``"cpu"`` -> "cpu: <processor>, 2 cores"; ``"cuda"`` -> "cuda: NVIDIA H200, 139 GiB"."""
    if re.fullmatch(r"cuda(:\d+)?", device):
        import torch

        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(torch.device(device))
            return f"cuda: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if device == "cpu":
        return f"cpu: {processor()}, {cores()} cores"
    return device


def driver() -> str | None:
    """Version of the NVIDIA driver, None without one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def multiplies_bf16() -> bool:
    """Whether the CPU has instructions for products in bfloat16, by the flags that Linux lists."""
    try:
        flags = CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags) is not None


def processor() -> str:
    """Name of the CPU."""
    try:
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
