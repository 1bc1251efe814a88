"""Tasks of the tabletop and the small grammar that words them.

Directions are those of the ``front`` camera, which stands opposite the arm: world x points from the
arm to that camera, world y to the right of its picture.

    left    -y      right   +y
    away    -x      toward  +x      (away from, toward the camera)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.07, 0.07),
    "green": (0.06, 0.62, 0.12),
    "blue": (0.07, 0.16, 0.90),
    "yellow": (0.98, 0.82, 0.03),
    "purple": (0.56, 0.08, 0.72),
    "cyan": (0.05, 0.75, 0.80),
}
TRAIN_COLOURS = ("red", "green", "blue", "yellow")
# Blocks of these are on video only, never with actions; zones have them too.
EXTRA_COLOURS = ("purple", "cyan")
DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (0.0, -1.0),
    "right": (0.0, 1.0),
    "away": (-1.0, 0.0),
    "toward": (1.0, 0.0),
}
VERBS = ("reach", "push", "zone", "lift", "place", "shove", "chain", "play")

# The first wording of each list is the canonical one.
_NOUNS = ("block", "cube")
_WORDINGS = {
    "reach": ("touch the {block}", "reach for the {block}", "go to the {block}", "tap the {block}"),
    "push": ("push the {block} {way}", "slide the {block} {way}", "move the {block} {way}"),
    "zone": (
        "push the {block} onto the {target} zone",
        "slide the {block} to the {target} zone",
        "move the {block} into the {target} zone",
    ),
    "lift": ("lift the {block}", "pick up the {block}", "raise the {block}"),
    "place": (
        "place the {block} on the {target} zone",
        "put the {block} down on the {target} zone",
        "pick up the {block} and set it on the {target} zone",
    ),
    "shove": (
        "shove the {block} aside",
        "shove the {block} anywhere",
        "get the {block} out of here",
    ),
    "chain": (
        "push the {block} onto the {target} zone, then touch the {then}",
        "slide the {block} to the {target} zone, then tap the {then}",
        "move the {block} into the {target} zone, then go to the {then}",
    ),
    "play": ("play", "play around", "do as you like"),
}
_WAYS = {
    "left": ("to the left", "left"),
    "right": ("to the right", "right"),
    "away": ("away from the camera", "away"),
    "toward": ("toward the camera", "closer to the camera"),
}


@dataclass(frozen=True)
class Task:
    """One thing to do: ``Task("push", "red", "left")``.

    Attributes:
        verb: "reach" (touch from above), "push" (at least 4 cm along a direction), "zone" (push
            onto a zone), "lift" (at least 4 cm off the table), "place" (set down on a zone), "shove"
            (push, whichever way), "chain" (push onto a zone, then touch another block), "play"
            (move about; nothing can fail).
        colour: of the block; empty for "play".
        target: the direction of a push; the colour of the zone of "zone", "place" and "chain"; else
            None.
        then: of "chain", the colour of the block to touch; else None.
    """

    verb: str
    colour: str = ""
    target: str | None = None
    then: str | None = None

    def __post_init__(self) -> None:
        if self.verb not in VERBS:
            raise UserError(f"task verb {self.verb!r} is not known; known: {', '.join(VERBS)}")
        if self.verb == "play" and self.colour:
            raise UserError(f"task 'play' takes no block, got {self.colour!r}")
        blocks = [] if self.verb == "play" else [self.colour]
        for colour in blocks if self.then is None else [*blocks, self.then]:
            if colour not in COLOURS:
                raise UserError(
                    f"block colour {colour!r} is not known; known: {', '.join(COLOURS)}"
                )
        if (self.verb == "chain") != (self.then is not None) or self.then == self.colour:
            raise UserError("a second block, another one, belongs to 'chain' and to nothing else")
        zones = dict.fromkeys(("zone", "place", "chain"), tuple(COLOURS))
        known = {"push": tuple(DIRECTIONS), **zones}.get(self.verb)
        if known is None and self.target is not None:
            raise UserError(f"task {self.verb!r} takes no target, got {self.target!r}")
        if known is not None and self.target not in known:
            raise UserError(
                f"target {self.target!r} of task {self.verb!r} must be one of {', '.join(known)}"
            )

    @property
    def direction(self) -> tuple[float, float]:
        """Unit vector (x, y) of a push, world frame; UserError for other verbs."""
        if self.verb != "push" or self.target is None:
            raise UserError(f"task {self.verb!r} has no direction; only 'push' has one")
        return DIRECTIONS[self.target]

    @property
    def key(self) -> str:
        """A short name for tables and file names: ``push-red-left``."""
        return "-".join(filter(None, (self.verb, self.colour, self.target, self.then)))

    def wordings(self) -> tuple[str, ...]:
        """Every sentence of the grammar for this task; the canonical one first."""
        ways = _WAYS[self.target or ""] if self.verb == "push" else (self.target or "",)
        if self.verb == "play":
            return _WORDINGS["play"]
        return tuple(
            wording.format(
                block=f"{self.colour} {noun}",
                way=way,
                target=self.target,
                then=f"{self.then} {noun}",
            )
            for noun in _NOUNS
            for way in ways
            for wording in _WORDINGS[self.verb]
        )

    def instruction(self, rng: np.random.Generator | None = None) -> str:
        """The canonical sentence; with ``rng``, half the time, a paraphrase drawn evenly."""
        canonical, *others = self.wordings()
        if rng is None or rng.random() < 0.5:
            return canonical
        return others[int(rng.integers(len(others)))]


def parse(key: str) -> Task:
    """The task of a ``Task.key`` such as ``push-red-left``; UserError if it is none."""
    parts = key.split("-")
    if not 2 <= len(parts) <= 4 and key != "play":
        raise UserError(f"task {key!r} is not of the form verb-colour[-target[-then]]")
    return Task(*parts)
