"""Inference beside the control loop: ask now, look for the answer at every tick."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..types import ActionChunk
from .clock import Clock

Thought = Callable[[], ActionChunk]


@dataclass(frozen=True)
class Answer:
    """A chunk and the wall seconds it took."""

    chunk: ActionChunk
    think_s: float


class Thinker(Protocol):
    """One thought at a time."""

    @property
    def busy(self) -> bool: ...

    def submit(self, thought: Thought) -> None: ...

    def poll(self) -> Answer | None:
        """The answer once it is there; raises what the thought raised."""


class ThreadThinker:
    """Thinks on a daemon thread: a thought that never ends must not keep the program alive."""

    def __init__(self) -> None:
        self._answer: Answer | BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None

    def submit(self, thought: Thought) -> None:
        self._thread = threading.Thread(target=self._run, args=(thought,), daemon=True)
        self._thread.start()

    def poll(self) -> Answer | None:
        if self._thread is None or self._thread.is_alive():
            return None
        answer, self._answer, self._thread = self._answer, None, None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self, thought: Thought) -> None:
        begin = time.perf_counter()
        try:
            chunk = thought()
            self._answer = Answer(chunk, time.perf_counter() - begin)
        except BaseException as error:  # noqa: BLE001  raised again where the loop polls
            self._answer = error


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
