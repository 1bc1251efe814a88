"""One card a robot. ``get("tabletop_so101")`` finds it; a new robot is one more card."""

from __future__ import annotations

from ..errors import UserError
from . import real, servo_arms, tabletop
from .card import FRAMES_PER_LATENT, Embodiment, Field

__all__ = ["FRAMES_PER_LATENT", "Embodiment", "Field", "get", "names"]

_CARDS = {card.name: card for card in (*tabletop.CARDS, *servo_arms.CARDS, *real.CARDS)}


def names() -> list[str]:
    """Names of the built-in cards."""
    return list(_CARDS)


def get(name: str) -> Embodiment:
    """The card of that name; UserError names the known ones."""
    if name not in _CARDS:
        raise UserError(f"unknown embodiment {name!r}; known: {', '.join(_CARDS)}")
    return _CARDS[name]
