"""How the engine computes. What it computes (steps, guidance, reuse) is ``flow.SamplerConfig``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

import torch

from ..errors import UserError
from ..flow import SamplerConfig

Tier = Literal["exact", "numeric", "approximate"]
Switch = Literal["auto", "on", "off"]

# Four steps and no guidance: what the small models need, at a few milliseconds a step.
FAST = SamplerConfig(steps=4, guidance=1.0)


@dataclass(frozen=True)
class EngineConfig:
    """How the machine is used; the same for all sessions of an engine.

    Attributes:
        precision: "stored" computes in the weights' dtype; "bf16"; "fp8" takes 8-bit floats for the
            matrix products of the blocks (one scale a row of weights and of activations).
        kernels: ``dreamzero_kernels`` between the products; "auto": on a GPU.
        graphs: one captured CUDA graph a window position; "auto": on a GPU.
        encoders: "leave" takes text and image encoder off the GPU as soon as they have been read.
        keep_originals: False moves the matrices that "fp8" replaces to main memory: the model then
            runs through this engine only.
        memory_gib: GiB that all sessions together may take; None: what is free on the device.
    """

    precision: Literal["stored", "bf16", "fp8"] = "stored"
    kernels: Switch = "auto"
    graphs: Switch = "auto"
    encoders: Literal["stay", "leave"] = "stay"
    keep_originals: bool = True
    memory_gib: float | None = None

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            allowed = get_args(hint)
            if all(isinstance(a, str) for a in allowed) and allowed:
                value = getattr(self, name)
                if value not in allowed:
                    raise UserError(f"engine: {name} is one of {', '.join(allowed)}, not {value!r}")
        if self.memory_gib is not None and self.memory_gib <= 0:
            raise UserError(
                f"engine: memory_gib={self.memory_gib}: sessions need more than nothing"
            )

    def uses(self, switch: str, device: torch.device) -> bool:
        """Whether "kernels" or "graphs" are on for ``device``.

        Raises:
            UserError: graphs are asked for where there are none.
        """
        wanted = getattr(self, switch)
        if switch == "graphs" and wanted == "on" and device.type != "cuda":
            raise UserError(f"engine: graphs='on' needs a CUDA device; the model is on {device}")
        return bool(wanted == "on" or (wanted == "auto" and device.type == "cuda"))

    def computes_in(self, stored: torch.dtype) -> torch.dtype:
        """Dtype of activations and of what is not quantised."""
        return torch.bfloat16 if self.precision == "bf16" else stored

    def exact(self, stored: torch.dtype) -> bool:
        """Whether nothing is rounded that the weights' own dtype would keep."""
        return self.precision != "fp8" and self.computes_in(stored) == stored

    def tier(self, sampler: SamplerConfig, stored: torch.dtype) -> Tier:
        """exact: within 1e-3 of the plain path with the same sampler; numeric: rounded further than
        the weights, see the errors beside it; approximate: evaluations or guidance left out."""
        if sampler.approximate:
            return "approximate"
        return "exact" if self.exact(stored) else "numeric"


STORED = EngineConfig()
"""The weights as they are, kernels and graphs where there is a GPU."""
