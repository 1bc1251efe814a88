"""Every run a LeRobot v3.0 episode: what the cameras saw, where the arm was, what was sent to it.

Row i is the moment ``i / rate`` after the first tick; the rate is the higher one of the card's two. A row
holds the newest picture of every view, the state read next to it, and the command that was in force at
the end of the row: the target of its step, after limits, as the motors count it. Pauses in which the arm
held while the policy thought are part of the run and are recorded.

``timing/episode_000000.json`` beside the rows is the run's log (``RunLog.to_json``): when every command
was due, when it went out, what was wanted, which limits changed it, every chunk and every fault.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.resample import nearest
from .base import Robot
from .plan import EPS_S
from .runlog import RunLog
from .spool import Shown, Spool

if TYPE_CHECKING:
    from ..data.writer import Writer


def rate_hz(robot: Robot) -> float:
    """Rows a second."""
    return max(robot.card.action_hz, robot.card.video_hz)


def begin(root: Path, robot: Robot) -> Writer:
    """A writer that adds to the dataset at ``root``, or makes it; close or discard it.

    Raises:
        UserError: what is there does not fit this arm (see ``data.existing``).
    """
    from ..data.writer import Writer

    card, joints = robot.card, list(robot.features.joints)
    if card.state_dim == len(joints):
        states = joints
    else:
        states = [f"{f.key}_{i}" for f in card.state for i in range(f.width)]
    return Writer(
        root,
        rate_hz(robot),
        robot.features.robot,
        robot.features.views,
        states,
        joints,
        append=True,
    )


def rows(
    log: RunLog, pictures: Spool, hz: float
) -> tuple[dict[str, Shown], np.ndarray, np.ndarray]:
    """A run on a regular grid.

    Args:
        pictures: of the run, in order of time.
        hz: rows a second.

    Returns:
        (view -> uint8 ``[t, h, w, 3]``, state float32 ``[t, s]``, action float32 ``[t, a]``).
    """
    count = int((log.due_s[-1] - log.due_s[0]) * hz + EPS_S) + 1
    begin_s = log.due_s[0] + np.arange(count) / hz
    action = np.searchsorted(log.due_s, begin_s + 1 / hz - EPS_S) - 1
    shown = np.clip(np.searchsorted(pictures.due_s, begin_s + EPS_S) - 1, 0, None)
    return pictures.clips(shown), log.state[nearest(log.state_s, begin_s)], log.sent[action]


def add(writer: Writer, robot: Robot, log: RunLog, pictures: Spool) -> None:
    """Add a run to a dataset and close it; a run without a command, a reading or a picture leaves it
    as it was."""
    blind = bool(robot.features.views) and not len(pictures)
    if not len(log.sent_s) or not len(log.state_s) or blind:
        writer.discard()
        return
    frames, state, action = rows(log, pictures, rate_hz(robot))
    success = log.score.get("success") if log.score else None
    index = writer.add_episode(
        frames,
        state,
        action,
        log.instruction,
        extras={
            "ended": log.ended,
            "mode": log.mode,
            "moved": robot.move,
            "success": None if success is None else bool(success),
        },
    )
    text = json.dumps(log.to_json(), allow_nan=False)
    writer.attach(f"timing/episode_{index:06d}.json", text + "\n")
    writer.close()
