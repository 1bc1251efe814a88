"""Collects what the control loop sends and sees, and turns it into a ``RunLog``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..embodiments import Embodiment
from ..types import ActionChunk, Observation
from .runlog import ChunkRecord, Fault, RunLog
from .safety import RULES
from .spool import Spool


class Journal(Protocol):
    """What the loop reports, as it happens; times are the clock's."""

    def begin(self, time_s: float, real_time: bool) -> None:
        """The first tick, and whether the system schedules the loop in real time."""

    def command(
        self,
        due_s: float,
        sent_s: float,
        wanted: np.ndarray,
        sent: np.ndarray,
        held: bool,
        rules: Sequence[str],
    ) -> None:
        """One command, float ``[a]`` before and after the limits of ``rules``."""

    def state(self, time_s: float, state: np.ndarray) -> None:
        """One reading, float ``[s]``."""

    def frame(self, due_s: float, observation: Observation, count: int, shown: bool) -> None:
        """Pictures, ``count`` times where deadlines were lost; ``shown``: the policy gets them."""

    def chunk(
        self, number: int, observed_s: float, ready_s: float, anchor_s: float, dropped_steps: int
    ) -> None:
        """The answer to question ``number`` was taken over; see ``ChunkRecord``."""

    def missed(self, count: int) -> None:
        """Deadlines that went by without a command, outages apart."""

    def fault(self, time_s: float, text: str) -> None:
        """Something failed."""

    def back(self, time_s: float) -> None:
        """The wire of the last fault is back."""


class Recorder:
    """A ``Journal`` of lists that grow.

    Args:
        card: of the arm.
        stream_hz: commands a second.
        views: the arm's.
        keep_frames: keep what the policy was shown, for the log.
        pictures: where every picture goes, for a dataset; None keeps none.
    """

    def __init__(
        self,
        card: Embodiment,
        stream_hz: float,
        views: tuple[str, ...],
        keep_frames: bool = True,
        pictures: Spool | None = None,
    ) -> None:
        self._card = card
        self._stream_hz = stream_hz
        self._views = views
        self._keep_frames, self.pictures = keep_frames, pictures
        self._zero_s = 0.0
        self._real_time = False
        self._commands: list[tuple[float, float, np.ndarray, np.ndarray, bool, bool]] = []
        self._states: list[tuple[float, np.ndarray]] = []
        self._fresh: list[Observation] = []
        self._frames: list[tuple[float, dict[str, np.ndarray]]] = []
        self._thoughts: dict[int, tuple[ActionChunk, float, int]] = {}
        self._chunks: list[ChunkRecord] = []
        self._faults: list[Fault] = []
        self._counts = dict.fromkeys(RULES, 0)
        self._missed = self._repeated = 0

    def begin(self, time_s: float, real_time: bool) -> None:
        self._zero_s, self._real_time = time_s, real_time

    def command(
        self,
        due_s: float,
        sent_s: float,
        wanted: np.ndarray,
        sent: np.ndarray,
        held: bool,
        rules: Sequence[str],
    ) -> None:
        times = due_s - self._zero_s, sent_s - self._zero_s
        self._commands.append((*times, wanted.copy(), sent, held, bool(rules)))
        for rule in rules:
            self._counts[rule] += 1

    def state(self, time_s: float, state: np.ndarray) -> None:
        self._states.append((time_s - self._zero_s, state))

    def frame(self, due_s: float, observation: Observation, count: int, shown: bool) -> None:
        frames = dict(observation.frames)
        if self.pictures is not None:
            self.pictures.add(due_s - self._zero_s, frames)
        if not shown:
            return
        self._fresh += [observation] * count
        self._repeated += count - 1
        if self._keep_frames:
            self._frames += [(observation.time_s - self._zero_s, frames)] * count

    def missed(self, count: int) -> None:
        self._missed += count

    def fault(self, time_s: float, text: str) -> None:
        self._faults.append(Fault(time_s - self._zero_s, text))

    def back(self, time_s: float) -> None:
        last = self._faults[-1]
        self._faults[-1] = Fault(last.time_s, last.text, time_s - self._zero_s)

    def drain(self, anew: bool = False) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
        """(frames view -> uint8 ``[t, h, w, 3]``, newest state ``[s]``, t) for the policy.

        A whole block since the last call is given as it is unless it begins ``anew``, else the newest
        frame alone. The views are those of the card that the arm has a camera for.
        """
        fresh, self._fresh = self._fresh, []
        if anew or len(fresh) != self._card.frames_per_block:
            fresh = fresh[-1:]
        views = [view for view in self._card.views if view in self._views]
        frames = {v: np.stack([o.frames[v] for o in fresh]) for v in views}
        return frames, fresh[-1].state, len(fresh)

    def thought(self, number: int, chunk: ActionChunk, think_s: float, frames: int) -> None:
        """The policy's answer to a question, and how many new frames it was given."""
        self._thoughts[number] = (chunk, think_s, frames)

    def chunk(
        self, number: int, observed_s: float, ready_s: float, anchor_s: float, dropped_steps: int
    ) -> None:
        chunk, think_s, frames = self._thoughts[number]
        self._thoughts.clear()
        zero = self._zero_s
        self._chunks.append(
            ChunkRecord(
                observed_s=observed_s - zero,
                ready_s=ready_s - zero,
                anchor_s=anchor_s - zero,
                think_s=think_s,
                frames=frames,
                dropped_steps=dropped_steps,
                actions=np.asarray(chunk.actions, np.float32),
                video=chunk.video,
                info=dict(chunk.info),
            )
        )

    def progress(self) -> dict[str, float]:
        """A few figures of the run so far, cheap enough to show while it goes on."""
        last = self._commands[-40:]
        return {
            "seconds": last[-1][1] if last else 0.0,
            "commands": float(len(self._commands)),
            "chunks": float(len(self._chunks)),
            "late_ms": 1e3 * max((sent - due for due, sent, *_ in last), default=0.0),
            "missed": float(self._missed),
            "clipped": float(sum(self._counts.values())),
            "holding": float(bool(last) and last[-1][4]),
            "out": float(bool(self._faults) and self._faults[-1].back_s is None),
        }

    def log(
        self,
        instruction: str,
        mode: str,
        ended: str,
        fault: str,
        score: dict[str, object] | None,
    ) -> RunLog:
        """Everything so far."""
        a, s = self._card.action_dim, self._card.state_dim
        due, sent_s, wanted, sent, held, clipped = (
            zip(*self._commands, strict=True) if self._commands else ((),) * 6
        )
        pictures = {
            v: np.stack([f[v] for _, f in self._frames]) for v in self._views if self._frames
        }
        return RunLog(
            instruction=instruction,
            mode=mode,
            stream_hz=self._stream_hz,
            due_s=np.array(due, np.float64),
            sent_s=np.array(sent_s, np.float64),
            wanted=np.array(wanted, np.float32).reshape(-1, a),
            sent=np.array(sent, np.float32).reshape(-1, a),
            held=np.array(held, bool),
            clipped=np.array(clipped, bool),
            state_s=np.array([t for t, _ in self._states], np.float64),
            state=np.array([x for _, x in self._states], np.float32).reshape(-1, s),
            frames_s=np.array([t for t, _ in self._frames], np.float64),
            frames=pictures,
            chunks=self._chunks,
            counts=self._counts,
            ended=ended,
            fault=fault,
            missed=self._missed,
            repeated_frames=self._repeated,
            score=score,
            real_time=self._real_time,
            faults=self._faults,
            begin_s=self._zero_s,
        )
