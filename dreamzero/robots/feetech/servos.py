"""Emulated STS3215 servos, and the arm that is made of them."""

from __future__ import annotations

from ..calibration import SO101, Calibration
from ..servos import emulated
from . import protocol as feetech
from .protocol import BROADCAST, STS3215, TICKS_PER_TURN, Instruction, Packet

_REPLY_TO_ALL = 1
_OVERLOAD = 0x20
_EEPROM_END = 40
_WRITABLE = {r.address + i for r in STS3215.values() if r.writable for i in range(r.size)}
_FACTORY = {
    "firmware": 0x0903,
    "model": feetech.MODEL_STS3215,
    "response_level": _REPLY_TO_ALL,
    "max_position": TICKS_PER_TURN - 1,
    "max_temperature": 70,
    "max_torque": 1000,
    "goal_position": TICKS_PER_TURN // 2,
    "present_position": TICKS_PER_TURN // 2,
    "torque_limit": 1000,
    "lock": 1,
    "present_voltage": 74,
    "present_temperature": 30,
}


class Servo(emulated.Servo):
    """One STS3215 as it leaves the factory, in the middle of its range.

    Attributes:
        error: error bits in every answer.
    """

    registers = STS3215
    memory_bytes = feetech.MEMORY_BYTES
    error = 0
    _tick = TICKS_PER_TURN // 2

    def write(self, params: bytes) -> None:
        """Address and data of a write; what is read-only stays as it is.

        So does the EEPROM while it is locked: a real one takes the value and forgets it when it is
        switched off, which a test would not notice.
        """
        locked, offset = bool(self.get("lock")), self.get("homing_offset")
        for i, value in enumerate(params[1:], start=params[0] if params else 0):
            if i in _WRITABLE and not (locked and i < _EEPROM_END):
                self.memory[i] = value
        if self.get("homing_offset") != offset:
            self.set("present_position", self.shown(self._tick))

    def shown(self, tick: int) -> int:
        return (tick - self.get("homing_offset")) % TICKS_PER_TURN

    def meant(self, shown: int) -> int:
        return (shown + self.get("homing_offset")) % TICKS_PER_TURN

    def measure(self, tick: int, elapsed_s: float) -> None:
        self._tick, shown = tick, self.shown(tick)
        half = TICKS_PER_TURN // 2
        moved = (shown - self.get("present_position") + half) % TICKS_PER_TURN - half
        self.set("present_position", shown)
        self.restrain("present_speed", moved / elapsed_s if elapsed_s > 0 else 0)
        self.set("moving", int(abs(moved) > 1))
        gap = self.get("goal_position") - shown if self.get("torque_enable") else 0
        self.set("present_load", min(max(gap * 4, -1000), 1000))

    def overload(self) -> None:
        self.error |= _OVERLOAD
        self.set("torque_enable", 0)

    def mend(self) -> None:
        self.error = 0


class ServoBus(emulated.ServoBus[Servo]):
    """STS3215 servos of one arm."""

    parser = feetech.Parser

    def __init__(self, calibration: Calibration) -> None:
        super().__init__(calibration, [Servo(id=i, **_FACTORY) for i in calibration.ids])

    def answer(self, packet: Packet) -> bytes:
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
