"""A cell: what is trained, on what, from what, and where it is rolled out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Use:
    """Windows of a recording in a training.

    Attributes:
        recording: its name in the grid.
        labels: whether its actions are used; otherwise it is video alone.
        episodes: the first so many; 0 takes all.
        batch: windows a step.
        weight: how often its turn comes, against the other uses.
        blocks: blocks a window.
        begin: share of a batch that begins an episode, where the instruction alone says what to do.
        without: episodes whose instruction has one of these words are left out.
    """

    recording: str
    labels: bool = True
    episodes: int = 0
    batch: int = 48
    weight: float = 1.0
    blocks: int = 1
    begin: float = 0.5
    without: str = ""


@dataclass(frozen=True)
class Cell:
    """One training with its rollouts, or the rollouts of another cell's model, or of a baseline.

    Attributes:
        name: group/method-labels-seed, unique.
        uses: what it is trained on; empty: it only evaluates.
        start: cell, or shipped model, that it starts from; empty: from noise. A cell without uses
            evaluates that model, or "hold".
        preset: size of the transformer.
        settings: what differs from the defaults of ``TrainSettings``.
        card: what differs from the robot's card (K, horizon, window).
        robots: arms that are rolled out.
        suites: where; scenes: in how many scenes of each.
        sampler: what differs from four unguided steps.
        execute_steps: actions of a chunk that are executed; 0: all.
        memory_blocks: observed blocks that stay in the window.
        seed: of weights, batches and noise.
    """

    name: str
    uses: tuple[Use, ...] = ()
    start: str = ""
    preset: str = "tiny"
    settings: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    robots: tuple[str, ...] = ("so101",)
    suites: tuple[str, ...] = ()
    scenes: int = 67
    sampler: Mapping[str, Any] = field(default_factory=dict)
    execute_steps: int = 0
    memory_blocks: int = 0
    seed: int = 0

    @property
    def group(self) -> str:
        return self.name.split("/")[0]

    @property
    def method(self) -> str:
        """Name without group and seed: what is averaged over seeds."""
        return self.name.split("/", 1)[1].rsplit("-s", 1)[0]

    def facts(self) -> dict[str, Any]:
        """All there is to know about it, JSON-ready."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self), default=dict))
        return found


def digest(facts: Mapping[str, Any], before: str = "") -> str:
    """Of a cell, its recordings and the cell it starts from: equal only where all of that is."""
    text = json.dumps(facts, sort_keys=True) + before
    return hashlib.sha256(text.encode()).hexdigest()[:16]
