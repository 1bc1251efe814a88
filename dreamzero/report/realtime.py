"""A closed loop on the wall clock: the simulated arm never waits for the model.

Control steps have absolute deadlines. At every boundary the newest frame is drawn, the arm goes on
with the chunk it has, and the model thinks meanwhile; from the step after its answer on, the new
chunk is executed, without the steps that are past. A step whose deadline went by while the model
thought was done with the old chunk, and is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..embodiments import Embodiment
from ..types import Policy

if TYPE_CHECKING:
    from ..sim import Scene, Tabletop

Span = tuple[float, float]


@dataclass
class RealTime:
    """One episode; times in seconds since its first command was due.

    Attributes:
        instruction, success: what was asked, and whether it was done.
        step_s: seconds of one control step; execute_steps: steps from one chunk to the next.
        observing, thinking, acting: (start, end) of drawing the newest frame, of the model, and of
            advancing the arm by one step.
        late: control steps whose whole time went by while the model thought.
        frames: uint8 ``[t, h, w, 3]`` at the boundaries, the first before anything moved.
        dreamed: uint8 ``[t, h, w, 3]``: the last frame of the chunk made at each boundary, which is
            about the instant ``ahead`` boundaries later.
    """

    instruction: str
    step_s: float
    execute_steps: int
    ahead: int
    success: bool = False
    observing: list[Span] = field(default_factory=list)
    thinking: list[Span] = field(default_factory=list)
    acting: list[Span] = field(default_factory=list)
    late: int = 0
    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1, 3), np.uint8))
    dreamed: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1, 3), np.uint8))

    @property
    def lasts_s(self) -> float:
        """Seconds from one chunk to the next."""
        return self.execute_steps * self.step_s

    @property
    def chunk_s(self) -> np.ndarray:
        """Float ``[n]``: seconds of thinking a chunk."""
        return np.array([end - start for start, end in self.thinking])

    @property
    def rate_hz(self) -> float:
        """Chunks a second of wall clock that were really made."""
        starts = [start for start, _ in self.thinking[1:]]  # the first thought met an arm at rest
        return (len(starts) - 1) / (starts[-1] - starts[0]) if len(starts) > 1 else 0.0

    @property
    def steps(self) -> int:
        """Control steps done."""
        return len(self.acting)

    @property
    def lateness_s(self) -> np.ndarray:
        """Float ``[steps]``: how long after its deadline each step began."""
        return np.array([start for start, _ in self.acting]) - self.step_s * np.arange(self.steps)

    def foreseen(self) -> dict[str, np.ndarray]:
        """Rows of a film strip of equal instants: what happened, and what had been predicted."""
        n = len(self.frames) - self.ahead
        before = f"dreamed\n{self.ahead * self.lasts_s:.2f} s before"
        return {"happened": self.frames[self.ahead :], before: self.dreamed[:n]}


def run(
    env: Tabletop,
    policy: Policy,
    scene: Scene,
    card: Embodiment,
    execute_steps: int = 2,
    max_steps: int = 128,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> RealTime:
    """Drive one scene in real time.

    Args:
        policy: gets the newest frame alone at every boundary; it may dream (that is thinking, too).
        execute_steps: control steps from one chunk to the next; 2 of 15 a second are 7.5 chunks a
            second.
        max_steps: end after so many control steps, if the task is not done before.
        now, sleep: a clock.

    Raises:
        ValueError: ``execute_steps`` leaves no step for the time of thinking, or no whole frames.
    """
    every = round(card.action_hz / card.video_hz)
    if (
        not 0 < execute_steps < card.horizon
        or execute_steps % every
        or card.horizon % execute_steps
    ):
        raise ValueError(
            f"execute_steps={execute_steps} must divide the {card.horizon} steps of a chunk and make "
            f"whole frames (of {every})"
        )
    view = card.views[0].rsplit(".", 1)[-1]
    made = RealTime(
        scene.instruction, 1 / card.action_hz, execute_steps, card.horizon // execute_steps
    )
    env.reset_quietly(scene)
    policy.reset(scene.instruction)
    begin = now()
    frames: list[np.ndarray] = []
    dreams: list[np.ndarray | None] = []

    def timed(spans: list[Span], start_s: float) -> None:
        spans.append((start_s - begin, now() - begin))

    def think() -> np.ndarray:
        start = now()
        frames.append(env.render_views([view])[view])
        state = env.state()
        timed(made.observing, start)
        return state

    def answer(state: np.ndarray) -> np.ndarray:
        start = now()
        policy.observe({view: frames[-1][None]}, state)
        chunk = policy.act()
        dreams.append(None if chunk.video is None else chunk.video[-1])
        timed(made.thinking, start)
        return np.asarray(chunk.actions)

    def advance(action: np.ndarray) -> None:
        start = now()
        env.advance(action)
        timed(made.acting, start)

    plan, anchor = answer(think()), 0
    # The first chunk met an arm at rest: time begins with its first command.
    offset, begin = now() - begin, now()
    for spans in (made.observing, made.thinking):
        spans[:] = [(a - offset, b - offset) for a, b in spans]
    tick = 0
    while tick < max_steps and not env.success():
        wait = begin + tick * made.step_s - now()
        if wait > 0:
            sleep(wait)
        if tick and tick % execute_steps == 0:
            state, asked = think(), tick
            advance(plan[tick - anchor])
            new = answer(state)
            tick += 1
            while now() > begin + (tick + 1) * made.step_s and tick % execute_steps:
                advance(plan[min(tick - anchor, len(plan) - 1)])
                made.late, tick = made.late + 1, tick + 1
            plan, anchor = new, asked
        else:
            advance(plan[tick - anchor])
            tick += 1
    made.success = env.success()
    made.frames = np.stack(frames)
    if all(dream is not None for dream in dreams):
        made.dreamed = np.stack(dreams)  # type: ignore[arg-type]
    return made
