"""One card a robot. ``get("tabletop_so101")`` finds it; a new robot is one more card.

A module of this package that has a tuple ``CARDS`` is found by itself; a card of your own may also be a
TOML file, given by its path wherever a card's name is taken.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from ..errors import UserError
from .card import FRAMES_PER_LATENT, Embodiment, Field
from .files import is_file_name, load

__all__ = [
    "FRAMES_PER_LATENT",
    "Embodiment",
    "Field",
    "get",
    "is_file_name",
    "load",
    "names",
]


def _discover() -> dict[str, Embodiment]:
    modules = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    return {card.name: card for m in modules for card in getattr(m, "CARDS", ())}


_CARDS = _discover()


def names() -> list[str]:
    """Names of the built-in cards."""
    return list(_CARDS)


def get(name: str | Path) -> Embodiment:
    """The card of that name, or in that file.

    Args:
        name: a built-in name, or the path of a card file (it ends in .toml or .json).

    Raises:
        UserError: it names the known ones, or the field of the file that is wrong.
    """
    if is_file_name(name):
        return load(name)
    if str(name) not in _CARDS:
        raise UserError(
            f"unknown embodiment {str(name)!r}; known: {', '.join(_CARDS)}, or the path of a card "
            "FILE.toml (`dreamzero data card` drafts one)"
        )
    return _CARDS[str(name)]
