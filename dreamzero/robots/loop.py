"""The control loop: commands at absolute deadlines, inference beside it.

At a boundary the policy is given what was observed since the last one, and the state; the chunk it
answers with is executed for ``execute_steps`` steps, and then comes the next boundary. What goes back
to the policy is always what was seen, so an arm that was held or limited tells no lies. A whole block
of frames continues the policy's context; after any other number it is given the newest frame alone,
from which it starts anew (MODEL.md 5.3): part of a block written as a whole one corrupts the context.

``synchronous``: the arm holds while the model thinks and the chunk begins when it is there: exactly
what evaluation in simulation does. ``overlapped``: the next chunk is computed while the current one is
executed; its steps belong to the time of its observation, and those already past are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..embodiments import Embodiment
from ..errors import UserError
from ..types import ActionChunk, Policy
from .base import Robot, RobotFault
from .clock import punctual
from .recorder import Recorder
from .runlog import ChunkRecord, RunLog
from .safety import Watchdog
from .thinker import Answer, InlineThinker, Thinker, ThreadThinker

Mode = Literal["synchronous", "overlapped"]
_EPS_S = 1e-6


@dataclass
class _Plan:
    """A chunk in execution: step k is in force from ``anchor_s + k / rate_hz``."""

    actions: np.ndarray
    anchor_s: float
    rate_hz: float
    step: int = -1
    base: np.ndarray | None = None

    def at(self, time_s: float, period_s: float, last: np.ndarray) -> np.ndarray | None:
        """Setpoint at a time, float ``[a]``; None before the first and after the last step.

        Between the steps of a chunk the setpoint runs straight from the last command to the step's
        target, which it reaches with the last command before the next step. At one command a step
        that is the target itself.
        """
        place = (time_s - self.anchor_s) * self.rate_hz + _EPS_S
        step = int(np.floor(place))
        if not 0 <= step < len(self.actions):
            return None
        if step != self.step or self.base is None:
            self.step, self.base = step, last
        share = min(1.0, place - step + self.rate_hz * period_s)
        return np.asarray(self.base + share * (self.actions[step] - self.base))


def run_episode(
    robot: Robot,
    policy: Policy,
    instruction: str,
    *,
    seconds: float | None = None,
    max_chunks: int | None = None,
    mode: Mode = "synchronous",
    stream_hz: float | None = None,
    execute_steps: int | None = None,
    watchdog_s: float = 10.0,
    latency_s: float | None = 0.0,
    keep_frames: bool = True,
    until: Callable[[], bool] | None = None,
) -> RunLog:
    """Let a policy move an arm.

    Args:
        robot: connected, of the embodiment the policy knows.
        policy: anything that keeps the contract of ``Policy``.
        instruction: what to do, in plain words; the card's template is the policy's business.
        seconds: end this long after the first command of a chunk, at a boundary.
        max_chunks: end when so many chunks were executed.
        mode: see the module.
        stream_hz: commands a second, at least the card's ``action_hz`` (the default).
        execute_steps: steps from one boundary to the next, a whole number of video frames. Default:
            the horizon; half of it in ``overlapped``, so that the other half covers the thinking.
        watchdog_s: end the run after holding for so long without a fresh command.
        latency_s: on simulated clocks only, seconds a thought takes there; None: what it really took.
        keep_frames: keep the frames in the log.
        until: asked at each boundary; true ends the run.

    Returns:
        The log. A fault of the arm ends the run and is told there (``log.fault``,
        ``log.raise_for_fault()``); after every end the arm holds.

    Raises:
        UserError: parameters that do not fit. What the policy raises is passed on, the arm held.
    """
    loop = _Loop(robot, policy, mode, stream_hz, execute_steps, watchdog_s, latency_s, keep_frames)
    if seconds is None and max_chunks is None:
        raise UserError("say when to end: seconds= or max_chunks=")
    if (seconds is not None and not seconds > 0) or (max_chunks is not None and max_chunks < 1):
        raise UserError(f"seconds={seconds}, max_chunks={max_chunks}: both must be > 0")
    ended, fault = "fault", ""
    try:
        policy.reset(instruction)
        robot.stop()
        # On a simulated clock the policy thinks on this thread, which must then stay an ordinary one.
        with nullcontext(False) if robot.clock.simulated else punctual() as granted:
            loop.recorder.real_time = granted
            ended = loop.run(seconds, max_chunks, until)
    except RobotFault as error:
        fault = str(error)
    except KeyboardInterrupt:
        ended = "interrupted"
    finally:
        with suppress(RobotFault):
            robot.stop()
    with suppress(RobotFault):
        return loop.recorder.log(instruction, mode, ended, fault, robot.score())
    return loop.recorder.log(instruction, mode, ended, fault, None)


class _Loop:
    def __init__(
        self,
        robot: Robot,
        policy: Policy,
        mode: Mode,
        stream_hz: float | None,
        execute_steps: int | None,
        watchdog_s: float,
        latency_s: float | None,
        keep_frames: bool,
    ) -> None:
        card = robot.card
        if mode not in ("synchronous", "overlapped"):
            raise UserError(f"unknown mode {mode!r}; known: synchronous, overlapped")
        self.steps, self.frames = _cadence(card, mode, execute_steps)
        rate_hz = stream_hz or card.action_hz
        if rate_hz < card.action_hz:
            raise UserError(
                f"stream_hz={rate_hz} is below the {card.action_hz} steps/s of {card.name}"
            )
        self.robot, self.policy, self.card = robot, policy, card
        self.overlapped = mode == "overlapped"
        self.period_s = 1 / rate_hz
        self.watchdog = Watchdog(watchdog_s)
        clock = robot.clock
        self.thinker: Thinker = (
            InlineThinker(clock, latency_s) if clock.simulated else ThreadThinker()
        )
        self.recorder = Recorder(card, rate_hz, tuple(robot.features.views), keep_frames)
        self.plan: _Plan | None = None
        # Time from which frames and steps are counted to the next boundary; None before the first
        # chunk, and while a synchronous arm waits for the next.
        self.origin_s: float | None = None
        self.seen = 0
        self.asked_s = 0.0
        self.boundaries = 0
        self.moving_s: float | None = None

    def run(
        self, seconds: float | None, max_chunks: int | None, until: Callable[[], bool] | None
    ) -> str:
        """Ticks until something ends it; returns what did."""
        clock = self.robot.clock
        begin = clock.now()
        self.recorder.begin(begin)
        self._look()
        self._ask(begin)
        tick = 0
        while True:
            due = begin + tick * self.period_s
            clock.sleep_until(due)
            self._adopt(due)
            moved = self._command(due)
            boundary = self._observe(due)
            if boundary:
                self.boundaries += 1
                over = max_chunks is not None and self.boundaries >= max_chunks
                if seconds is not None and self.moving_s is not None:
                    over |= due - self.moving_s >= seconds - _EPS_S
                if over:
                    return "done"
                if until is not None and until():
                    return "until"
                self._ask(due)
                self._adopt(due)
            if not moved and not self._command(due):
                self._hold(due)
                if self.watchdog.expired(clock.now()):
                    return "watchdog"
            # Deadlines are absolute: after a late tick the lost ones are counted, not made up for.
            behind = int((clock.now() - due) / self.period_s + _EPS_S)
            lost = max(0, behind - 1) if behind else 0
            self.recorder.missed += lost
            tick += 1 + lost

    def _adopt(self, due: float) -> None:
        """Take over the next chunk if it is there."""
        answer = self.thinker.poll()
        if answer is None:
            return
        chunk = answer.chunk
        if chunk.actions.ndim != 2 or chunk.actions.shape[1] != self.card.action_dim:
            raise UserError(
                f"the policy's chunk has shape {list(chunk.actions.shape)}; {self.card.name} "
                f"takes [k, {self.card.action_dim}]"
            )
        if len(chunk.actions) < self.steps:
            raise UserError(
                f"the policy's chunk has {len(chunk.actions)} steps, fewer than the {self.steps} "
                "executed between two observations"
            )
        if self.moving_s is None:
            self.moving_s = due
        # The first chunk met an arm at rest: its observation still holds when it is ready.
        anchor = self.asked_s if self.overlapped and self.plan is not None else due
        self.plan = _Plan(np.asarray(chunk.actions, np.float64), anchor, chunk.rate_hz)
        if self.origin_s is None:
            self.origin_s = due
        self._record(answer, anchor, due)

    def _record(self, answer: Answer, anchor: float, due: float) -> None:
        chunk = answer.chunk
        self.recorder.chunk(
            ChunkRecord(
                observed_s=self.asked_s,
                ready_s=self.robot.clock.now(),
                anchor_s=anchor,
                think_s=answer.think_s,
                frames=self.seen,
                dropped_steps=round((due - anchor) * chunk.rate_hz),
                actions=np.asarray(chunk.actions, np.float32),
                video=chunk.video,
                info=dict(chunk.info),
            )
        )

    def _command(self, due: float) -> bool:
        """Send the plan's setpoint; false if there is none for now."""
        if self.plan is None:
            return False
        target = self.plan.at(due, self.period_s, self.robot.guard.last)
        if target is None:
            return False
        self._send(due, target, held=False)
        self.watchdog.feed(self.robot.clock.now())
        return True

    def _hold(self, due: float) -> None:
        self._send(due, self.robot.guard.last, held=True)

    def _send(self, due: float, target: np.ndarray, held: bool) -> None:
        sent_s = self.robot.clock.now()
        sent = self.robot.act(target)
        decision = self.robot.decision
        clipped = decision is not None and decision.clipped
        self.recorder.command(due, sent_s, target, sent, held, clipped)
        if decision is not None:
            self.recorder.count(decision)

    def _observe(self, due: float) -> bool:
        """Read the arm, take the frames that are due; true at a boundary."""
        wanted = 0
        if self.origin_s is not None:
            passed = int((due - self.origin_s) * self.card.video_hz + _EPS_S)
            wanted = passed - self.recorder.taken
        if wanted <= 0:
            self.recorder.state(self.robot.observe(views=()))
            return False
        # Never past a boundary in one go: a policy is given whole blocks.
        self._look(min(wanted, self.frames - self.recorder.taken % self.frames))
        # While an answer is awaited another question would mix up the policy: wait for the next.
        taken = self.recorder.taken
        return taken >= self.frames and taken % self.frames == 0 and not self.thinker.busy

    def _look(self, count: int = 1) -> None:
        observation = self.robot.observe()
        self.recorder.state(observation)
        self.recorder.frame(observation, count)

    def _ask(self, due: float) -> None:
        """Give the policy what was seen since the last time, and have it think."""
        frames, state, self.seen = self.recorder.drain()
        self.asked_s = due
        if self.origin_s is not None:
            self.origin_s = due if self.overlapped else None

        policy = self.policy

        def thought() -> ActionChunk:
            policy.observe(frames, state)
            return policy.act()

        self.thinker.submit(thought)


def _cadence(card: Embodiment, mode: Mode, execute_steps: int | None) -> tuple[int, int]:
    """(action steps, frames) from one boundary to the next; UserError unless both are whole."""
    steps = execute_steps or (card.horizon // 2 if mode == "overlapped" else card.horizon)
    frames = steps * card.video_hz / card.action_hz
    if not 0 < steps <= card.horizon or abs(frames - round(frames)) > 1e-9:
        raise UserError(
            f"execute_steps={steps} is not 1..{card.horizon} steps that make whole frames at "
            f"{card.video_hz} Hz"
        )
    return steps, round(frames)
