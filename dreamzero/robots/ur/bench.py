"""How well this machine streams to a UR controller: a target every control cycle, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...embodiments import Embodiment
from ...errors import UserError
from .. import uri as uris
from ..clock import punctual
from .arm import UrRobot

_AMPLITUDE_RAD = 0.03
_SWING_HZ = 0.5


@dataclass(frozen=True)
class StreamTimes:
    """What ``stream`` measured.

    Attributes:
        rate_hz: targets a second, the controller's own rate.
        real_time: whether the kernel granted real-time scheduling.
        deadlines: how many there were.
        missed: of those, passed by a whole period or more before the target was out, or left out.
        late_s: float64 ``[n]``, how long after its deadline each target had been sent.
        age_s: float64 ``[n]``, how old the newest state was at each target.
        behind: int ``[n]``, targets that the program on the controller had not read yet then.
        packages: states received, of ``cycles`` that the controller went through meanwhile.
    """

    rate_hz: float
    real_time: bool
    deadlines: int
    missed: int
    late_s: np.ndarray
    age_s: np.ndarray
    behind: np.ndarray
    packages: int
    cycles: int

    @property
    def missed_share(self) -> float:
        return self.missed / self.deadlines

    def summary(self) -> dict[str, float]:
        """Figures as a report shows them: shares in percent, times in ms."""
        late_ms, age_ms = 1000 * self.late_s, 1000 * self.age_s
        return {
            "deadlines": float(self.deadlines),
            "missed_percent": 100 * self.missed_share,
            "late_p50_ms": float(np.percentile(late_ms, 50)),
            "late_p99_ms": float(np.percentile(late_ms, 99)),
            "late_max_ms": float(late_ms.max()),
            "age_p50_ms": float(np.percentile(age_ms, 50)),
            "age_p99_ms": float(np.percentile(age_ms, 99)),
            "behind_p50": float(np.percentile(self.behind, 50)),
            "behind_p99": float(np.percentile(self.behind, 99)),
            "states_lost_percent": 100 * max(0.0, 1 - self.packages / max(self.cycles, 1)),
        }


def stream(
    uri: str, card: Embodiment, seconds: float = 10.0, *, move: bool | None = None
) -> StreamTimes:
    """Stream targets to an arm at its control rate; the last joint swings by 0.03 rad.

    Args:
        uri: ``tcp://...``, an emulator's or a real arm's; its cameras stay closed.
        card: embodiment card of the arm.
        seconds: how long.
        move: as in ``robots.open``; a real arm needs ``True``.

    Raises:
        UserError: it would be a dry run. RobotFault: the arm or the wire failed.
    """
    where = uris.parse(uri, ("tcp",))
    # Without cameras: an ordinary thread of theirs can hold the interpreter's lock while the kernel puts
    # it aside, and this is about the wire to the arm.
    kept = {k: v for k, v in where.query.items() if not k.startswith("camera")}
    where = replace(where, query=kept)
    robot = UrRobot(where, card, move=not where.hardware if move is None else move)
    if not robot.move:
        raise UserError(f"{robot}: a dry run sends nothing that could be timed; move=True moves it")
    with robot:
        rate_hz = robot.link.rate_hz
        count, period_s = round(seconds * rate_hz), 1 / rate_hz
        late, age = np.zeros(count), np.zeros(count)
        behind = np.zeros(count, int)
        target = robot.guard.last
        middle = float(target[5])
        clock, link = robot.clock, robot.link
        sent, missed = 0, 0
        with punctual() as granted:
            first, packages = link.latest()[0]["timestamp"], link.packages
            begin, tick = clock.now() + period_s, 0
            while tick < count:
                due = begin + tick * period_s
                clock.sleep_until(due)
                swing = np.sin(2 * np.pi * _SWING_HZ * tick * period_s)
                target[5] = middle + _AMPLITUDE_RAD * swing
                robot.act(target)
                late[sent] = clock.now() - due
                state, arrived_s = link.latest()
                age[sent] = clock.now() - arrived_s
                behind[sent] = robot.unread(state)
                lost = int(late[sent] / period_s)
                missed += lost
                tick += 1 + max(0, lost - 1)
                sent += 1
            last, packages = link.latest()[0]["timestamp"], link.packages - packages
    return StreamTimes(
        rate_hz=rate_hz,
        real_time=granted,
        deadlines=tick,
        missed=missed,
        late_s=late[:sent],
        age_s=age[:sent],
        behind=behind[:sent],
        packages=packages,
        cycles=round((last - first) * rate_hz),
    )
