"""Loading one network of an imported folder, parameter by parameter, to a device and dtype.

The module is built without memory, then every tensor is copied from its memory-mapped shard to where it
shall be and the shard's pages are let go: beside the destination this takes one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import UserError
from .configs import STEMS, empty_module, read_config
from .names import canonical
from .shards import open_indexed
from .writer import progress_bar


def load_component(
    folder: str | Path,
    component: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    progress: bool | None = False,
) -> nn.Module:
    """Transformer, text_encoder, image_encoder or vae of an imported folder.

    Args:
        folder: what ``import_checkpoint`` wrote.
        device: where the parameters go.
        dtype: of floating-point parameters; as stored by default.
        progress: True shows a bar, None one on a terminal only.

    Returns:
        the library's module, in evaluation mode, without gradients.

    Raises:
        UserError: no such component, or tensors that do not fit its config.json.
    """
    path = Path(folder) / component
    if component not in STEMS:
        raise UserError(f"no component {component!r}; there are {', '.join(STEMS)}")
    weights = open_indexed(path, STEMS[component])
    if weights is None:
        raise UserError(f"{path} holds no {STEMS[component]}.safetensors: inspect {folder}")
    module = empty_module(component, read_config(path))
    places: dict[str, list[str]] = {}
    for name in module.state_dict():  # names that share one tensor come together here
        places.setdefault(canonical(component, name), []).append(name)
    stored = {canonical(component, name): name for name in weights}
    odd = sorted(places.keys() ^ stored.keys())
    if odd:
        raise UserError(
            f"{path}: weights and config.json differ in {len(odd)} names, {odd[0]} first"
        )
    total = sum(entry.nbytes for entry in weights.entries.values())
    expected = module.state_dict()
    with progress_bar(total, component, progress) as bar:
        for key, name in stored.items():
            entry = weights.entries[name]
            wanted = tuple(expected[places[key][0]].shape)
            if entry.shape != wanted:
                raise UserError(
                    f"{entry.file}: {name} has shape {list(entry.shape)}; config.json asks for "
                    f"{list(wanted)}"
                )
            source = weights.tensor(name)
            floating = source.is_floating_point() and dtype is not None
            target = torch.empty(wanted, dtype=dtype if floating else source.dtype, device=device)
            target.copy_(source)
            del source
            weights.release(name)
            _place(module, places[key], target)
            bar.update(entry.nbytes)
    _buffers(module, device)
    return module.eval()


def _place(module: nn.Module, names: Iterable[str], tensor: Tensor) -> None:
    parameter = nn.Parameter(tensor, requires_grad=False)
    for name in names:
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path)
        if last in owner._parameters:
            owner._parameters[last] = parameter
        else:
            owner._buffers[last] = tensor


def _buffers(module: nn.Module, device: torch.device | str) -> None:
    """Buffers that no file holds: CLIP's list of positions is the only one."""
    for owner in module.modules():
        for name, buffer in owner._buffers.items():
            if buffer is not None and buffer.is_meta:
                assert name == "position_ids", f"{name} of {type(owner).__name__} has no value"
                count = torch.arange(buffer.shape[-1], device=device, dtype=buffer.dtype)
                owner._buffers[name] = count.expand(buffer.shape).clone()
