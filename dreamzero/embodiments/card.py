"""The card: everything the project has to know about one robot, in one frozen dataclass."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Layout = Literal["single", "column", "droid", "grid"]
FRAMES_PER_LATENT = 4


@dataclass(frozen=True)
class Field:
    """A slice of the state or action vector.

    Attributes:
        key: name in statistics files ("joint_position", "gripper_position").
        start, stop: half-open range in the dataset's column.
        relative: actions only; predicted minus the state at the block's first step (MODEL.md 1).
        unit: "rad", "m" or "1".
    """

    key: str
    start: int
    stop: int
    relative: bool = False
    unit: str = "rad"

    @property
    def width(self) -> int:
        """Dimensions of the slice."""
        return self.stop - self.start


@dataclass(frozen=True)
class Embodiment:
    """One robot as the model sees it.

    Attributes:
        name: the tag under which statistics and checkpoints know it.
        robot: what moves ("so101", "franka"); the simulator and the drivers go by it.
        views: dataset video features in canvas order.
        layout: how views lie on the canvas: "single" (one view), "column" (stacked in order),
            "droid" (wrist doubled on top, exteriors below), "grid" (view 0 top left, 1 bottom
            left, 2 top right, bottom right black).
        canvas_px: (height, width) of the canvas the codec sees.
        state, action: fields of the two vectors, in the order the model sees them. A relative
            action field must have a state field of the same key.
        video_hz, action_hz: rates the data are resampled to.
        horizon: action steps in one block.
        latent_frames: latent frames in one block (K); the horizon covers the same time.
        blocks: blocks in the context window (M).
        memory_blocks: observed blocks a policy keeps in its window when it acts; None: as many as
            fit. With 0 it looks at the newest frame alone: what a cloned policy did before can mislead
            it, for it learns to go on as it went (de Haan, Jayaraman, Levine 2019, "Causal
            Confusion in Imitation Learning").
        prompt: template with ``{instruction}``; the instruction is lower-cased before it goes in.
        lower, upper, velocity: limits of each action dimension, SI; empty where unknown.
        has_action: false for bodies seen on video only.
    """

    name: str
    robot: str
    views: tuple[str, ...]
    layout: Layout
    canvas_px: tuple[int, int]
    state: tuple[Field, ...]
    action: tuple[Field, ...]
    video_hz: float
    action_hz: float
    horizon: int
    latent_frames: int = 2
    blocks: int = 4
    memory_blocks: int | None = None
    prompt: str = "{instruction}"
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()
    velocity: tuple[float, ...] = ()
    has_action: bool = True

    @property
    def action_dim(self) -> int:
        """a, dimensions of an action."""
        return sum(f.width for f in self.action)

    @property
    def state_dim(self) -> int:
        """s, dimensions of a state."""
        return sum(f.width for f in self.state)

    @property
    def frames_per_block(self) -> int:
        """Video frames that one block spans (8 at K = 2)."""
        return self.latent_frames * FRAMES_PER_LATENT

    @property
    def window_frames(self) -> int:
        """Frames of one full training window, the first frame included."""
        return 1 + self.blocks * self.frames_per_block

    @property
    def block_s(self) -> float:
        """Seconds that one block spans; the horizon covers the same time."""
        return self.horizon / self.action_hz

    def render_prompt(self, instruction: str) -> str:
        """The text the encoder sees for an instruction."""
        return self.prompt.format(instruction=instruction.strip().lower())

    def joint_columns(self) -> tuple[list[int], list[int]]:
        """Action dimensions in rad, and the state dimensions of the same joints; empty if there are
        none that are both measured and commanded."""
        places, at = {}, 0
        for f in self.state:
            places[f.key] = at
            at += f.width
        columns: list[int] = []
        anchors: list[int] = []
        at = 0
        for f in self.action:
            if f.unit == "rad" and f.key in places:
                columns += range(at, at + f.width)
                anchors += range(places[f.key], places[f.key] + f.width)
            at += f.width
        return columns, anchors

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; ``from_json`` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Embodiment:
        """The card that ``to_json`` wrote."""
        data = dict(data)
        for name in ("state", "action"):
            data[name] = tuple(Field(**f) for f in data[name])
        for name in ("views", "canvas_px", "lower", "upper", "velocity"):
            data[name] = tuple(data[name])
        return cls(**data)

    def with_(self, **changes: Any) -> Embodiment:
        """A card with these fields changed."""
        return replace(self, **changes)
