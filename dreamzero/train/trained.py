"""Which weights of a model are trained, and in what number format the others wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..model.bundle import WorldActionModel
from ..model.checkpoints.layouts import CODERS
from ..model.text import WordEncoder
from ..model.transformer import DreamZeroTransformer
from .config import LORA_TARGETS, TrainSettings


def networks(model: WorldActionModel, settings: TrainSettings) -> dict[str, nn.Module]:
    """The networks that training touches, gradients on where they are asked for.

    With "lora" the transformer's matrices get their pairs here (peft's, in place), drawn from torch's
    global generator. Encoders of text and image stay as they are, but for a small model's word
    encoder, which is trained along with the whole transformer.
    """
    transformer = model.transformer
    found: dict[str, nn.Module] = {"transformer": transformer}
    if settings.trained == "all" and isinstance(model.text_encoder, WordEncoder):
        found["text_encoder"] = model.text_encoder
    if settings.trained == "lora":
        _add_pairs(transformer, settings)
    for network in found.values():
        network.train().requires_grad_(settings.trained == "all")
    for name, parameter in transformer.named_parameters():
        if name.startswith(CODERS) or ".lora_" in name:
            parameter.requires_grad_(True)
    return found


def _add_pairs(transformer: DreamZeroTransformer, settings: TrainSettings) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("train.trained=lora needs peft: pip install 'dreamzero[train]'") from error
    inside = "|".join(LORA_TARGETS[target] for target in settings.lora_targets)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=rf"blocks\.\d+\.({inside})",  # type: ignore[arg-type]
    )
    inject_adapter_in_model(config, transformer)


def parameters(modules: dict[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Every trained parameter as "transformer.blocks.0. ..."."""
    return {
        f"{key}.{name}": parameter
        for key, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def widen(module: nn.Module, frozen: bool) -> None:
    """Make trained weights float32; frozen ones too where ``frozen``.

    Steps of training are far smaller than what 16 bits can tell apart, while weights that only take
    part in products may stay as they are stored (on GPUs; CPUs multiply float32 sooner).
    """
    for parameter in module.parameters():
        if (parameter.requires_grad or frozen) and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()


def pairs_and_coders(transformer: nn.Module) -> dict[str, Tensor]:
    """What an adapter keeps, under our names: ``blocks.0.attn1.to_q.lora_A.weight`` and so on."""
    return {
        name.replace(".default.", "."): parameter.detach()
        for name, parameter in transformer.named_parameters()
        if parameter.requires_grad
    }


@contextmanager
def on_device(modules: Iterable[nn.Module | None], device: torch.device | str) -> Iterator[None]:
    """Frozen networks on a device for as long as they are needed; then they go back where they were."""
    present = {module: place_of(module) for module in modules if module is not None}
    for module in present:
        module.to(device)
    try:
        yield
    finally:
        for module, place in present.items():
            module.to(place)


def place_of(module: nn.Module) -> torch.device:
    """Where a network is; the CPU where it has no weights."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))
