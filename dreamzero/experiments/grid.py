"""What a grid of cells is made of: sizes, footage, trunks, and ways to add a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..embodiments import get
from ..shipped import NAME
from ..sim.splits import SUITES, tasks_of
from ..sim.tasks import EXTRA_COLOURS, TRAIN_COLOURS, VERBS
from ..train.config import TrainSettings
from .cells import Cell, Use
from .recordings import Recording

# What the video shows, in turn: more than the labels do, besides extra colours and held-out pairs.
VIDEO_VERBS = ("push", "zone", "reach", "push", "zone", "lift", "place", "shove", "chain")


@dataclass
class Grid:
    """Cells and recordings by name."""

    recordings: dict[str, Recording] = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)

    def add(self, *cells: Cell) -> None:
        for cell in cells:
            assert cell.name not in self.cells, cell.name
            self.cells[cell.name] = cell

    def words(self) -> list[str]:
        """Every prompt that may occur, so that all models have one vocabulary."""
        colours = TRAIN_COLOURS + EXTRA_COLOURS
        sentences = sorted(
            {w for verb in VERBS for task in tasks_of(verb, colours) for w in task.wordings()}
        )
        bodies = sorted({recording.body for recording in self.recordings.values()})
        return [get(f"tabletop_{b}").render_prompt(s) for b in bodies for s in sentences]


@dataclass(frozen=True)
class Stage:
    """Of video pretraining.

    Attributes:
        steps: of 48 windows, at rates that fall to their end.
        begins: how many of ``BEGINNINGS`` it sees besides the footage.
        shift: flow shift; the higher, the more of its steps dream from nearly nothing but the instruction.
    """

    steps: int
    begins: int = 0
    shift: float = TrainSettings.shift


@dataclass(frozen=True)
class Scale:
    """How much of it.

    Attributes:
        preset: size of the models.
        steps, batch: of a training from the trunk, or from noise; windows a step.
        further: steps of a training that goes on from the shipped model, of half as many windows.
        stages: of video pretraining.
        labels: numbers of labelled episodes, of which ``usual`` is taken where it is not swept.
        seeds: of training; scenes: a suite and seed.
        video: episodes of each footage of ``FOOTAGE``; begins: of each of ``BEGINNINGS``.
        transfer: episodes of another body's video, at most 20 minutes; play: of a new arm's play, at
            most 30 minutes; specialist: labelled ones of its specialist.
    """

    preset: str
    steps: int
    batch: int
    further: int
    stages: tuple[Stage, ...]
    labels: tuple[int, ...]
    usual: int
    seeds: tuple[int, ...]
    scenes: int
    video: tuple[int, int, int, int]
    begins: tuple[int, int, int]
    transfer: int
    play: int
    specialist: int


SCALES = {
    "quick": Scale(
        "micro", 20, 48, 20, (Stage(20), Stage(20, 3, 15.0)), (16, 32), 32, (0,), 4,
        (16, 8, 8, 8), (16, 8, 16), 8, 8, 16,
    ),
    "small": Scale(
        "tiny", 750, 96, 1000, (Stage(3500), Stage(3500, 2), Stage(3500, 3, 15.0)),
        (40, 160, 640, 2560), 640, (0, 1, 2), 67,
        (1280, 640, 320, 320), (9600, 3200, 25600), 276, 415, 640,
    ),
}  # fmt: skip
# Body, looks and seed of the footage; the scale says how much of each.
FOOTAGE = (
    ("so101", "seen", 501),
    ("so101", "unseen-look", 502),
    ("ur5e", "seen", 503),
    ("hand", "seen", 505),
)
# First 17 rows of many more episodes: which way an instruction goes is soon seen, and a model that sees
# the same few thousand beginnings again and again learns them by heart.
BEGINNINGS = (
    ("begin-so101-seen", "so101", "seen", 521),
    ("begin-so101-unseen-look", "so101", "unseen-look", 522),
    ("begin-so101-seen-more", "so101", "seen", 523),
)
BEGIN_VERBS, BEGIN_ROWS = ("push", "zone", "push", "reach"), 17
ACTION_ONLY = {"dream": "none"}
BEGIN = 0.9  # share of a batch of beginnings that begins an episode
SHIPPED = NAME  # what questions about a model that can do its tasks start from
# Rates of a training that goes on from another: two thirds of those of a start from noise.
GENTLY = {"matrix_lr": 0.012, "lr": 1e-3}


def videos(recordings: Mapping[str, Recording]) -> tuple[Use, ...]:
    """Recordings as video alone, each drawn by its size; together they weigh 1."""
    total = sum(r.episodes for r in recordings.values())
    return tuple(
        Use(name, labels=False, weight=r.episodes / total) for name, r in recordings.items()
    )


class Maker:
    """Fills a grid: the footage, the labels and the trunk that most groups share."""

    def __init__(self, scale: Scale) -> None:
        self.scale, self.grid = scale, Grid()
        self.footage = {
            f"video-{body}-{looks}": Recording(body, episodes, seed, VIDEO_VERBS, looks)
            for (body, looks, seed), episodes in zip(FOOTAGE, scale.video, strict=True)
        }
        self.record(**self.footage)
        begins = {
            name: Recording(body, episodes, seed, BEGIN_VERBS, looks, rows=BEGIN_ROWS)
            for (name, body, looks, seed), episodes in zip(BEGINNINGS, scale.begins, strict=True)
        }
        self.record(**begins)
        # The same first episodes: whoever needs a few does not wait for all of them.
        self.record(labels=Recording("so101", scale.usual, 511))
        self.record(many=Recording("so101", max(scale.labels), 511))
        self.whole, self.begins = videos(self.footage), begins
        self.watched = tuple(
            replace(u, weight=u.weight / 2) for u in (*self.whole, *videos(begins))
        )
        self.all = self.trunk("all")

    def record(self, **recordings: Recording) -> None:
        self.grid.recordings |= recordings

    def trunk(self, name: str, preset: str = "") -> str:
        """A model pretrained on video alone, stage after stage; the name of the last.

        The first learns how things move; the others mostly watch how an instruction begins.
        """
        start = ""
        for number, stage in enumerate(self.scale.stages):
            again = f"+{number}" if number else ""
            shown = dict(list(self.begins.items())[: stage.begins])
            most = tuple(replace(u, weight=2 * u.weight, begin=BEGIN) for u in videos(shown))
            other = {} if stage.shift == Stage.shift else {"shift": stage.shift}
            cell = Cell(
                f"trunk/{name}{again}-s0", (*self.whole, *most), start,
                preset or self.scale.preset, settings={"steps": stage.steps} | other,
            )  # fmt: skip
            self.grid.add(cell)
            start = cell.name
        return start

    def trained(
        self,
        group: str,
        method: str,
        seed: int,
        labels: int = 0,
        start: str | None = None,
        watched: Sequence[Use] | None = None,
        settings: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> Cell:
        """A model that learned to act from so many labelled episodes, and its rollouts.

        Args:
            labels: 0 takes the usual number.
            start: cell it starts from; None: the trunk; empty: from noise.
            watched: video that it goes on watching; None: the footage.
            settings, rest: what else differs, as in ``Cell``.
        """
        watched = self.watched if watched is None else watched
        start = self.all if start is None else start
        episodes = labels or self.scale.usual
        recording = "labels" if episodes <= self.scale.usual else "many"
        uses = (Use(recording, episodes=episodes, weight=3.0), *watched)
        count = self.scale.further if start == SHIPPED else self.scale.steps
        if start != SHIPPED:
            uses = self.batched(*uses)
        steps = {"steps": count} | (GENTLY if start else {})
        given: dict[str, Any] = {
            "uses": uses,
            "start": start,
            "preset": self.scale.preset,
            "suites": SUITES,
            "scenes": self.scale.scenes,
            "seed": seed,
            "settings": steps | dict(settings or {}),
        }
        cell = Cell(f"{group}/{method}-s{seed}", **(given | rest))
        self.grid.add(cell)
        return cell

    def batched(self, *uses: Use) -> tuple[Use, ...]:
        """The same in batches of a training from the trunk, or from noise."""
        return tuple(replace(use, batch=self.scale.batch) for use in uses)

    def evaluated(self, group: str, method: str, seed: int, start: str, **rest: Any) -> Cell:
        """Rollouts of another cell's model, or of a baseline."""
        given: dict[str, Any] = {
            "suites": SUITES,
            "scenes": self.scale.scenes,
            "seed": seed,
            "start": start,
        }
        cell = Cell(f"{group}/{method}-s{seed}", **(given | rest))
        self.grid.add(cell)
        return cell
