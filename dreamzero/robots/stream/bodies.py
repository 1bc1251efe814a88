"""Bodies of the stream's frames, to bytes and back; little-endian, as the frames (protocol.py).

    HELLO     0  16  nonce            WELCOME   0  16  nonce of the HELLO   REFUSE  0  16  nonce of the HELLO
             16   1  role                      16  16  companion's nonce           16   1  reason
             17   1  count                     32   4  watchdog, us                17   1  n
             18   1  n                         36   4  greatest age, us            18   n  text, UTF-8
             19   1  0                         40   4  between states, us
             20   n  robot, UTF-8              44   4  between commands, us

    STATE     0   1  count            COMMAND   0   1  count                HOLD, PING, BYE: nothing
              1   1  bytes a number             1   1  bytes a number
              2   2  flags                      2   2  0
              4   2  fault                      4   4  duration, us
              6   2  joint                      8   -  count numbers
              8   8  sampled, ns
             16   8  sequence taken
             24   8  its age, ns
             32   -  count numbers

``count`` is joints and gripper, a number is a float of 4 or 8 bytes, NaN and infinity are refused.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, Self

from .protocol import FrameError

NONCE_BYTES = 16


class Reason(IntEnum):
    """Why there is no session."""

    VERSION = 1
    KEY = 2
    BUSY = 3
    ARM = 4
    FULL = 5


class Role(IntEnum):
    """What a HELLO asks for: to watch, or to move the arm."""

    OBSERVE = 0
    COMMAND = 1


class Flag(IntFlag):
    """What a STATE says beside the pose."""

    HOLDING = 1  # no command is in force
    WATCHDOG = 2  # because commands stopped coming
    FAULT = 4  # the arm is in trouble, see the fault code; held until a HOLD or a new session
    LIMITED = 8  # the setpoint of the moment was changed by a limit


class Fault(IntEnum):
    """Trouble of the arm itself."""

    NONE = 0
    OVERLOAD = 1  # a joint gave in, or a collision was felt
    EMERGENCY_STOP = 2
    VENDOR = 3  # the vendor's controller reports something else, or does not answer


def describe(fault: int, joint: int) -> str:
    """ "overload of joint 3"; later kinds by their number."""
    known = {f.value: f.name.lower().replace("_", " ") for f in Fault}
    known[Fault.VENDOR] = "trouble of its controller"
    return known.get(fault, f"fault {fault}") + (f" of joint {joint}" if joint else "")


def _fields(form: struct.Struct, body: bytes) -> tuple[Any, ...]:
    try:
        return form.unpack_from(body)
    except struct.error:
        raise FrameError("body") from None


def _pack_numbers(values: tuple[float, ...], width: int) -> bytes:
    return struct.pack(f"<{len(values)}{'f' if width == 4 else 'd'}", *values)


def _unpack_numbers(body: bytes, at: int, count: int, width: int) -> tuple[float, ...]:
    """``count`` finite floats of 4 or 8 bytes; FrameError for anything else."""
    if width not in (4, 8) or count == 0:
        raise FrameError("body")
    values = _fields(struct.Struct(f"<{count}{'f' if width == 4 else 'd'}"), body[at:])
    if not all(map(math.isfinite, values)):
        raise FrameError("body")
    return values


_HELLO = struct.Struct("<16sBBBx")
_WELCOME = struct.Struct("<16s16s4I")
_REFUSE = struct.Struct("<16sBB")
_STATE = struct.Struct("<BBHHH3Q")
_COMMAND = struct.Struct("<BBHI")


@dataclass(frozen=True)
class Hello:
    """Asks for a session.

    Attributes:
        nonce: 16 random bytes, new for every connection.
        role: ``Role``.
        count: joints and gripper.
        robot: the card's robot.
    """

    nonce: bytes
    role: int
    count: int
    robot: str

    def pack(self) -> bytes:
        name = self.robot.encode()[:64]
        return _HELLO.pack(self.nonce, self.role, self.count, len(name)) + name

    @classmethod
    def unpack(cls, body: bytes) -> Self:
        nonce, role, count, length = _fields(_HELLO, body)
        name = body[_HELLO.size :][:length]
        if len(name) != length:
            raise FrameError("body")
        return cls(nonce, role, count, name.decode(errors="replace"))


@dataclass(frozen=True)
class Welcome:
    """The companion's answer; the header names the session.

    Attributes:
        nonce: the HELLO's, so that no old answer passes.
        companion_nonce: 16 random bytes; both make the session's keys.
        watchdog_us: it holds when no command has come for so long.
        max_age_us: it refuses commands that are older.
        state_us: time between states.
        command_us: least time between frames of a driver; more are dropped.
    """

    nonce: bytes
    companion_nonce: bytes
    watchdog_us: int
    max_age_us: int
    state_us: int
    command_us: int

    def pack(self) -> bytes:
        times = (self.watchdog_us, self.max_age_us, self.state_us, self.command_us)
        return _WELCOME.pack(self.nonce, self.companion_nonce, *times)

    @classmethod
    def unpack(cls, body: bytes) -> Self:
        return cls(*_fields(_WELCOME, body))


@dataclass(frozen=True)
class Refusal:
    """No session. ``nonce`` is the HELLO's where it could be read, else zeros."""

    nonce: bytes
    reason: int
    text: str = ""

    def pack(self) -> bytes:
        text = self.text.encode()[:128]
        return _REFUSE.pack(self.nonce, self.reason, len(text)) + text

    @classmethod
    def unpack(cls, body: bytes) -> Self:
        nonce, reason, length = _fields(_REFUSE, body)
        text = body[_REFUSE.size :][:length].decode(errors="replace")
        return cls(nonce, reason, "".join(c for c in text if c.isprintable()))


