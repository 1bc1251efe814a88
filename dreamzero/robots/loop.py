"""The control loop: commands at absolute deadlines, inference beside it.

At a boundary the policy is given what was observed since the last one, and the state; the chunk it
answers with is executed for ``execute_steps`` steps, and then comes the next boundary. What goes back
to the policy is always what was seen, so an arm that was held or limited tells no lies. A whole block
of frames continues the policy's context; after any other number it is given the newest frame alone,
from which it starts anew (MODEL.md 5.3): part of a block written as a whole one corrupts the context.

``synchronous``: the arm holds while the model thinks and the chunk begins when it is there: exactly
what evaluation in simulation does. ``overlapped``: the next chunk is computed while the current one is
executed; its steps belong to the time of its newest frame, and those already past are dropped.

A lost wire makes the arm hold, for a motor that hears nothing keeps its last goal. The loop tries the wire
again; once it is back the limits start from the pose the arm is found in, an answer still awaited is
thrown away, and the policy begins anew from one fresh frame.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress

import numpy as np

from ..errors import UserError
from ..types import Observation
from .base import LinkLost, Robot, RobotFault, Stopped
from .clock import punctual
from .options import Options
from .pilot import Pilot
from .plan import EPS_S, straight
from .recorder import Journal
from .safety import Decision, Watchdog
from .thinker import Ended, Mind

RETRY_S = 0.05
# The way home: this part of the allowed velocities.
_HOMING = 0.2


def drive(
    robot: Robot, mind: Mind, journal: Journal, options: Options, pictures: bool = False
) -> tuple[str, str]:
    """Let a mind move a connected arm until something ends it; afterwards the arm holds.

    Args:
        pictures: take pictures also while the policy is not shown any, for a dataset.

    Returns:
        (``RunLog.ended``, ``RunLog.fault``).

    Raises:
        UserError: options or chunks that do not fit the arm. What the policy raises is passed on.
    """
    loop = Loop(robot, mind, journal, options, pictures)
    ended, fault = "fault", ""
    try:
        robot.stop()
        # On a simulated clock the policy thinks on this thread, which must then stay an ordinary one.
        with nullcontext(False) if robot.clock.simulated else punctual() as granted:
            ended = loop.run(granted)
    except Stopped as error:
        ended, fault = "estop", str(error)
    except RobotFault as error:
        fault = str(error)
    except KeyboardInterrupt:
        ended = "interrupted"
    finally:
        if not loop.relaxed:
            with suppress(RobotFault):
                robot.stop()
    return ended, fault


class Loop:
    """One run; ``run`` may be called once. Arguments as ``drive``."""

    def __init__(
        self, robot: Robot, mind: Mind, journal: Journal, options: Options, pictures: bool
    ) -> None:
        card = robot.card
        steps, self.frames = options.cadence(card)
        self.period_s = 1 / options.rate_hz(card)
        self.robot, self.mind, self.journal, self.card = robot, mind, journal, card
        self.options, self.pictures = options, pictures
        self.overlapped = options.mode == "overlapped"
        self.watchdog = Watchdog(options.watchdog_s)
        self.pilot = Pilot(robot, options, steps)
        # Before the first chunk, and after an outage: ask with one fresh frame.
        self.anew = True
        # Time from which frames and steps are counted to the next boundary; None before the first
        # chunk, and while a synchronous arm waits for the next.
        self.origin_s: float | None = None
        self.taken = 0
        self.number = 0
        self.asked_s = self.observed_s = self.newest_s = 0.0
        self.pictured_s = -np.inf
        self.boundaries = 0
        self.moving_s: float | None = None
        self.relaxed = False

    def run(self, real_time: bool = False) -> str:
        """Ticks until something ends it; returns what did."""
        clock = self.robot.clock
        begin = clock.now()
        home = self.robot.guard.last
        self.journal.begin(begin, real_time)
        tick = 0
        try:
            while True:
                due = begin + tick * self.period_s
                clock.sleep_until(due)
                try:
                    ended = self._tick(due)
                except LinkLost as error:
                    self._recover(error)
                    tick = int((clock.now() - begin) / self.period_s) + 1
                    continue
                if ended:
                    break
                # Deadlines are absolute: after a late tick the lost ones are counted, not made up for.
                behind = int((clock.now() - due) / self.period_s + EPS_S)
                lost = max(0, behind - 1) if behind else 0
                if lost:
                    self.journal.missed(lost)
                tick += 1 + lost
        except Ended as end:
            ended = end.reason
        except RobotFault as error:
            if not isinstance(error, LinkLost | Stopped):
                self.journal.fault(clock.now(), str(error))
            raise
        if ended == "interrupted":
            return ended
        return self._finish(ended, home)

    def _tick(self, due: float) -> str:
        """One command and one reading; what ended the run, or ""."""
        # A clock that waits lets an answer come within the tick that asks. Else the command goes first,
        # so that no reading delays it.
        waits = self.robot.clock.simulated
        if waits:
            self._begin_anew(due)
        self._adopt(due)
        moved = self._command(due)
        if not waits:
            if not moved:
                self._hold(due)
            self._begin_anew(due)
        if self._observe(due):
            self.boundaries += 1
            limit = self.options.max_chunks
            over = limit is not None and self.boundaries >= limit
            if self.options.seconds is not None and self.moving_s is not None:
                over |= due - self.moving_s >= self.options.seconds - EPS_S
            if over:
                return "done"
            self._ask(due)
            self._adopt(due)
        if waits and not moved:
            moved = self._command(due)
            if not moved:
                self._hold(due)
        return "watchdog" if not moved and self.watchdog.expired(self.robot.clock.now()) else ""

    def _begin_anew(self, due: float) -> None:
        """Ask with one fresh frame, at the start and after an outage."""
        if self.anew and not self.mind.busy:
            self._look(due)
            self._ask(due)

    def _recover(self, error: LinkLost) -> None:
        """Wait for the wire; raises ``error`` if it stays away."""
        clock = self.robot.clock
        lost_s = clock.now()
        self.journal.fault(lost_s, str(error))
        while True:
            if clock.now() - lost_s >= self.options.reconnect_s:
                raise error
            self.mind.poll()  # an answer of before is worth nothing now; raises if the run is over
            try:
                self.robot.reconnect()
                break
            except Stopped:
                raise
            except UserError:
                clock.sleep_until(clock.now() + RETRY_S)
        self.journal.back(clock.now())
        self.pilot.lose()
        self.origin_s, self.anew = None, True
        self.watchdog.feed(clock.now())

    def _adopt(self, due: float) -> None:
        """Take over the next chunk if it is there."""
        answer = self.mind.poll()
        if answer is None or answer.number != self.number or self.anew:
            return
        # A picture is older than the question; a clock that read it cannot be later than that.
        adopted = self.pilot.adopt(answer.chunk, due, min(self.observed_s, self.asked_s))
        if adopted is None:
            return
        anchor, dropped = adopted
        if self.moving_s is None:
            self.moving_s = due
        if self.origin_s is None:
            self.origin_s = due
        ready_s = self.robot.clock.now()
        self.journal.chunk(answer.number, self.observed_s, ready_s, anchor, dropped)

    def _command(self, due: float) -> bool:
        """Send the setpoint that is due; false if there is none for now."""
        target = self.pilot.target(due)
        if target is None:
            if self.pilot.approaching:
                # It is where the chunk began that it was given then: ask for one that begins here.
                self.pilot.plan, self.anew = None, True
            return False
        if not self._send(due, target, held=False).refused:
            self.watchdog.feed(self.robot.clock.now())
        return True

    def _hold(self, due: float) -> None:
        self._send(due, self.robot.guard.last, held=True)

    def _send(self, due: float, target: np.ndarray, held: bool) -> Decision:
        sent_s = self.robot.clock.now()
        sent = self.robot.act(target)
        decision = self.robot.decision
        assert decision is not None
        self.pilot.sent(due, decision.action)
        self.journal.command(due, sent_s, target, sent, held, decision.rules)
        return decision

    def _observe(self, due: float) -> bool:
        """Read the arm, take the frames that are due; true at a boundary."""
        wanted = 0
        if self.origin_s is not None:
            passed = int((due - self.origin_s) * self.card.video_hz + EPS_S)
            wanted = passed - self.taken
        if wanted <= 0:
            waiting = self.pictures and self.origin_s is None
            if waiting and due - self.pictured_s >= 1 / self.card.video_hz - EPS_S:
                self._look(due, count=0)
            else:
                self._read(self.robot.observe((), self._left_s(due)))
            return False
        # Never past a boundary in one go: a policy is given whole blocks.
        self._look(due, min(wanted, self.frames - self.taken % self.frames))
        # While an answer is awaited another question would mix up the policy: wait for the next.
        boundary = self.taken >= self.frames and self.taken % self.frames == 0
        return boundary and not self.mind.busy

    def _look(self, due: float, count: int = 1) -> None:
        """Take a picture of every view, for the policy unless ``count`` is 0."""
        observation = self.robot.observe(within_s=self._left_s(due))
        self._read(observation)
        self.journal.frame(due, observation, max(count, 1), shown=count > 0)
        self.pictured_s = due
        if count:
            self.taken += count
            self.newest_s = observation.time_s

    def _left_s(self, due: float) -> float:
        """How long a reading may take so that the next command is on time."""
        return max(0.8 * (due + self.period_s - self.robot.clock.now()), 1e-3)

    def _read(self, observation: Observation) -> None:
        self.pilot.pose = np.asarray(observation.state[: self.card.action_dim], np.float64)
        self.journal.state(observation.time_s, observation.state)

    def _ask(self, due: float) -> None:
        """Give the policy what was seen since the last time, and have it think."""
        self.number += 1
        self.asked_s, self.observed_s = due, self.newest_s
        if self.origin_s is not None:
            self.origin_s = due if self.overlapped else None
        anew, self.anew, self.taken = self.anew, False, 0
        self.mind.ask(self.number, anew)

    def _finish(self, ended: str, home: np.ndarray) -> str:
        """Hold, relax, or go back to where the arm began; returns what ended the run after all."""
        if self.options.end == "relax" and self.robot.move:
            self.robot.relax()
            self.relaxed = True
        if self.options.end != "home":
            return ended
        clock, rate_hz = self.robot.clock, 1 / self.period_s
        begin, start = clock.now(), self.robot.guard.last
        velocity = _HOMING * np.asarray(self.robot.guard.limits.velocity)
        way = straight(start, home, velocity, begin, rate_hz)
        for step, target in enumerate(way.actions):
            due = begin + step / rate_hz
            clock.sleep_until(due)
            if ended != "orphaned":
                try:
                    self.mind.poll()
                except Ended as end:
                    return end.reason
            self._send(due, target, held=False)
            self._read(self.robot.observe((), self._left_s(due)))
        return ended
