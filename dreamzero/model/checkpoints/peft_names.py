"""Names of LoRA saves of the release, and saves that hold the base beside the adapter.

The release wraps its transformer with peft, so that ``blocks.0.self_attn.q.weight`` becomes
``base_model.model.blocks.0.self_attn.q.base_layer.weight`` beside ``...q.lora_A.default.weight`` and
``...q.lora_B.default.weight``. Saves of the trained tensors alone have 814 names, saves of everything 2946.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ...errors import UserError
from .names import PREFIXES, pieces, to_ours, to_release
from .robots import mappings
from .shards import DTYPES, Weights

MERGED = "saved by a LoRA training together with its base; the changes are merged"
PEFT = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")


@dataclass(frozen=True)
class AdapterName:
    """What a tensor of a LoRA save is: ours, and "A", "B" or "" for a whole tensor."""

    ours: str
    side: str

    @property
    def stored(self) -> str:
        """Its name in peft's form."""
        if not self.side:
            return PEFT + self.ours
        return f"{PEFT}{self.ours.removesuffix('.weight')}.lora_{self.side}.weight"

    @property
    def release(self) -> str:
        """Its name in a LoRA save of the release."""
        prefix = PREFIXES["transformer"]
        plain = to_release("transformer", self.ours).removeprefix(prefix)
        if self.side:
            plain = f"{plain.removesuffix('.weight')}.lora_{self.side}.default.weight"
        return f"{prefix}{PEFT}{plain}"


def adapter_name(name: str) -> AdapterName:
    """Read a release LoRA name; UserError if it is none."""
    short = name
    for prefix in (
        PEFT,
        PREFIXES["transformer"],
        PEFT,
    ):  # the model, or a part of it, was wrapped
        short = short.removeprefix(prefix)
    short = short.replace(".modules_to_save.default.", ".")
    found = _LORA.fullmatch(short)
    if found:
        return AdapterName(
            to_ours(f"{PREFIXES['transformer']}{found['module']}.weight")[1], found["side"]
        )
    return AdapterName(pieces(PREFIXES["transformer"] + short)[0].name, "")


def adapter_name_of_ours(name: str) -> AdapterName:
    """Read a name of ``adapter_model.safetensors``."""
    short = name.removeprefix(PEFT)
    found = _LORA.fullmatch(short)
    return (
        AdapterName(f"{found['module']}.weight", found["side"]) if found else AdapterName(short, "")
    )


def scale_of(folder: Path) -> tuple[int, float]:
    """Rank and alpha, from peft's adapter_config.json or the release's config.json."""
    for name, keys in (
        ("adapter_config.json", ("r", "lora_alpha")),
        ("config.json", ("lora_rank", "lora_alpha")),
    ):
        if (folder / name).is_file():
            try:
                config = json.loads((folder / name).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(f"{folder / name} is no JSON ({error})") from error
            for node in mappings(config):
                if all(isinstance(node.get(key), int | float) for key in keys):
                    return int(node[keys[0]]), float(node[keys[1]])
    raise UserError(
        f"{folder}/config.json says neither lora_rank nor lora_alpha: without them the size of the "
        "change is unknown"
    )


class WrappedWeights(Weights):
    """A full save of a wrapped model under the release's plain names, each change already added.

    Args:
        weights: 2146 tensors, some of them ``base_layer``, and the pairs.
        scale: alpha / rank.

    Raises:
        UserError: a pair without its base, or half a pair.
    """

    def __init__(self, weights: Weights, scale: float) -> None:
        super().__init__()
        self._weights, self._scale = weights, scale
        self._stored: dict[str, str] = {}
        self._pairs: dict[str, dict[str, str]] = {}
        for name, entry in weights.entries.items():
            plain = _plain(name)
            found = _LORA.fullmatch(plain)
            if found:
                self._pairs.setdefault(f"{found['module']}.weight", {})[found["side"]] = name
            else:
                self._stored[plain] = name
                self.entries[plain] = replace(entry, name=plain)
        for plain, sides in self._pairs.items():
            if plain not in self.entries or len(sides) < 2:
                name = next(iter(sides.values()))
                raise UserError(
                    f"{weights.entries[name].file}: {name} lacks its base or its other half"
                )
            out, into = self.entries[plain].shape
            a, b = (weights.entries[sides[side]].shape for side in "AB")
            if (b[0], a[1]) != (out, into) or a[0] != b[1]:
                raise UserError(
                    f"{weights.entries[sides['A']].file}: {sides['A']} {list(a)} and B {list(b)} "
                    f"do not fit {[out, into]}"
                )

    def tensor(self, name: str) -> Tensor:
        """See ``Weights.tensor``; changed ones are added up in float32, in memory of their own."""
        tensor = self._weights.tensor(self._stored[name])
        sides = self._pairs.get(name)
        if sides is None:
            return tensor
        a, b = (self._weights.tensor(sides[side]).float() for side in "AB")
        return (tensor.float() + self._scale * (b @ a)).to(DTYPES[self.entries[name].dtype])

    def release(self, name: str) -> None:
        """See ``Weights.release``."""
        self._weights.release(self._stored[name])


def _plain(name: str) -> str:
    """The release's own name of a tensor of a wrapped model."""
    prefix = PREFIXES["transformer"]
    wrapped = name.replace(f"{PEFT}action_head.", "action_head.").replace(prefix + PEFT, prefix)
    return wrapped.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")