@dataclass(frozen=True)
class State:
    """Where the arm is.

    Attributes:
        values: joints in rad, gripper 0..1, in the card's order; [a].
        sampled_ns: when they were read, the companion's clock.
        flags: ``Flag``. fault: ``Fault``. joint: which one, from 1; 0 where none.
        taken: sequence of the newest COMMAND or HOLD that was taken over, 0 if none.
        age_ns: how old that command was at most when it came.
        width: bytes of a number, 4 or 8.
    """

    values: tuple[float, ...]
    sampled_ns: int
    flags: int = 0
    fault: int = 0
    joint: int = 0
    taken: int = 0
    age_ns: int = 0
    width: int = 8

    def pack(self) -> bytes:
        head = (len(self.values), self.width, self.flags, self.fault, self.joint)
        times = (self.sampled_ns, self.taken, self.age_ns)
        return _STATE.pack(*head, *times) + _pack_numbers(self.values, self.width)

    @classmethod
    def unpack(cls, body: bytes) -> Self:
        count, width, flags, fault, joint, sampled, taken, age = _fields(_STATE, body)
        values = _unpack_numbers(body, _STATE.size, count, width)
        return cls(values, sampled, flags, fault, joint, taken, age, width)


@dataclass(frozen=True)
class Command:
    """Where the arm shall be.

    Attributes:
        values: joints in rad, gripper 0..1, in the card's order; [a].
        duration_us: the setpoint goes there in a straight line within this time.
        width: bytes of a number, 4 or 8.
    """

    values: tuple[float, ...]
    duration_us: int
    width: int = 4

    def pack(self) -> bytes:
        head = _COMMAND.pack(len(self.values), self.width, 0, self.duration_us)
        return head + _pack_numbers(self.values, self.width)

    @classmethod
    def unpack(cls, body: bytes) -> Self:
        count, width, _, duration = _fields(_COMMAND, body)
        return cls(_unpack_numbers(body, _COMMAND.size, count, width), duration, width)
