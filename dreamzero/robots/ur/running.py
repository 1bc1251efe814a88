"""``stream.script`` as the emulated controller executes it: the same statements, a cycle at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .program import Command, Program, Status


@dataclass
class Running:
    """One uploaded program.

    Attributes:
        goal: ``target_q``, where the joints are wanted now, in rad. ``servoj`` is a first-order lag
            of its lookahead time here (its gain has no effect), ``stopj`` a constant deceleration.
        last: sequence number last read.
        status: a ``program.Status``, as in the status register.
        quiet_s, unbeaten_s: since the last fresh target, and since the last heartbeat.
    """

    program: Program
    goal: list[float]
    last: int
    status: int = Status.HOLDING
    target: tuple[float, ...] = ()
    speed: list[float] = field(default_factory=lambda: [0.0] * 6)
    quiet_s: float = 0.0
    unbeaten_s: float = 0.0
    moving: bool = False
    stopping: bool = False
    leave: bool = False

    def step(self, values: dict[str, tuple[Any, ...]], here: tuple[float, ...]) -> bool:
        """One cycle; false when the program has ended."""
        program, step_s = self.program, self.program.step_s
        self.unbeaten_s += step_s
        if self.unbeaten_s > 1 / program.beat_hz:
            return False
        if self.stopping:
            self.stopping = self._brake()
            return self.stopping or not self.leave
        (sequence,) = values[program.sequence]
        if sequence != self.last:
            self.last, self.quiet_s = sequence, 0.0
            (command,) = values[program.command]
            if command == Command.FOLLOW:
                self.target = tuple(values[name][0] for name in program.targets)
                stale = self.status == Status.STALE
                most = program.resume_rad if stale else program.leap_rad
                far = any(abs(t - h) > most for t, h in zip(self.target, here, strict=True))
                self.status = Status.TOO_FAR if far else Status.FOLLOWING
            else:
                self.status = Status.HOLDING
                self.leave = command == Command.END
        else:
            self.quiet_s += step_s
            if self.status == Status.FOLLOWING and self.quiet_s > program.patience_s:
                self.status = Status.STALE
        values[program.status] = (int(self.status),)
        values[program.echo] = (self.last,)
        if self.status == Status.FOLLOWING and not self.leave:
            share = 1 - math.exp(-step_s / program.lookahead_s)
            for i, target in enumerate(self.target):
                move = (target - self.goal[i]) * share
                self.speed[i] = move / step_s
                self.goal[i] += move
            self.moving = True
        elif self.moving or self.leave:
            self.moving, self.stopping = False, True
        return True

    def _brake(self) -> bool:
        """One cycle of stopj; whether anything still moves."""
        step_s = self.program.step_s
        most = self.program.stop_rad_s2 * step_s
        for i, speed in enumerate(self.speed):
            self.speed[i] = speed - math.copysign(min(abs(speed), most), speed)
            self.goal[i] += self.speed[i] * step_s
        return any(self.speed)
