"""Collects what the control loop sends and sees, and turns it into a ``RunLog``."""

from __future__ import annotations

import numpy as np

from ..embodiments import Embodiment
from ..types import Observation
from .runlog import ChunkRecord, RunLog
from .safety import Decision


class Recorder:
    """Lists that grow while the loop runs; times are kept since ``begin``.

    ``taken`` counts the frames since the last ``drain``, the one at a boundary being the last.
    """

    def __init__(
        self, card: Embodiment, stream_hz: float, views: tuple[str, ...], keep_frames: bool
    ) -> None:
        self._card = card
        self._stream_hz = stream_hz
        self._views = views
        self._keep = keep_frames
        self._zero_s = 0.0
        self._commands: list[tuple[float, float, np.ndarray, np.ndarray, bool, bool]] = []
        self._states: list[tuple[float, np.ndarray]] = []
        self._fresh: list[Observation] = []
        self._frames: list[tuple[float, dict[str, np.ndarray]]] = []
        self._chunks: list[ChunkRecord] = []
        self._counts = {"refused": 0, "position": 0, "velocity": 0}
        self.missed = 0
        self.repeated = 0
        self.real_time = False

    @property
    def taken(self) -> int:
        return len(self._fresh)

    def begin(self, time_s: float) -> None:
        self._zero_s = time_s

    def command(
        self,
        due_s: float,
        sent_s: float,
        wanted: np.ndarray,
        sent: np.ndarray,
        held: bool,
        clipped: bool,
    ) -> None:
        row = (due_s - self._zero_s, sent_s - self._zero_s, wanted.copy(), sent, held, clipped)
        self._commands.append(row)

    def count(self, decision: Decision) -> None:
        """Add up what the limits did."""
        self._counts["refused"] += decision.refused
        self._counts["position"] += bool(decision.position.any())
        self._counts["velocity"] += bool(decision.velocity.any())

    def state(self, observation: Observation) -> None:
        self._states.append((observation.time_s - self._zero_s, observation.state))

    def frame(self, observation: Observation, count: int) -> None:
        """Take an observation's frames, ``count`` times where deadlines were lost."""
        self._fresh += [observation] * count
        self.repeated += count - 1
        if self._keep:
            time_s = observation.time_s - self._zero_s
            self._frames += [(time_s, dict(observation.frames))] * count

    def drain(self) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
        """(frames view -> uint8 ``[t, h, w, 3]``, newest state ``[s]``, t) for the policy.

        A whole block since the last call is given as it is, else the newest frame alone. The views
        are those of the card that the arm has a camera for.
        """
        fresh, self._fresh = self._fresh, []
        if len(fresh) != self._card.frames_per_block:
            fresh = fresh[-1:]
        views = [view for view in self._card.views if view in self._views]
        frames = {v: np.stack([o.frames[v] for o in fresh]) for v in views}
        return frames, fresh[-1].state, len(fresh)

    def chunk(self, record: ChunkRecord) -> None:
        zero = self._zero_s
        times = {k: getattr(record, k) - zero for k in ("observed_s", "ready_s", "anchor_s")}
        self._chunks.append(ChunkRecord(**(vars(record) | times)))

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
            missed=self.missed,
            repeated_frames=self.repeated,
            score=score,
            real_time=self.real_time,
        )
