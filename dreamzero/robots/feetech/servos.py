"""The servos' side of the Feetech bus, without I/O: requests in, answers out, registers between."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import UserError
from ..calibration import SO101, Calibration
from ..emulation.device import Wire
from . import protocol as feetech
from .protocol import BROADCAST, STS3215, Instruction, Packet

_REPLY_TO_ALL = 1
_OVERLOAD = 0x20


@dataclass
class Servo:
    """One STS3215: its memory, and the faults it was told to have.

    Attributes:
        memory: bytes of the memory table.
        silent: answers nothing.
        stuck: takes goals but does not move.
        error: error bits in every answer.
    """

    memory: bytearray = field(default_factory=lambda: bytearray(feetech.MEMORY_BYTES))
    silent: bool = False
    stuck: bool = False
    error: int = 0
    pending: bytes = b""

    def get(self, name: str) -> int:
        register = STS3215[name]
        return register.from_bytes(bytes(self.memory[register.address :][: register.size]))

    def set(self, name: str, value: int) -> None:
        register = STS3215[name]
        end = register.address + register.size
        self.memory[register.address : end] = register.to_bytes(value)

    def write(self, params: bytes) -> None:
        """Address and data of a write; what is read-only stays as it is."""
        for i, value in enumerate(params[1:], start=params[0] if params else 0):
            if i in _WRITABLE:
                self.memory[i] = value


_WRITABLE = {r.address + i for r in STS3215.values() if r.writable for i in range(r.size)}


class ServoBus:
    """All servos of one arm. ``feed`` takes what came over the wire and returns what goes back.

    The bus and the physics run on different threads; ``lock`` keeps a sync write whole.
    """

    faults = ("silent", "stuck", "overload")

    def __init__(self, calibration: Calibration) -> None:
        self.calibration, self.names = calibration, calibration.names
        self.lock = threading.Lock()
        self.servos = [_fresh(joint.id) for joint in calibration.joints]
        self.packets = 0
        self._parser = feetech.Parser()

    def feed(self, data: bytes) -> bytes:
        """Answers to every whole request in ``data`` and what came before it."""
        answers = bytearray()
        for packet in self._parser.feed(data):
            self.packets += 1
            with self.lock:
                answers += self._answer(packet)
        return bytes(answers)

    def goals(self) -> tuple[np.ndarray, np.ndarray]:
        """(float64 ``[a]`` goals in the card's units, bool ``[a]`` torque on and free to move)."""
        with self.lock:
            goal = [
                joint.to_value(servo.get("goal_position"))
                for joint, servo in zip(self.calibration.joints, self.servos, strict=True)
            ]
            live = [bool(s.get("torque_enable")) and not s.stuck for s in self.servos]
        return np.array(goal), np.array(live)

    def measure(self, values: np.ndarray, elapsed_s: float) -> None:
        """Put measured positions, float ``[a]``, into the registers; speeds over ``elapsed_s``."""
        with self.lock:
            for joint, servo, value in zip(
                self.calibration.joints, self.servos, values, strict=True
            ):
                if servo.stuck:
                    continue
                tick = round(joint.zero_tick + joint.sign * float(value) / joint.scale)
                tick = min(max(tick, 0), feetech.TICKS_PER_TURN - 1)
                moved = tick - servo.get("present_position")
                speed = round(moved / elapsed_s) if elapsed_s > 0 else 0
                servo.set("present_position", tick)
                servo.set("present_speed", min(max(speed, -32767), 32767))
                servo.set("moving", int(abs(moved) > 1))
                gap = servo.get("goal_position") - tick if servo.get("torque_enable") else 0
                servo.set("present_load", min(max(gap * 4, -1000), 1000))

    def rest(self) -> None:
        """Make the present positions the goals (after the arm was put elsewhere)."""
        with self.lock:
            for servo in self.servos:
                servo.set("goal_position", servo.get("present_position"))

    def fault(self, kind: str, joint: int) -> None:
        """See ``emulation.device.Device``; ``joint`` is the servo's id."""
        servos = [s for s in self.servos if s.get("id") == joint]
        if not servos:
            raise UserError(f"fault {kind!r} of servo {joint}: there is no such servo")
        with self.lock:
            for servo in servos:
                if kind == "mend":
                    servo.silent, servo.stuck, servo.error = False, False, 0
                elif kind == "overload":
                    overload(servo)
                else:
                    setattr(servo, kind, True)

    def report(self) -> dict[str, Any]:
        return {"packets": self.packets}

    def listen(self, at: str) -> Wire:
        from ..emulation.pty import PtyWire

        if at != "pty":
            raise UserError(f"servos listen on a pty, not at {at!r}")
        return PtyWire(self.feed)

    def _answer(self, packet: Packet) -> bytes:
        if packet.code == Instruction.SYNC_WRITE:
            return self._sync_write(packet.params)
        if packet.code == Instruction.SYNC_READ:
            head, ids = packet.params[:2], packet.params[2:]
            servos = [s for i in ids for s in self.servos if s.get("id") == i]
            return b"".join(self._single(s, Instruction.READ, head) for s in servos)
        servos = [s for s in self.servos if packet.id in (s.get("id"), BROADCAST)]
        answers = [self._single(servo, packet.code, packet.params) for servo in servos]
        # Only a ping is answered when everyone is addressed.
        if packet.id == BROADCAST and packet.code != Instruction.PING:
            return b""
        return b"".join(answers)

    def _single(self, servo: Servo, code: int, params: bytes) -> bytes:
        identity, data = servo.get("id"), b""
        quiet = servo.silent
        if code == Instruction.READ and len(params) == 2:
            data = bytes(servo.memory[params[0] :][: params[1]])
            quiet |= len(data) != params[1]
        elif code == Instruction.WRITE and params:
            servo.write(params)
            quiet |= servo.get("response_level") != _REPLY_TO_ALL
        elif code == Instruction.REG_WRITE and params:
            servo.pending = params
            quiet |= servo.get("response_level") != _REPLY_TO_ALL
        elif code == Instruction.ACTION:
            servo.write(servo.pending)
            servo.pending = b""
            quiet |= servo.get("response_level") != _REPLY_TO_ALL
        elif code != Instruction.PING:
            return b""
        return b"" if quiet else feetech.encode(Packet(identity, servo.error, data))

    def _sync_write(self, params: bytes) -> bytes:
        if len(params) >= 2 and params[1]:
            address, width = params[:1], params[1]
            entries = params[2:]
            for start in range(0, len(entries) - width, width + 1):
                entry = entries[start : start + width + 1]
                for servo in self.servos:
                    if servo.get("id") == entry[0]:
                        servo.write(address + entry[1:])
        return b""


def so101() -> ServoBus:
    """The six servos of an SO-101."""
    return ServoBus(SO101)


def overload(servo: Servo) -> None:
    """The servo has been overloaded: it says so in every answer and lets go."""
    servo.error |= _OVERLOAD
    servo.set("torque_enable", 0)


def _fresh(identity: int) -> Servo:
    """A servo as it leaves the factory, in the middle of its range."""
    servo = Servo()
    middle = feetech.TICKS_PER_TURN // 2
    for name, value in {
        "firmware": 0x0903,
        "model": feetech.MODEL_STS3215,
        "id": identity,
        "response_level": _REPLY_TO_ALL,
        "max_position": feetech.TICKS_PER_TURN - 1,
        "max_temperature": 70,
        "max_torque": 1000,
        "goal_position": middle,
        "present_position": middle,
        "torque_limit": 1000,
        "lock": 1,
        "present_voltage": 74,
        "present_temperature": 30,
    }.items():
        servo.set(name, value)
    return servo
