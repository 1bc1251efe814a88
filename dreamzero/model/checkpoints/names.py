"""Names of the public release and ours, both ways, tensor by tensor.

>>> to_ours("action_head.model.blocks.7.self_attn.q.weight")
('transformer', 'blocks.7.attn1.to_q.weight')

A tensor of the release is one or more tensors of ours. ``pieces`` says which, ``Piece.take`` cuts
one out as a view (so that a memory-mapped shard is read row by row), ``join`` puts them together
again bit for bit. Original Wan files use the same names without prefix: add ``PREFIXES[component]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ...errors import UserError
from .rules import RULES, Rule

PREFIXES: dict[str, str] = {
    "transformer": "action_head.model.",
    "text_encoder": "action_head.text_encoder.",
    "image_encoder": "action_head.image_encoder.model.",
    "vae": "action_head.vae.model.",
}
COMPONENTS = tuple(PREFIXES)
EXTRA = "extra"
"""Component of tensors that the libraries' modules lack; export needs them back."""

_FIELDS = {
    "n": r"\d+",
    "p": "weight|bias",
    "qk": "[qk]",
    "kv": "[kv]",
    "qkv": "[qkv]",
    "qkvo": "[qkvo]",
}


@dataclass(frozen=True)
class Piece:
    """One tensor of ours, cut from a tensor of the release.

    Attributes:
        component: one of ``COMPONENTS``, or ``EXTRA``.
        name: in that component's state dict; the full release name in ``EXTRA``.
        part, parts: rows part/parts .. (part + 1)/parts of the release's tensor.
        unit_axes: leading axes of length one that ours lacks.
    """

    component: str
    name: str
    part: int = 0
    parts: int = 1
    unit_axes: int = 0

    def take(self, tensor: Tensor) -> Tensor:
        """Our tensor, a view of the release's ``tensor``.

        Raises:
            UserError: the tensor cannot be cut so.
        """
        start, stop = self.rows(tensor.shape)
        if self.unit_axes:
            return tensor[(0,) * self.unit_axes]
        return tensor if self.parts == 1 else tensor[start:stop]

    def rows(self, release_shape: Sequence[int]) -> tuple[int, int]:
        """First row of the release's tensor and the one after the last (0, 0 for a scalar)."""
        shape = tuple(release_shape)
        if shape[: self.unit_axes] != (1,) * self.unit_axes:
            raise UserError(
                f"the release's tensor of {self.name} is {list(shape)}; its first "
                f"{self.unit_axes} axes should have length 1"
            )
        if not shape:
            return 0, 0
        if shape[0] % self.parts:
            raise UserError(
                f"the release's tensor of {self.name} has {shape[0]} rows, which are not "
                f"{self.parts} equal parts"
            )
        height = shape[0] // self.parts
        return self.part * height, (self.part + 1) * height

    def shape(self, release_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of our tensor, from the release's."""
        start, stop = self.rows(release_shape)
        if self.unit_axes:
            return tuple(release_shape[self.unit_axes :])
        return (stop - start, *release_shape[1:]) if release_shape else ()


def split(release_name: str) -> tuple[str, str]:
    """Component and name without prefix.

    Raises:
        UserError: no prefix of the release.
    """
    for component, prefix in PREFIXES.items():
        if release_name.startswith(prefix):
            return component, release_name.removeprefix(prefix)
    known = ", ".join(PREFIXES.values())
    raise UserError(f"{release_name!r} has no prefix of the release ({known})")


def pieces(release_name: str) -> list[Piece]:
    """What a tensor of the release is made of here, in the order of its rows.

    Raises:
        UserError: the release has no such tensor.
    """
    component, name = split(release_name)
    for pattern, rule, _ in _compiled(component):
        if found := pattern.fullmatch(name):
            if rule.extra:
                return [Piece(EXTRA, release_name)]
            names = [template.format(**found.groupdict()) for template in rule.ours]
            return [
                Piece(component, ours, i, len(names), rule.unit_axes)
                for i, ours in enumerate(names)
            ]
    raise UserError(f"{release_name!r} is no tensor of the release's {component}")


def to_ours(release_name: str) -> tuple[str, str]:
    """Component and our name of a tensor that is a single tensor here.

    Raises:
        UserError: unknown, or several tensors here (see ``pieces``).
    """
    found = pieces(release_name)
    if len(found) > 1:
        names = ", ".join(piece.name for piece in found)
        raise UserError(f"{release_name!r} is several tensors here: {names}")
    return found[0].component, found[0].name


def to_release(component: str, our_name: str, vae: str = "2.1") -> str:
    """Full release name of the tensor that holds ours.

    Args:
        component: one of ``COMPONENTS``, or ``EXTRA``.
        our_name: in the component's state dict.
        vae: version of the video codec, see ``vae_version``; the two share some of our names.

    Raises:
        UserError: the release has no such tensor.
    """
    if component == EXTRA:
        pieces(our_name)
        return our_name
    name = canonical(component, our_name)
    for _, rule, ours in _compiled(component):
        if rule.extra or rule.version not in ("", vae):
            continue
        for pattern in ours:
            if found := pattern.fullmatch(name):
                return PREFIXES[component] + rule.release.format(**found.groupdict())
    raise UserError(f"the release's {component} has nothing for {our_name!r}")


def canonical(component: str, our_name: str) -> str:
    """Our name of a parameter as other versions of the libraries wrote it.

    transformers before 5 put ``vision_model.`` before CLIP's names; T5 files may name the tied
    token embedding by either of its places.
    """
    if component == "image_encoder":
        return our_name.removeprefix("vision_model.")
    if component == "text_encoder" and our_name == "encoder.embed_tokens.weight":
        return "shared.weight"
    return our_name


def vae_version(names: Iterable[str]) -> str:
    """``"2.1"`` or ``"2.2"``, from a video codec's names: ours or the release's, any prefix."""
    grouped = re.compile(
        r"(.*\.)?encoder\.(down_blocks\.\d+\.resnets|downsamples\.\d+\.downsamples)\b.*"
    )
    return "2.2" if any(grouped.fullmatch(name) for name in names) else "2.1"


def unused(name: str) -> bool:
    """Tensors of original Wan files that no part of the model reads: CLIP's text tower."""
    return name.removeprefix(PREFIXES["image_encoder"]).startswith("textual.")


def join(parts: Sequence[Piece], tensors: Sequence[Tensor]) -> Tensor:
    """The release's tensor in its whole shape from ours; ``parts`` as ``pieces`` orders them."""
    whole = tensors[0] if len(parts) == 1 else torch.cat(tuple(tensors))
    return whole[(None,) * parts[0].unit_axes] if parts[0].unit_axes else whole


def convert(component: str, release: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A component's state dict under our names, from one without prefix; views, nothing copied.

    Tensors of ``EXTRA`` are left out.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in release.items():
        if not unused(name):
            for piece in pieces(PREFIXES[component] + name):
                if piece.component != EXTRA:
                    ours[piece.name] = piece.take(tensor)
    return ours


def revert(component: str, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A component's state dict under release names without prefix, from ours.

    Raises:
        UserError: a name is unknown, or a part of a release tensor is missing.
    """
    version = vae_version(ours) if component == "vae" else "2.1"
    by_name = {canonical(component, name): tensor for name, tensor in ours.items()}
    release: dict[str, Tensor] = {}
    for name in by_name:
        full = to_release(component, name, version)
        short = full.removeprefix(PREFIXES[component])
        if short in release:
            continue
        parts = pieces(full)
        if missing := [part.name for part in parts if part.name not in by_name]:
            raise UserError(f"{component} lacks {missing[0]}, a part of the release's {short}")
        release[short] = join(parts, [by_name[part.name] for part in parts])
    return release


@cache
def _compiled(
    component: str,
) -> tuple[tuple[re.Pattern[str], Rule, tuple[re.Pattern[str], ...]], ...]:
    if component not in RULES:
        raise UserError(f"no component {component!r}; there are {', '.join(RULES)}")
    return tuple(
        (_pattern(rule.release), rule, tuple(map(_pattern, rule.ours))) for rule in RULES[component]
    )


def _pattern(template: str) -> re.Pattern[str]:
    literal = re.split(r"\{(\w+)\}", template)
    out = [
        f"(?P<{part}>{_FIELDS[part]})" if i % 2 else re.escape(part)
        for i, part in enumerate(literal)
    ]
    return re.compile("".join(out))
