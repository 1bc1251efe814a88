"""What a training leaves: a policy folder, or an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..model.checkpoints.adapters import write_adapter
from ..model.checkpoints.importer import write_robots
from .distributed import whole
from .trained import pairs_and_coders

if TYPE_CHECKING:
    from .loop import Trainer


def write_result(trainer: Trainer) -> None:
    """The policy; of a LoRA training the adapter and its robots. The main process writes.

    The averaged weights are expected to be in place. Sharded weights are gathered one at a time.
    """
    settings, model, main = trainer.settings, trainer.model, trainer.processes.main
    if settings.trained == "lora":
        assert trainer.base is not None
        pairs = pairs_and_coders(model.transformer)
        tensors = {name: whole(value).cpu() for name, value in pairs.items()}
        if main:
            rank, alpha = settings.lora_rank, settings.lora_alpha
            write_adapter(trainer.out, trainer.base, tensors, rank, alpha)
            write_robots(model.robots, trainer.out)
        return
    for module in trainer.modules.values():
        module.eval().requires_grad_(False)
    if trainer.processes.sharded:
        model.transformer = _gathered(model.transformer, trainer.dtype, main)
        if "text_encoder" in trainer.modules:
            model.text_encoder = _gathered(model.text_encoder, torch.float32, main)
    else:
        for parameter in model.transformer.parameters():
            parameter.data = parameter.data.to(trainer.dtype)
    if main:
        model.save(trainer.out)


UNITS = {
    "open_loop_rad": "rad",
    "dream_psnr": "dB",
    "still_psnr": "dB",
    "tokens_per_s": "1/s",
}


def write_record(trainer: Trainer, found: Mapping[str, float]) -> None:
    """``metrics.json``: sizes, time, and what the last evaluation found."""
    record = trainer.record
    count = sum(p.numel() for m in trainer.modules.values() for p in m.parameters())
    trained = sum(p.numel() for p in trainer.parameters.values())
    record.add("parameters", count)
    if trained != count:
        record.add("trained_parameters", trained)
    record.add("steps", trainer.step)
    record.add("training_seconds", round(trainer.seconds, 1), unit="s")
    for name, value in found.items():
        record.add(name, value, unit=UNITS.get(name, ""))
    record.artifact(trainer.out / "log.jsonl")
    record.save(trainer.out)


def _gathered(module: Any, dtype: torch.dtype, main: bool) -> Any:
    """The same network with whole weights on the main process's CPU; without weights elsewhere."""
    found: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        gathered = whole(value)
        if main:
            found[name] = gathered.to("cpu", dtype)
    with torch.device("meta"):
        twin: nn.Module = type(module).from_config(module.config)
    if main:
        twin.load_state_dict(found, assign=True)
    return twin.eval().requires_grad_(False)
