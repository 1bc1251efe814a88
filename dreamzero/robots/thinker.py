"""Inference beside the control loop: ask now, look for the answer at every tick."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from ..types import ActionChunk, Policy
from .clock import Clock
from .recorder import Recorder

Thought = Callable[[], ActionChunk]


class Ended(Exception):
    """The run is over; ``reason`` as in ``RunLog.ended``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Answer:
    """A chunk, the wall seconds it took, and the number of the question."""

    chunk: ActionChunk
    think_s: float
    number: int = 0


class Thinker(Protocol):
    """One thought at a time."""

    @property
    def busy(self) -> bool: ...

    def submit(self, thought: Thought) -> None: ...

    def poll(self) -> Answer | None:
        """The answer once it is there; raises what the thought raised."""


class ThreadThinker:
    """Thinks on a daemon thread: a thought that never ends must not keep the program alive.

    Args:
        done: called with each answer on that thread, as soon as it is there.
    """

    def __init__(self, done: Callable[[Answer], None] | None = None) -> None:
        self._done = done
        self._answer: Answer | BaseException | None = None
        self.busy = False

    def submit(self, thought: Thought) -> None:
        self.busy = True
        threading.Thread(target=self._run, args=(thought,), daemon=True).start()

    def poll(self) -> Answer | None:
        answer = self._answer
        if answer is None:
            return None
        self._answer, self.busy = None, False
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self, thought: Thought) -> None:
        begin = time.perf_counter()
        try:
            answer = Answer(thought(), time.perf_counter() - begin)
        except BaseException as error:  # noqa: BLE001  raised again where the loop polls
            self._answer = error
            return
        self._answer = answer
        if self._done is not None:
            self._done(answer)


class InlineThinker:
    """For simulated clocks: thinks at once, and lets the answer arrive after ``latency_s``.

    Args:
        clock: the simulated one.
        latency_s: simulated seconds that a thought takes; None takes what it really took.
    """

    def __init__(self, clock: Clock, latency_s: float | None = 0.0) -> None:
        self._clock = clock
        self._latency_s = latency_s
        self._answer: Answer | None = None
        self._ready_s = 0.0

    @property
    def busy(self) -> bool:
        return self._answer is not None

    def submit(self, thought: Thought) -> None:
        begin = time.perf_counter()
        chunk = thought()
        self._answer = Answer(chunk, time.perf_counter() - begin)
        latency_s = self._answer.think_s if self._latency_s is None else self._latency_s
        self._ready_s = self._clock.now() + latency_s

    def poll(self) -> Answer | None:
        if self._answer is None or self._clock.now() < self._ready_s - 1e-9:
            return None
        answer, self._answer = self._answer, None
        return answer


class Mind(Protocol):
    """What the loop asks for chunks, in this process or in another."""

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""

    def ask(self, number: int, anew: bool) -> None:
        """Have the policy think about what was seen since the last question.

        Args:
            number: comes back with the answer.
            anew: begin a new context with the newest frame alone.

        Raises:
            Ended: it is no longer wanted.
        """

    def poll(self) -> Answer | None:
        """The answer, once. Raises what the policy raised, or Ended."""


class PolicyMind:
    """A policy and what was recorded for it.

    Args:
        policy: is observed and acted with, one thought at a time.
        recorder: has the frames, and gets what came of them.
        thinker: where thoughts are thought.
        until: asked before every question but those that begin anew; true ends the run.
    """

    def __init__(
        self,
        policy: Policy,
        recorder: Recorder,
        thinker: Thinker,
        until: Callable[[], bool] | None = None,
    ) -> None:
        self._policy, self._recorder, self._thinker = policy, recorder, thinker
        self._until = until
        self.number = self._seen = 0

    @property
    def busy(self) -> bool:
        return self._thinker.busy

    def ask(self, number: int, anew: bool) -> None:
        if not anew and self._until is not None and self._until():
            raise Ended("until")
        frames, state, self._seen = self._recorder.drain(anew)
        self.number = number
        policy = self._policy

        def thought() -> ActionChunk:
            policy.observe(frames, state)
            return policy.act()

        self._thinker.submit(thought)

    def poll(self) -> Answer | None:
        answer = self._thinker.poll()
        if answer is None:
            return None
        self._recorder.thought(self.number, answer.chunk, answer.think_s, self._seen)
        return replace(answer, number=self.number)
