"""The servos' side of a bus, without I/O: requests in, answers out, registers between.

A protocol says how a request is answered (``ServoBus.answer``) and how its servos count turns;
what an arm of servos is to the emulator's world is here.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from ...errors import UserError
from ..calibration import Calibration
from ..emulation.device import Wire
from .codec import Packet, Parser, Register

# Two servos of one joint whose goals are further apart than this block each other.
_QUARREL_TICKS = 20


class Servo(ABC):
    """One servo: its memory, and the faults it was told to have.

    Attributes:
        memory: bytes of the memory table.
        silent: answers nothing.
        stuck: takes goals but does not move.
        pending: parameters of a write that waits for the action instruction.
    """

    registers: ClassVar[Mapping[str, Register]]
    memory_bytes: ClassVar[int]

    def __init__(self, **values: int) -> None:
        self.memory = bytearray(self.memory_bytes)
        self.silent = self.stuck = False
        self.pending = b""
        for name, value in values.items():
            self.set(name, value)

    def get(self, name: str) -> int:
        register = self.registers[name]
        return register.from_bytes(bytes(self.memory[register.address :][: register.size]))

    def set(self, name: str, value: int) -> None:
        register = self.registers[name]
        end = register.address + register.size
        self.memory[register.address : end] = register.to_bytes(value)

    def restrain(self, name: str, value: float) -> None:
        """Set a register to the nearest value that fits."""
        low, high = self.registers[name].range
        self.set(name, min(max(round(value), low), high))

    @abstractmethod
    def shown(self, tick: int) -> int:
        """The encoder's tick, counted on through turns, as the position registers show it."""

    @abstractmethod
    def meant(self, shown: int) -> int:
        """The other way round."""

    @abstractmethod
    def measure(self, tick: int, elapsed_s: float) -> None:
        """Put the encoder's tick into the registers, with what follows from it."""

    @abstractmethod
    def overload(self) -> None:
        """The servo has been overloaded: it says so and lets go."""

    @abstractmethod
    def mend(self) -> None:
        """As before all faults; torque stays off."""

    @property
    def free(self) -> bool:
        """Whether it drives its joint."""
        return bool(self.get("torque_enable")) and not self.stuck


S = TypeVar("S", bound=Servo)


class ServoBus(ABC, Generic[S]):
    """All servos of one arm. ``feed`` takes what came over the wire and returns what goes back.

    The bus and the physics run on different threads; ``lock`` keeps a sync write whole.

    Args:
        calibration: ticks to the card's units, with nothing in the servos' homing offsets.
        servos: one for each joint, in the same order.
        shadows: further servos, with the index of the joint that each helps to move.
    """

    faults = ("silent", "stuck", "overload")
    parser: ClassVar[type[Parser]]

    def __init__(
        self, calibration: Calibration, servos: Sequence[S], shadows: Sequence[tuple[int, S]] = ()
    ) -> None:
        self.calibration, self.names = calibration, calibration.names
        self.lock = threading.Lock()
        self.servos, self.shadows = list(servos), list(shadows)
        self.packets = 0
        self._parser = self.parser()

    @property
    def everyone(self) -> list[S]:
        return self.servos + [servo for _, servo in self.shadows]

    def feed(self, data: bytes) -> bytes:
        """Answers to every whole request in ``data`` and what came before it."""
        answers = bytearray()
        for packet in self._parser.feed(data):
            self.packets += 1
            with self.lock:
                answers += self.answer(packet)
        return bytes(answers)

    @abstractmethod
    def answer(self, packet: Packet) -> bytes:
        """What goes back over the wire."""

    def goals(self) -> tuple[np.ndarray, np.ndarray]:
        """(float64 ``[a]`` goals in the card's units, bool ``[a]`` torque on and free to move)."""
        with self.lock:
            ticks = [servo.meant(servo.get("goal_position")) for servo in self.servos]
            live = [servo.free for servo in self.servos]
            for i, shadow in self.shadows:
                gap = abs(shadow.meant(shadow.get("goal_position")) - ticks[i])
                live[i] = live[i] and shadow.free and gap <= _QUARREL_TICKS
        goal = [j.to_value(tick) for j, tick in zip(self.calibration.joints, ticks, strict=True)]
        return np.array(goal), np.array(live)

    def measure(self, values: np.ndarray, elapsed_s: float) -> None:
        """Put measured positions, float ``[a]``, into the registers; speeds over ``elapsed_s``."""
        ticks = [
            round(joint.zero_tick + joint.sign * float(value) / joint.scale)
            for joint, value in zip(self.calibration.joints, values, strict=True)
        ]
        with self.lock:
            pairs = [*enumerate(self.servos), *self.shadows]
            for i, servo in pairs:
                if not servo.stuck:
                    servo.measure(ticks[i], elapsed_s)

    def rest(self) -> None:
        """Make the present positions the goals (after the arm was put elsewhere)."""
        with self.lock:
            for servo in self.everyone:
                servo.restrain("goal_position", servo.get("present_position"))

    def fault(self, kind: str, joint: int) -> None:
        """See ``emulation.device.Device``; ``joint`` is the servo's id."""
        with self.lock:
            servos = [s for s in self.everyone if s.get("id") == joint]
            if not servos:
                raise UserError(f"fault {kind!r} of servo {joint}: there is no such servo")
            for servo in servos:
                if kind == "mend":
                    servo.silent = servo.stuck = False
                    servo.mend()
                elif kind == "overload":
                    servo.overload()
                else:
                    setattr(servo, kind, True)

    def report(self) -> dict[str, Any]:
        return {"packets": self.packets}

    def listen(self, at: str) -> Wire:
        from ..emulation.pty import PtyWire

        if at != "pty":
            raise UserError(f"servos listen on a pty, not at {at!r}")
        return PtyWire(self.feed)
