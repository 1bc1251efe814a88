"""All cells of a profile, and the recordings they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..embodiments import get
from ..sim.splits import SUITES, tasks_of
from ..sim.tasks import EXTRA_COLOURS, TRAIN_COLOURS, VERBS
from .cells import Cell, Use
from .recordings import Recording

# What the video shows that the labels do not: these verbs, the extra colours, the held-out pairs.
VIDEO_VERBS = ("reach", "push", "zone", "lift", "place", "shove", "chain")


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
class Scale:
    """How much of it.

    Attributes:
        preset: size of the models; steps: of a post-training, trunk_steps: of video pretraining.
        labels: numbers of labelled episodes; seeds: of training; scenes: a suite and seed.
        video: episodes of each footage of ``FOOTAGE``.
    """

    preset: str
    steps: int
    trunk_steps: int
    labels: tuple[int, ...]
    seeds: tuple[int, ...]
    scenes: int
    video: tuple[int, int, int, int]


SCALES = {
    "quick": Scale("micro", 20, 20, (16, 32), (0,), 4, (16, 8, 8, 8)),
    "small": Scale("micro", 1000, 8000, (40, 160, 640, 2560), (0, 1, 2), 67, (1280, 640, 320, 320)),
}
# Body, looks and seed of the footage; the scale says how much of each.
FOOTAGE = (
    ("so101", "seen", 501),
    ("so101", "unseen-look", 502),
    ("ur5e", "seen", 503),
    ("hand", "seen", 505),
)


def footage(scale: Scale) -> dict[str, Recording]:
    """Video of all bodies, verbs and colours; of the arm that is labelled also in held-out looks."""
    return {
        f"video-{body}-{looks}": Recording(body, episodes, seed, VIDEO_VERBS, looks)
        for (body, looks, seed), episodes in zip(FOOTAGE, scale.video, strict=True)
    }


def videos(recordings: Mapping[str, Recording]) -> tuple[Use, ...]:
    """Recordings as video alone, each drawn by its size; together they weigh 1."""
    total = sum(r.episodes for r in recordings.values())
    return tuple(
        Use(name, labels=False, weight=r.episodes / total) for name, r in recordings.items()
    )


TRUNK = "trunk/all-s0"
ACTION_ONLY = {"dream": "none"}
# Settings of every way to learn to act, and whether it starts from the video-pretrained trunk and
# keeps watching video while it learns.
WAYS: dict[str, tuple[dict[str, str], bool, bool]] = {
    "wam": ({}, True, True),
    "apart": ({"dream": "apart"}, True, True),
    "action-only-trunk": (ACTION_ONLY, True, False),
    "wam-scratch": ({}, False, False),
    "action-only": (ACTION_ONLY, False, False),
    "regression": (ACTION_ONLY | {"objective": "regression"}, False, False),
    "diffusion": (ACTION_ONLY | {"objective": "diffusion"}, False, False),
}


class Maker:
    """Fills a grid."""

    def __init__(self, scale: Scale) -> None:
        self.scale, self.grid = scale, Grid()
        self.grid.recordings |= footage(scale)
        self.watched = videos(self.grid.recordings)
        self.grid.recordings["labels"] = Recording("so101", max(scale.labels), 511)
        settings = {"steps": scale.trunk_steps}
        self.grid.add(Cell(TRUNK, self.watched, preset=scale.preset, settings=settings))

    def way(self, group: str, way: str, labels: int, seed: int) -> Cell:
        """A cell of one of ``WAYS`` on so many labelled episodes."""
        settings, trunk, watches = WAYS[way]
        uses = (Use("labels", episodes=labels, weight=3.0),)
        return Cell(
            f"{group}/{way}-{labels}-s{seed}",
            uses + (self.watched if watches else ()),
            TRUNK if trunk else "",
            self.scale.preset,
            {"steps": self.scale.steps, **settings},
            suites=SUITES,
            scenes=self.scale.scenes,
            seed=seed,
        )

    def labels(self) -> None:
        """What each part of the recipe is worth, over the number of labels."""
        for labels in self.scale.labels:
            for way in WAYS:
                for seed in self.scale.seeds:
                    self.grid.add(self.way("labels", way, labels, seed))


def grid(profile: str) -> Grid:
    """The grid of a profile ("quick" or "small")."""
    maker = Maker(SCALES[profile])
    maker.labels()
    return maker.grid
