"""What happened in one run on an arm, and the figures that say whether it kept time."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .base import RobotFault
from .safety import RULES


@dataclass(frozen=True)
class ChunkRecord:
    """One prediction.

    Attributes:
        observed_s: time of the newest frame it saw.
        ready_s: when it was there.
        anchor_s: time of its first action step; steps before ``ready_s`` were dropped.
        think_s: seconds that observe and act took.
        frames: new frames it was given.
        dropped_steps: action steps that were over before it was ready.
        actions: float32 ``[k, a]`` as the policy gave them.
        video: uint8 ``[t, h, w, 3]`` it dreamed, if it decoded that.
        info: the policy's own figures.
    """

    observed_s: float
    ready_s: float
    anchor_s: float
    think_s: float
    frames: int
    dropped_steps: int
    actions: np.ndarray
    video: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """Something failed at ``time_s``; ``back_s`` is when the arm was reached again, None if never."""

    time_s: float
    text: str
    back_s: float | None = None


@dataclass
class RunLog:
    """Everything of one run; times in seconds since its first tick.

    A row a command: ``due_s`` [n] when it should have gone out, ``sent_s`` [n] when it did,
    ``wanted`` [n, a] what the policy asked for, ``sent`` [n, a] what left after limits, ``held`` [n]
    whether it only held still, ``clipped`` [n] whether limits changed it. A row a reading: ``state_s``
    [m], ``state`` [m, s]. A row a frame the policy was given: ``frames_s`` [t], ``frames`` view ->
    uint8 [t, h, w, 3] (empty unless kept).

    Attributes:
        instruction, mode, stream_hz: what was asked.
        ended: "done", "until", "watchdog", "interrupted", "estop" or "fault".
        fault: the fault that ended the run, or who stopped it, in words; else empty.
        missed: deadlines that went by without a command while the arm could be reached.
        repeated_frames: pictures used twice, because their time fell into missed deadlines.
        score: what the simulation says of the outcome, if it is one.
        real_time: whether the system gave the loop real-time scheduling.
        faults: what failed, also where the run went on.
        begin_s: the clock at the first tick.
    """

    instruction: str
    mode: str
    stream_hz: float
    due_s: np.ndarray
    sent_s: np.ndarray
    wanted: np.ndarray
    sent: np.ndarray
    held: np.ndarray
    clipped: np.ndarray
    state_s: np.ndarray
    state: np.ndarray
    frames_s: np.ndarray
    frames: dict[str, np.ndarray]
    chunks: list[ChunkRecord]
    counts: dict[str, int]
    ended: str
    fault: str = ""
    missed: int = 0
    repeated_frames: int = 0
    score: dict[str, object] | None = None
    real_time: bool = False
    faults: list[Fault] = field(default_factory=list)
    begin_s: float = 0.0

    @property
    def lateness_s(self) -> np.ndarray:
        """Float ``[n]``: how long after its deadline each command went out."""
        return self.sent_s - self.due_s

    @property
    def jitter_s(self) -> np.ndarray:
        """Float ``[n - 1]``: how far each interval between commands was from the one that was due."""
        return np.abs(np.diff(self.sent_s) - np.diff(self.due_s))

    @property
    def age_s(self) -> np.ndarray:
        """Float ``[chunks]``: how old the newest frame a chunk was made from was when it was ready."""
        return np.array([chunk.ready_s - chunk.observed_s for chunk in self.chunks])

    @property
    def outage_s(self) -> np.ndarray:
        """Float ``[faults]``: how long each fault kept the arm out of reach; 0 for one that ended it."""
        return np.array(
            [(f.time_s if f.back_s is None else f.back_s) - f.time_s for f in self.faults]
        )

    def raise_for_fault(self) -> None:
        """RobotFault if the run ended in one."""
        if self.fault:
            raise RobotFault(self.fault)

    def summary(self) -> dict[str, float]:
        """Figures of the run; times in ms where the name says so."""
        out = {
            "seconds": float(self.sent_s[-1]) if len(self.sent_s) else 0.0,
            "commands": float(len(self.sent_s)),
            "deadlines_missed": float(self.missed),
            "chunks": float(len(self.chunks)),
            "held_share": float(self.held.mean()) if len(self.held) else 0.0,
            "clipped_commands": float(self.clipped.sum()),
            **{f"{rule}_commands": float(self.counts.get(rule, 0)) for rule in RULES},
            "repeated_frames": float(self.repeated_frames),
            "dropped_steps": float(sum(chunk.dropped_steps for chunk in self.chunks)),
            "faults": float(len(self.faults)),
            "outage_s": float(self.outage_s.sum()),
        }
        figures = {
            "lateness": self.lateness_s,
            "jitter": self.jitter_s,
            "think": np.array([chunk.think_s for chunk in self.chunks]),
            "observation_age": self.age_s,
        }
        for name, values in figures.items():
            if len(values):
                p50, p99 = np.percentile(values, (50, 99))
                out |= {
                    f"{name}_p50_ms": 1e3 * float(p50),
                    f"{name}_p99_ms": 1e3 * float(p99),
                    f"{name}_max_ms": 1e3 * float(values.max()),
                }
        if len(self.chunks) > 1:
            span = self.chunks[-1].ready_s - self.chunks[0].ready_s
            out["chunk_rate_hz"] = (len(self.chunks) - 1) / span if span > 0 else 0.0
        return out

    def to_json(self) -> dict[str, Any]:
        """Everything but pictures, as plain JSON types."""
        chunks = []
        for chunk in self.chunks:
            data = asdict(chunk) | {"actions": _plain(chunk.actions), "video": None}
            data["info"] = {k: v for k, v in chunk.info.items() if isinstance(v, int | float | str)}
            chunks.append(data)
        arrays = ("due_s", "sent_s", "wanted", "sent", "held", "clipped", "state_s", "state")
        return {
            "instruction": self.instruction,
            "mode": self.mode,
            "stream_hz": self.stream_hz,
            "ended": self.ended,
            "fault": self.fault,
            "faults": [asdict(fault) for fault in self.faults],
            "score": self.score,
            "real_time": self.real_time,
            "summary": self.summary(),
            "counts": self.counts,
            "chunks": chunks,
            "frames_s": self.frames_s.tolist(),
            **{name: _plain(getattr(self, name)) for name in arrays},
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``to_json`` to a file."""
        Path(path).write_text(json.dumps(self.to_json(), allow_nan=False) + "\n")


def _plain(array: np.ndarray) -> list[Any]:
    """Nested lists; what is not finite becomes None, which JSON has a word for."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return list(array.tolist())
    plain = array.astype(object)
    plain[~np.isfinite(array)] = None
    return list(plain.tolist())
