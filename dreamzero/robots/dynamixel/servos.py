"""Emulated Dynamixel X servos, and the arms that are made of them."""

from __future__ import annotations

from collections.abc import Mapping

from ..servos import emulated
from ..servos.build import Setting
from ..servos.codec import Packet, Status
from . import protocol as dynamixel
from .arms import ARMS, Arm
from .protocol import ALERT, BROADCAST, Instruction
from .table import (
    BAUD_RATES,
    EEPROM_END,
    MEMORY_BYTES,
    MODELS,
    NO_SECONDARY_ID,
    OVERLOAD,
    TICKS_PER_TURN,
    X_SERIES,
    Mode,
)

_RESULT_FAIL, _INSTRUCTION, _RANGE, _LENGTH, _LIMIT, _ACCESS = 1, 2, 4, 5, 6, 7
_REPLY_TO_READS, _REPLY_TO_ALL = 1, 2
_AT = {register.address: register for register in X_SERIES.values()}
_TICKS_PER_S_A_COUNT = 0.229 * TICKS_PER_TURN / 60
_FACTORY = {
    "firmware": 50,
    "baud_rate": BAUD_RATES.index(57_600),
    "return_delay": 250,
    "operating_mode": Mode.POSITION,
    "secondary_id": NO_SECONDARY_ID,
    "protocol": 2,
    "max_temperature": 72,
    "pwm_limit": 885,
    "current_limit": 1000,
    "velocity_limit": 265,
    "max_position": TICKS_PER_TURN - 1,
    "shutdown": 52,
    "response_level": _REPLY_TO_ALL,
    "position_p_gain": 640,
    "goal_position": TICKS_PER_TURN // 2,
    "present_position": TICKS_PER_TURN // 2,
    "present_voltage": 50,
    "present_temperature": 30,
}
_RAM = {n: r for n, r in X_SERIES.items() if r.address >= EEPROM_END and r.writable}


