"""An untrained tiny model's world: its card, random frames, one episode."""

from __future__ import annotations

import numpy as np

from dreamzero import embodiments
from dreamzero.data.normalize import FieldStatistics, Statistics
from dreamzero.inference import WorldActionPolicy

CARD = embodiments.get("tabletop_so101").with_(memory_blocks=None)
VIEW = CARD.views[0]


def statistics() -> Statistics:
    rng = np.random.default_rng(0)
    state = {f.key: FieldStatistics.of(rng.normal(size=(50, f.width))) for f in CARD.state}
    action = {f.key: FieldStatistics.of(rng.normal(size=(50, f.width))) for f in CARD.action}
    return Statistics(state=state, action=action)


def frames(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {VIEW: rng.integers(0, 255, (count, 64, 64, 3), dtype=np.uint8)}


STATE = np.linspace(-0.5, 0.5, CARD.state_dim, dtype=np.float32)


def episode(policy: WorldActionPolicy, chunks: int) -> list[np.ndarray]:
    policy.reset("push the red block")
    policy.observe(frames(1), STATE)
    out = [policy.act().actions]
    for i in range(1, chunks):
        policy.observe(frames(8, i), STATE)
        out.append(policy.act().actions)
    return out
