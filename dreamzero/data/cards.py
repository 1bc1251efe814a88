"""Which card fits a recording, and a makeshift one where none does."""

from __future__ import annotations

from pathlib import Path

from .. import embodiments
from ..embodiments import Embodiment, Field
from .reader import Dataset
from .resample import validate


def fitting(dataset: Dataset) -> list[Embodiment]:
    """Built-in cards whose views, robot and widths the dataset has."""
    found = []
    for name in embodiments.names():
        card = embodiments.get(name)
        widths = (len(dataset.state_names), len(dataset.action_names))
        same_robot = card.robot == dataset.info.get("robot_type")
        same_width = widths == (card.state_dim, card.action_dim)
        if same_robot and same_width and set(card.views) <= set(dataset.views):
            found.append(card)
    return found


def makeshift(dataset: Dataset) -> Embodiment:
    """A card that takes the recording as it is: all columns as one field, blocks of 8 frames.

    Actions count as relative where they are as wide as the state.
    """
    s, a = len(dataset.state_names), len(dataset.action_names)
    key = "all"
    return Embodiment(
        name="makeshift",
        robot=str(dataset.info.get("robot_type") or "unknown"),
        views=tuple(dataset.views),
        layout="column",
        canvas_px=(64 * max(len(dataset.views), 1), 64),
        state=(Field(key, 0, s),) if s else (),
        action=(Field(key, 0, a, relative=a == s),) if a else (),
        video_hz=5.0,
        action_hz=15.0,
        horizon=24,
        has_action=a > 0,
    )


def choose(dataset: Dataset, name: str | Path | None) -> Embodiment:
    """The card of that name or in that file; where None, the one that fits, else a makeshift.

    Raises:
        UserError: no such card, or it does not fit the dataset.
    """
    if name is None:
        found = fitting(dataset)
        return found[0] if found else makeshift(dataset)
    card = embodiments.get(name)
    validate(dataset, card)
    return card