class Servo(emulated.Servo):
    """One X series servo as it leaves the factory, in the middle of its range."""

    registers = X_SERIES
    memory_bytes = MEMORY_BYTES

    def __init__(self, **values: int) -> None:
        super().__init__(**(_FACTORY | values))
        self._tick, self._turns = TICKS_PER_TURN // 2, 0

    @property
    def alert(self) -> int:
        return ALERT if self.get("hardware_error") else 0

    def follows(self, identity: int) -> bool:
        """Whether it is that id's shadow: it takes what is written there to RAM, and is silent."""
        return identity <= dynamixel.MAX_ID and identity == self.get("secondary_id")

    def read(self, address: int, count: int) -> bytes | None:
        """Bytes of the table; None beyond its end."""
        end = address + count
        return bytes(self.memory[address:end]) if 0 < count and end <= MEMORY_BYTES else None

    def write(self, address: int, data: bytes, ram_only: bool = False) -> int:
        """Write whole registers, all or none of them.

        Returns:
            0, or the error number of the status packet.
        """
        if not data:
            return _LENGTH
        changes, at = {}, 0
        while at < len(data):
            register = _AT.get(address + at)
            if register is None or not register.writable:
                return _ACCESS
            if len(data) - at < register.size:
                return _LENGTH
            if register.address < EEPROM_END and (ram_only or self.get("torque_enable")):
                return _ACCESS
            changes[register.name] = register.from_bytes(data[at : at + register.size])
            at += register.size
        if error := max((self._refusal(*change) for change in changes.items()), default=0):
            return error
        for name, value in changes.items():
            self._take(name, value)
        return 0

    def reboot(self) -> None:
        """What stands in RAM is gone, turns and errors are forgotten."""
        for name in _RAM:
            self.set(name, _FACTORY.get(name, 0))
        self.set("hardware_error", 0)
        self.pending = b""
        self._forget_turns()
        self.restrain("goal_position", self.get("present_position"))

    def shown(self, tick: int) -> int:
        return tick + self._turns * TICKS_PER_TURN + self.get("homing_offset")

    def meant(self, shown: int) -> int:
        return shown - self._turns * TICKS_PER_TURN - self.get("homing_offset")

    def measure(self, tick: int, elapsed_s: float) -> None:
        # Placed, not moved: as if it had been switched on there.
        if elapsed_s == 0:
            self._turns = -(tick // TICKS_PER_TURN)
        moved, self._tick = tick - self._tick, tick
        self.restrain("present_position", self.shown(tick))
        speed = moved / elapsed_s / _TICKS_PER_S_A_COUNT if elapsed_s > 0 else 0.0
        self.restrain("present_velocity", speed)
        self.set("moving", int(abs(moved) > 1))
        gap = self.get("goal_position") - self.shown(tick) if self.get("torque_enable") else 0
        self.set("present_current", min(max(gap * 4, -1000), 1000))

    def overload(self) -> None:
        self.set("hardware_error", OVERLOAD)
        self.set("torque_enable", 0)

    def mend(self) -> None:
        self.set("hardware_error", 0)

    def _refusal(self, name: str, value: int) -> int:
        """Error number for a value that cannot be taken; 0 where it can."""
        if name == "id" and value > dynamixel.MAX_ID:
            return _RANGE
        if name == "operating_mode":
            measures = MODELS[self.get("model")].current_ma > 0
            needs = (Mode.CURRENT, Mode.CURRENT_BASED_POSITION)
            return 0 if value in set(Mode) and (measures or value not in needs) else _RANGE
        if name == "goal_position" and self.get("operating_mode") == Mode.POSITION:
            inside = self.get("min_position") <= value <= self.get("max_position")
            return 0 if inside else _LIMIT
        if name == "torque_enable":
            return 0 if value in (0, 1) else _RANGE
        return 0

    def _take(self, name: str, value: int) -> None:
        if name == "torque_enable" and value and self.get("hardware_error"):
            return  # only a reboot brings torque back
        self.set(name, value)
        single = self.get("operating_mode") == Mode.POSITION
        if single and (name == "operating_mode" or (name == "torque_enable" and value)):
            self._forget_turns()
        if name == "homing_offset":
            self.restrain("present_position", self.shown(self._tick))

    def _forget_turns(self) -> None:
        """The position becomes that within one turn (e-Manual, note on Present Position)."""
        self._turns = -(self._tick // TICKS_PER_TURN)
        self.restrain("present_position", self.shown(self._tick))


class ServoBus(emulated.ServoBus[Servo]):
    """The Dynamixels of one arm, set up as its maker or LeRobot sets them up."""

    parser = dynamixel.Parser

    def __init__(self, arm: Arm) -> None:
        calibration = arm.calibration
        servos, shadows = [], []
        for i, joint in enumerate(calibration.joints):
            model = arm.models[joint.name][0]
            servos.append(_set_up(joint.id, model, arm.settings(joint.name)))
            if shadow := arm.shadows.get(joint.name):
                settings = arm.shadow_settings(joint.name, joint.id)
                shadows.append((i, _set_up(shadow, model, settings)))
        super().__init__(calibration, servos, shadows)

    def answer(self, packet: Packet) -> bytes:
        code, params = packet.code, packet.params
        if code in (Instruction.SYNC_READ, Instruction.FAST_SYNC_READ) and len(params) > 4:
            address, count = _word(params, 0), _word(params, 2)
            wanted = [(identity, address, count) for identity in params[4:]]
            return self._read_many(wanted, fast=code == Instruction.FAST_SYNC_READ)
        if code == Instruction.BULK_READ:
            cut = [params[i : i + 5] for i in range(0, len(params) - 4, 5)]
            return self._read_many([(p[0], _word(p, 1), _word(p, 3)) for p in cut], fast=False)
        if code == Instruction.SYNC_WRITE and len(params) > 4:
            self._sync_write(_word(params, 0), _word(params, 2), params[4:])
            return b""
        if code == Instruction.PING and packet.id == BROADCAST:
            order = sorted(self.everyone, key=lambda servo: servo.get("id"))
            return b"".join(self._single(s, code, params) for s in order)
        answer = b""
        for servo in self.everyone:
            if packet.id in (servo.get("id"), BROADCAST):
                said = self._single(servo, code, params)
                answer += said if packet.id != BROADCAST else b""
            elif servo.follows(packet.id) and code == Instruction.WRITE and len(params) > 2:
                servo.write(_word(params, 0), params[2:], ram_only=True)
        return answer

    def _single(self, servo: Servo, code: int, params: bytes) -> bytes:
        identity, level = servo.get("id"), servo.get("response_level")
        alert, error, data, needed = servo.alert, 0, b"", _REPLY_TO_ALL
        if code == Instruction.PING:
            data, needed = bytes(servo.memory[0:2] + servo.memory[6:7]), 0
        elif code == Instruction.READ and len(params) == 4:
            found = servo.read(_word(params, 0), _word(params, 2))
            data, error, needed = found or b"", 0 if found else _ACCESS, _REPLY_TO_READS
        elif code == Instruction.WRITE and len(params) > 2:
            error = servo.write(_word(params, 0), params[2:])
        elif code == Instruction.REG_WRITE and len(params) > 2:
            servo.pending = params
            servo.set("registered_instruction", 1)
        elif code == Instruction.ACTION:
            pending, servo.pending = servo.pending, b""
            servo.set("registered_instruction", 0)
            error = servo.write(_word(pending, 0), pending[2:]) if pending else _INSTRUCTION
        elif code == Instruction.REBOOT:
            servo.reboot()
        elif code == Instruction.STATUS:
            return b""  # somebody else's answer
        else:
            error = _INSTRUCTION
        if servo.silent or level < needed:
            return b""
        return dynamixel.status(identity, alert | error, data)

    def _read_many(self, wanted: list[tuple[int, int, int]], fast: bool) -> bytes:
        """Answers of the servos named, by (id, address, count)."""
        answers = []
        for identity, address, count in wanted:
            servo = next((s for s in self.everyone if s.get("id") == identity), None)
            data = None
            if servo is not None and not servo.silent and servo.get("response_level"):
                data = servo.read(address, count)
            if servo is not None and data is not None:
                answers.append(Status(identity, servo.alert, data))
            elif fast:
                break  # each part waits for the one before it
        if not fast:
            return b"".join(dynamixel.status(*answer) for answer in answers)
        # The first part says how long the whole will be, whether or not the rest comes.
        absent = [Status(0, 0, bytes(count)) for _, _, count in wanted[len(answers) :]]
        whole = dynamixel.merge([*answers, *absent])
        missing = sum(len(one.data) + 4 for one in absent)
        return whole[: len(whole) - missing] if answers else b""

    def _sync_write(self, address: int, width: int, entries: bytes) -> None:
        for start in range(0, len(entries) - width, width + 1):
            identity, data = entries[start], entries[start + 1 : start + 1 + width]
            for servo in self.everyone:
                if identity == servo.get("id"):
                    servo.write(address, data)
                elif servo.follows(identity):
                    servo.write(address, data, ram_only=True)


def _set_up(identity: int, model: int, settings: Mapping[str, Setting]) -> Servo:
    values = {name: setting.value for name, setting in settings.items()}
    return Servo(id=identity, model=model, **values)


def _word(params: bytes, at: int) -> int:
    return params[at] | params[at + 1] << 8


def koch() -> ServoBus:
    """The six servos of a Koch v1.1 follower."""
    return ServoBus(ARMS["koch"])


def openmanipulator_x() -> ServoBus:
    """The five servos of an OpenManipulator-X."""
    return ServoBus(ARMS["openmanipulator_x"])


def vx300s() -> ServoBus:
    """The nine servos of a ViperX 300 S, two of them shadows."""
    return ServoBus(ARMS["vx300s"])
