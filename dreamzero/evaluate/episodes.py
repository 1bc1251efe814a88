"""What a closed-loop episode is, and many of them counted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .statistics import Rate, mean_interval, wilson


@dataclass(frozen=True)
class Episode:
    """One rollout.

    Attributes:
        seed: scene number; the scene is a function of (suite, seed) alone.
        task: for example "push-red-left"; progress: partial credit in [0, 1] at the end.
        chunks, seconds: chunks executed, and what the policy took for them (wall clock).
        video: observed frames uint8 ``[t, h, w, 3]`` at the card's video rate, if kept.
        dreamed: what the policy predicted for the same instants (from frame 1 on), if it dreams.
    """

    seed: int
    task: str
    instruction: str
    success: bool
    progress: float
    chunks: int
    seconds: float
    video: np.ndarray | None = None
    dreamed: np.ndarray | None = None


@dataclass
class Evaluation:
    """All rollouts of one policy on one suite."""

    policy: str
    suite: str
    episodes: list[Episode] = field(default_factory=list)

    @property
    def success(self) -> Rate:
        return wilson(sum(e.success for e in self.episodes), len(self.episodes))

    @property
    def progress(self) -> Rate:
        return mean_interval([e.progress for e in self.episodes], (0.0, 1.0))

    def by_verb(self) -> dict[str, Rate]:
        """Success by the first word of the task."""
        verbs = sorted({e.task.split("-")[0] for e in self.episodes})
        return {
            verb: wilson(sum(e.success for e in group), len(group))
            for verb in verbs
            for group in [[e for e in self.episodes if e.task.split("-")[0] == verb]]
        }

    @property
    def chunk_rate_hz(self) -> float:
        """Chunks a second of policy time."""
        return sum(e.chunks for e in self.episodes) / max(
            sum(e.seconds for e in self.episodes), 1e-9
        )
