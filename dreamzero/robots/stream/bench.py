"""What the link to an arm is like, measured while it moves a little about where it stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ...embodiments import Embodiment
from ...errors import UserError
from ..clock import punctual
from ..uri import parse
from .driver import StreamRobot

_SWING_RAD, _SWING_HZ = 0.1, 0.5


@dataclass(frozen=True)
class Report:
    """Figures of one run. Shares are of 1; ages, delays and jitter in ms; -1 where nothing was measured.

    Attributes:
        seconds, hz, commands: how long, how often, how many; 0 commands is a dry run.
        rtt_*: round trips of the network, without the time a frame was held.
        jitter_ms: of the states' travel time (RFC 3550). loss_up, loss_down: to the arm and from it.
        command_age_*: of commands when the companion takes them, at most, by the synchronised clocks.
        state_age_*: of the newest state when it is looked at. offset_error_ms: bound of both.
        holds: times the companion held because commands did not come.
        unsafe: measured poses outside the card's limits, or further apart than its velocities allow.
    """

    seconds: float
    hz: float
    commands: int
    rtt_p50_ms: float
    rtt_p99_ms: float
    jitter_ms: float
    loss_up: float
    loss_down: float
    reordered: int
    corrupt: int
    command_age_p50_ms: float
    command_age_p99_ms: float
    state_age_p50_ms: float
    state_age_p99_ms: float
    offset_error_ms: float
    holds: int
    unsafe: int

    def to_dict(self) -> dict[str, float]:
        """JSON-ready."""
        return asdict(self)


def run(
    uri: str, card: Embodiment, seconds: float = 5.0, hz: float | None = None, move: bool = True
) -> Report:
    """Connect, swing every joint by up to 0.1 rad at 0.5 Hz, and report the link.

    Args:
        uri: ``udp://host:port?...`` of a companion, real or emulated.
        card: of its robot.
        seconds: how long.
        hz: commands a second; default: the card's action rate.
        move: false only observes.

    Raises:
        UserError: as connecting does, or ``seconds`` or ``hz`` are not positive. LinkLost: on the way.
    """
    rate_hz = card.action_hz if hz is None else hz
    if not (seconds > 0 and rate_hz > 0):
        raise UserError(f"bench: seconds={seconds} and hz={rate_hz} must be > 0")
    with StreamRobot(parse(uri, ("udp",)), card, move=move) as arm, punctual():
        return _measure(arm, seconds, rate_hz)


def _measure(arm: StreamRobot, seconds: float, rate_hz: float) -> Report:
    lower, upper = np.array(arm.features.lower), np.array(arm.features.upper)
    home = arm.observe(views=()).state[: len(lower)].astype(np.float64)
    swing = np.clip(np.minimum(home - lower, upper - home), 0.0, _SWING_RAD)
    poses, times, samples, commands = [], [], [], 0
    begin = arm.clock.now()
    for tick in range(max(2, round(seconds * rate_hz))):
        arm.clock.sleep_until(begin + tick / rate_hz)
        arm.act(home + swing * np.sin(2 * np.pi * _SWING_HZ * tick / rate_hz))
        commands += arm.move
        observation = arm.observe(views=())
        poses.append(observation.state[: len(lower)].astype(np.float64))
        times.append(observation.time_s)
        samples.append(arm.stats())
    last = samples[-1]

    def percentile(name: str, share: float) -> float:
        values = [s[name] for s in samples if not np.isnan(s[name])]
        return float(np.percentile(values, share)) if values else -1.0

    late = [bool(sample["watchdog"]) for sample in samples]
    return Report(
        seconds=arm.clock.now() - begin,
        hz=rate_hz,
        commands=commands,
        rtt_p50_ms=percentile("rtt_ms", 50),
        rtt_p99_ms=percentile("rtt_ms", 99),
        jitter_ms=last["jitter_ms"],
        loss_up=last["loss_out"],
        loss_down=last["loss_in"],
        reordered=int(last["reordered"]),
        corrupt=int(last["corrupt"]),
        command_age_p50_ms=percentile("command_age_ms", 50),
        command_age_p99_ms=percentile("command_age_ms", 99),
        state_age_p50_ms=percentile("state_age_ms", 50),
        state_age_p99_ms=percentile("state_age_ms", 99),
        offset_error_ms=last["offset_error_ms"],
        holds=sum(now and not before for before, now in zip([False, *late], late, strict=False)),
        unsafe=unsafe(np.array(poses), np.array(times), arm.card),
    )


def unsafe(
    poses: np.ndarray, times_s: np.ndarray, card: Embodiment, slack_rad: float = 0.02
) -> int:
    """Measured poses ``[n, a]`` outside the limits, or further from the one before than velocities allow.

    Args:
        poses: float ``[n, a]``. times_s: float ``[n]``, when each was measured.
        slack_rad: what measuring and servo overshoot may add.
    """
    lower, upper, velocity = (np.array(x) for x in (card.lower, card.upper, card.velocity))
    outside = ((poses < lower - slack_rad) | (poses > upper + slack_rad)).any(axis=1)
    reach = velocity * np.maximum(np.diff(times_s), 0.0)[:, None] + slack_rad
    fast = (np.abs(np.diff(poses, axis=0)) > reach).any(axis=1)
    return int(outside.sum() + fast.sum())
