"""The URScript program that moves the arm: made from ``stream.script``, and read back from it.

RTDE itself moves nothing. A program on the controller does, which reads joint targets from input
registers and gives one to ``servoj`` in each control cycle. Sources: Universal Robots' script manual
(``servoj``: lookahead 0.03 to 0.2 s, gain 100 to 2000; ``rtde_set_watchdog``) and "Connecting to
URControl": ``def`` and ``end`` in the first column, every other line indented.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cache
from importlib import resources

from ...errors import UserError
from .variables import REGISTERS, UPPER_RANGE

NAME = "dreamzero_stream"


class Command(IntEnum):
    """What the command register asks for."""

    HOLD = 0
    FOLLOW = 1
    END = 2


class Status(IntEnum):
    """What the status register answers."""

    HOLDING = 1
    FOLLOWING = 2
    STALE = 3
    TOO_FAR = 4


_RESUME = 0.4


@dataclass(frozen=True)
class Program:
    """The numbers of one such program.

    Attributes:
        registers: first of the registers it uses: doubles ``[6]`` for the targets, integers for
            sequence, command and heartbeat; on the output side integers for status and the
            sequence last read.
        step_s: control cycle of the controller: 0.002 (e-Series) or 0.008 (CB3).
        lookahead_s, gain: of ``servoj``.
        stop_rad_s2: deceleration of ``stopj``.
        patience_s: time without a fresh target after which the arm stops.
        leap_rad: a target further than this from where a joint is, is not followed.
        beat_hz: slowest heartbeat with which the program goes on.

    Raises:
        UserError: a number that the controller does not take.
    """

    registers: int = UPPER_RANGE
    step_s: float = 0.002
    lookahead_s: float = 0.1
    gain: int = 300
    stop_rad_s2: float = 5.0
    patience_s: float = 0.2
    leap_rad: float = 1.0
    beat_hz: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.registers <= REGISTERS - 6:
            raise UserError(f"registers={self.registers}: the first of six, 0 to {REGISTERS - 6}")
        if not 0.03 <= self.lookahead_s <= 0.2:
            raise UserError(f"lookahead of {self.lookahead_s} s: servoj takes 0.03 to 0.2 s")
        if not 100 <= self.gain <= 2000:
            raise UserError(f"gain={self.gain}: servoj takes 100 to 2000")
        for field in fields(self):
            if field.name not in ("registers", "gain") and not 0 < getattr(self, field.name) < 1e3:
                raise UserError(f"{field.name} is {getattr(self, field.name)}; give a number > 0")

    @property
    def targets(self) -> tuple[str, ...]:
        """Input variables of the six joint targets, in rad."""
        return tuple(f"input_double_register_{self.registers + i}" for i in range(6))

    @property
    def resume_rad(self) -> float:
        """The same after a pause: the arm stands, and only a first step may lie between."""
        return _RESUME * self.leap_rad

    @property
    def sequence(self) -> str:
        return f"input_int_register_{self.registers}"

    @property
    def command(self) -> str:
        return f"input_int_register_{self.registers + 1}"

    @property
    def beat(self) -> str:
        return f"input_int_register_{self.registers + 2}"

    @property
    def status(self) -> str:
        return f"output_int_register_{self.registers}"

    @property
    def echo(self) -> str:
        return f"output_int_register_{self.registers + 1}"

    def text(self) -> str:
        """The program as the controller takes it, ASCII with a line end after ``end``."""
        first = self.registers
        numbers = {
            "sequence": first,
            "command": first + 1,
            "beat": first + 2,
            "status": first,
            "echo": first + 1,
            "beat_hz": self.beat_hz,
            "step": self.step_s,
            "patience": self.patience_s,
            "leap": self.leap_rad,
            "resume": round(self.resume_rad, 4),
            "lookahead": self.lookahead_s,
            "gain": self.gain,
            "stop": self.stop_rad_s2,
        } | {f"q{i}": first + i for i in range(6)}
        return string.Template(_template()).substitute(numbers)

    @classmethod
    def parse(cls, text: str) -> Program:
        """The numbers of a program as ``text`` writes it.

        Raises:
            Refused: it is any other program, or names numbers that the controller does not take.
        """
        number = r"(\d+(?:\.\d+)?)"
        found: dict[str, float] = {}
        for key, pattern in {
            "registers": rf"last = read_input_integer_register\({number}\)",
            "beat_hz": rf'rtde_set_watchdog\("\w+", {number}, "stop"\)',
            "patience_s": rf"quiet > {number}:",
            "leap_rad": rf"far = {number}\n",
            "stop_rad_s2": rf"stopj\({number}\)",
        }.items():
            match = re.search(pattern, text)
            if match:
                found[key] = float(match[1])
        servo = re.search(rf"servoj\(target, 0, 0, {number}, {number}, {number}\)", text)
        if servo:
            found |= zip(("step_s", "lookahead_s", "gain"), map(float, servo.groups()), strict=True)
        try:
            numbers = {k: int(v) if k in ("registers", "gain") else v for k, v in found.items()}
            program = cls(**numbers)  # type: ignore[arg-type]
        except UserError as error:
            raise Refused(1, 1, str(error)) from error
        lines, known = text.rstrip("\n").split("\n"), program.text().rstrip("\n").split("\n")
        for i, (line, right) in enumerate(zip(lines, known, strict=False), start=1):
            if line != right:
                column = next(
                    (c for c, (a, b) in enumerate(zip(line, right, strict=False)) if a != b),
                    min(len(line), len(right)),
                )
                raise Refused(i, column + 1, f"unknown statement: {line.strip()}")
        if len(lines) != len(known):
            raise Refused(min(len(lines), len(known)), 1, "the program breaks off or goes on")
        return program


class Refused(UserError):
    """A program that is not run: line and column (from 1 on), and why."""

    def __init__(self, line: int, column: int, why: str) -> None:
        super().__init__(why)
        self.line, self.column = line, column


@cache
def _template() -> str:
    return resources.files(__package__).joinpath("stream.script").read_text("ascii")
