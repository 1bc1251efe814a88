"""One episode on an arm: ``run_episode`` is the way in, whatever the arm is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ..types import Policy
from . import recording
from .base import Robot, RobotFault, Stopped
from .loop import drive
from .options import Options
from .recorder import Recorder
from .runlog import RunLog
from .spool import Spool
from .streaming import Streaming
from .thinker import InlineThinker, PolicyMind, ThreadThinker

Progress = Callable[[dict[str, float]], None]


def run_episode(
    robot: Robot,
    policy: Policy,
    instruction: str,
    *,
    until: Callable[[], bool] | None = None,
    keep_frames: bool = True,
    record: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> RunLog:
    """Let a policy move an arm.

    An arm of ``robots.open`` on the machine's own clock is streamed to from a process of its own, which
    opens the arm by its address and knows nothing of the policy: however busy that keeps this process,
    commands go out on time. Should this process die, that one holds the arm and ends. Simulated arms,
    whose clock waits, and arms made by hand stay in this process.

    Args:
        robot: of the embodiment the policy knows; connected or not, and afterwards as it was before
            (after a fault or with ``end="relax"``: not connected).
        policy: anything that keeps the contract of ``Policy``.
        instruction: what to do, in plain words; the card's template is the policy's business.
        until: asked at each boundary; true ends the run.
        keep_frames: keep the frames in the log.
        record: folder of a LeRobot v3.0 dataset, new or of the same arm; the run becomes its next
            episode (see ``recording``).
        progress: called a few times a second with ``Recorder.progress()``; real clocks only.
        options: fields of ``Options``: ``seconds`` or ``max_chunks``
            (one of them), ``mode``, ``stream_hz``, ``watchdog_s``, ``smoothing`` ...

    Returns:
        The log. A fault of the arm ends the run and is told there (``log.fault``,
        ``log.raise_for_fault()``); after every end the arm holds, or does what ``end`` says.

    Raises:
        UserError: parameters that do not fit, a first command that is too far away, an arm whose
            emergency stop is pressed. RobotFault: an arm that was not connected and did not answer.
            What the policy raises is passed on, the arm held and the run recorded as far as it came.
    """
    settings = Options(**options)
    settings.cadence(robot.card)
    if robot.estop is not None and (why := robot.estop.pressed()):
        raise Stopped(f"{robot} was stopped {why}; 'dreamzero robot stop --clear' frees it")
    writer = None if record is None else recording.begin(Path(record), robot)
    recorder = Recorder(
        robot.card,
        settings.rate_hz(robot.card),
        tuple(robot.features.views),
        keep_frames,
        pictures=None if record is None else Spool(Path(record).absolute().parent),
    )
    ended, fault, score = "error", "", None
    try:
        if robot.clock.simulated or robot.recipe is None:
            ended, fault, score = _here(robot, policy, instruction, settings, recorder, until)
        else:
            stream = Streaming(robot, settings, pictures=record is not None)
            ended, fault = stream.run(policy, instruction, recorder, until, progress)
    finally:
        log = recorder.log(instruction, settings.mode, ended, fault, score)
        if writer is not None and recorder.pictures is not None:
            with closing(recorder.pictures) as pictures:
                recording.add(writer, robot, log, pictures)
    return log


def _here(
    robot: Robot,
    policy: Policy,
    instruction: str,
    options: Options,
    recorder: Recorder,
    until: Callable[[], bool] | None,
) -> tuple[str, str, dict[str, object] | None]:
    """The episode in this process: what ended it, the fault, the score."""
    connected = robot.connected
    robot.connect()
    try:
        clock = robot.clock
        simulated = clock.simulated
        thinker = InlineThinker(clock, options.latency_s) if simulated else ThreadThinker()
        policy.reset(instruction)
        mind = PolicyMind(policy, recorder, thinker, until)
        ended, fault = drive(robot, mind, recorder, options, recorder.pictures is not None)
        score = None
        with suppress(RobotFault):
            score = robot.score()
        return ended, fault, score
    finally:
        if not connected:
            robot.close()
