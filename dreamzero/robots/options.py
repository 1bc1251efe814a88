"""How an episode is run on an arm: what ``run_episode`` takes as keywords."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..embodiments import Embodiment
from ..errors import UserError

Mode = Literal["synchronous", "overlapped"]
End = Literal["hold", "relax", "home"]
Smoothing = Literal["none", "savgol"]
_CHOICES = {
    "mode": ("synchronous", "overlapped"),
    "end": ("hold", "relax", "home"),
    "smoothing": ("none", "savgol"),
}
_SMOOTHING = {"synchronous": "none", "overlapped": "savgol"}


@dataclass(frozen=True)
class Options:
    """Settings of one run; plain values, so that they travel to the process that streams.

    Attributes:
        seconds: end this long after the first command of a chunk, at a boundary.
        max_chunks: end when so many chunks were executed.
        mode: see ``loop``.
        stream_hz: commands a second, at least the card's ``action_hz`` (the default).
        execute_steps: steps from one boundary to the next, a whole number of video frames. Default:
            the horizon; half of it in ``overlapped``, so that the other half covers the thinking.
        watchdog_s: end the run after holding for so long without a fresh command.
        reconnect_s: how long a lost wire is tried again; 0 ends the run at once.
        end: what the arm does when the run is over, or when nobody commands it any more: "hold" where
            it is, "relax" its motors, or go "home", slowly to the pose it began in. After a fault, an
            interruption or an emergency stop it always holds.
        smoothing: "savgol" as in ``smoothing``, of the dimensions in rad and m, or "none". Default:
            savgol in ``overlapped``, where chunks follow each other at every half; none in
            ``synchronous``, so that it stays what evaluation does.
        blend_s: seconds over which a chunk is faded into the next in ``overlapped``.
        max_start_offset_rad: how far a joint's first command may be from where it is; None: any.
        approach: part of the allowed velocities with which the arm goes to a first command that is
            further away; without it, that ends the run with an error.
        latency_s: on simulated clocks only, seconds a thought takes there; None: what it really took.

    Raises:
        UserError: a value that means nothing.
    """

    seconds: float | None = None
    max_chunks: int | None = None
    mode: Mode = "synchronous"
    stream_hz: float | None = None
    execute_steps: int | None = None
    watchdog_s: float = 10.0
    reconnect_s: float = 5.0
    end: End = "hold"
    smoothing: Smoothing | None = None
    blend_s: float = 0.2
    max_start_offset_rad: float | None = 0.5
    approach: float | None = None
    latency_s: float | None = 0.0

    def __post_init__(self) -> None:
        if self.seconds is None and self.max_chunks is None:
            raise UserError("say when to end: seconds= or max_chunks=")
        ends = (self.seconds, self.max_chunks)
        if any(value is not None and not value > 0 for value in ends):
            raise UserError(f"seconds={ends[0]}, max_chunks={ends[1]}: both must be > 0")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known and not (name == "smoothing" and value is None):
                raise UserError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        if not self.watchdog_s > 0:
            raise UserError(f"watchdog_s is {self.watchdog_s}; give seconds > 0")
        if self.max_start_offset_rad is not None and not self.max_start_offset_rad > 0:
            raise UserError(f"max_start_offset_rad is {self.max_start_offset_rad}; give rad > 0")
        for name in ("reconnect_s", "blend_s"):
            if not (value := getattr(self, name)) >= 0:
                raise UserError(f"{name} is {value}; give seconds >= 0")
        if self.approach is not None and not 0 < self.approach <= 1:
            raise UserError(f"approach {self.approach} is outside (0, 1]: a part of the velocities")

    @property
    def smooths(self) -> bool:
        """Whether chunks are filtered."""
        return (self.smoothing or _SMOOTHING[self.mode]) == "savgol"

    def rate_hz(self, card: Embodiment) -> float:
        """Commands a second; UserError if they are fewer than the card's steps."""
        rate_hz = self.stream_hz or card.action_hz
        if rate_hz < card.action_hz:
            raise UserError(
                f"stream_hz={rate_hz} is below the {card.action_hz} steps/s of {card.name}"
            )
        return rate_hz

    def cadence(self, card: Embodiment) -> tuple[int, int]:
        """(action steps, frames) from one boundary to the next; UserError unless both are whole."""
        half = card.horizon // 2 if self.mode == "overlapped" else card.horizon
        steps = self.execute_steps or half
        frames = steps * card.video_hz / card.action_hz
        if not 0 < steps <= card.horizon or abs(frames - round(frames)) > 1e-9:
            raise UserError(
                f"execute_steps={steps} is not 1..{card.horizon} steps that make whole frames at "
                f"{card.video_hz} Hz"
            )
        return steps, round(frames)
