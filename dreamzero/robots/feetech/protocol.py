"""Feetech's half-duplex servo protocol (STS/SMS series) without I/O: bytes in, packets out.

A packet is ``FF FF id length code parameters checksum``; length counts code, parameters and checksum;
the checksum is the complement of the sum from the id on. A servo answers with the same frame, its
error bits in place of the instruction. STS registers are little-endian; signed ones are
sign-and-magnitude. Sources: Feetech's communication manual and STS3215 memory table, as used by
LeRobot's control tables (huggingface/lerobot, motors/feetech/tables.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from ...errors import UserError

HEADER = b"\xff\xff"
BROADCAST = 0xFE
MAX_ID = 0xFD
# Longest value of the length byte that a bus of this kind carries; more is noise.
MAX_LENGTH = 250
MODEL_STS3215 = 777
TICKS_PER_TURN = 4096

ERRORS = {0: "voltage", 1: "angle sensor", 2: "overheating", 3: "overcurrent", 5: "overload"}


class Instruction(IntEnum):
    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


@dataclass(frozen=True)
class Packet:
    """One frame. ``code`` is the instruction on the way out and the error bits on the way back."""

    id: int
    code: int
    params: bytes = b""


def checksum(body: bytes) -> int:
    """Complement of the sum of ``id length code parameters``, one byte."""
    return ~sum(body) & 0xFF


def encode(packet: Packet) -> bytes:
    """The packet as bytes; UserError where an id or a length does not fit."""
    if not 0 <= packet.id <= BROADCAST or not 0 <= packet.code <= 0xFF:
        raise UserError(f"servo id {packet.id} or code {packet.code} does not fit one byte")
    length = len(packet.params) + 2
    if length > MAX_LENGTH:
        raise UserError(f"{len(packet.params)} parameter bytes do not fit one packet")
    body = bytes((packet.id, length, packet.code)) + packet.params
    return HEADER + body + bytes((checksum(body),))


def ping(servo: int) -> bytes:
    return encode(Packet(servo, Instruction.PING))


def read(servo: int, address: int, count: int) -> bytes:
    return encode(Packet(servo, Instruction.READ, bytes((address, count))))


def write(servo: int, address: int, data: bytes) -> bytes:
    return encode(Packet(servo, Instruction.WRITE, bytes((address,)) + data))


def sync_read(address: int, count: int, servos: Iterable[int]) -> bytes:
    """One request; every servo named answers in turn with a packet of its own."""
    return encode(Packet(BROADCAST, Instruction.SYNC_READ, bytes((address, count, *servos))))


def sync_write(address: int, data: Mapping[int, bytes]) -> bytes:
    """One packet that writes equally long ``data`` to each servo; nobody answers."""
    widths = {len(value) for value in data.values()}
    if len(widths) != 1:
        raise UserError(f"a sync write needs equally long data for each servo, got {widths}")
    params = bytes((address, widths.pop()))
    params += b"".join(bytes((servo,)) + value for servo, value in data.items())
    return encode(Packet(BROADCAST, Instruction.SYNC_WRITE, params))


def error_names(code: int) -> list[str]:
    """Names of the faults in a status packet's error byte."""
    return [name for bit, name in ERRORS.items() if code >> bit & 1]


class Parser:
    """Finds packets in a byte stream that may be split anywhere and carry noise.

    ``feed`` returns what became complete. After a bad checksum the search goes on one byte further,
    so that a true packet behind a false header is found. Counts what it threw away.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.noise_bytes = 0
        self.bad_checksums = 0

    def feed(self, data: bytes) -> list[Packet]:
        self._buffer += data
        packets = []
        while (packet := self._next()) is not None:
            packets.append(packet)
        return packets

    def reset(self) -> bytes:
        """Forget an unfinished packet and return its bytes (for the error message)."""
        left, self._buffer = bytes(self._buffer), bytearray()
        return left

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self.noise_bytes += count

    def _next(self) -> Packet | None:
        buffer = self._buffer
        while buffer:
            start = buffer.find(HEADER)
            if start < 0:
                # The last byte may be the first half of a header.
                self._drop(len(buffer) - (buffer[-1] == 0xFF))
                return None
            self._drop(start)
            if len(buffer) < 4:
                # FF FF FF: the header begins one byte later.
                if len(buffer) == 3 and buffer[2] == 0xFF:
                    self._drop(1)
                    continue
                return None
            length = buffer[3]
            if buffer[2] == 0xFF or not 2 <= length <= MAX_LENGTH:
                self._drop(1)
                continue
            if len(buffer) < 4 + length:
                return None
            body = bytes(buffer[2 : 3 + length])
            if buffer[3 + length] != checksum(body):
                self.bad_checksums += 1
                self._drop(1)
                continue
            del buffer[: 4 + length]
            return Packet(body[0], body[2], body[3:])
        return None


@dataclass(frozen=True)
class Register:
    """One entry of the memory table.

    Attributes:
        sign_bit: bit that carries the sign of a sign-and-magnitude value; None where unsigned.
        unit: what one count is.
    """

    name: str
    address: int
    size: int
    sign_bit: int | None = None
    writable: bool = True
    unit: str = ""

    def to_bytes(self, value: int) -> bytes:
        """Little-endian bytes; UserError where the value does not fit."""
        top = 1 << (8 * self.size if self.sign_bit is None else self.sign_bit)
        if not (0 if self.sign_bit is None else 1 - top) <= value < top:
            raise UserError(f"{value} does not fit register {self.name} of {self.size} bytes")
        raw = value if value >= 0 else (-value) | top
        return raw.to_bytes(self.size, "little")

    def from_bytes(self, data: bytes) -> int:
        raw = int.from_bytes(data, "little")
        if self.sign_bit is None:
            return raw
        magnitude = raw & ((1 << self.sign_bit) - 1)
        return -magnitude if raw >> self.sign_bit & 1 else magnitude


_TABLE = (
    Register("firmware", 0, 2, writable=False),
    Register("model", 3, 2, writable=False),
    Register("id", 5, 1),
    Register("baud_rate", 6, 1),
    Register("return_delay", 7, 1, unit="2 us"),
    Register("response_level", 8, 1),
    Register("min_position", 9, 2, unit="tick"),
    Register("max_position", 11, 2, unit="tick"),
    Register("max_temperature", 13, 1, unit="degC"),
    Register("max_voltage", 14, 1, unit="0.1 V"),
    Register("min_voltage", 15, 1, unit="0.1 V"),
    Register("max_torque", 16, 2, unit="0.1 %"),
    Register("p_gain", 21, 1),
    Register("d_gain", 22, 1),
    Register("i_gain", 23, 1),
    Register("homing_offset", 31, 2, sign_bit=11, unit="tick"),
    Register("operating_mode", 33, 1),
    Register("torque_enable", 40, 1),
    Register("acceleration", 41, 1, unit="100 tick/s^2"),
    Register("goal_position", 42, 2, sign_bit=15, unit="tick"),
    Register("goal_time", 44, 2),
    Register("goal_speed", 46, 2, sign_bit=15, unit="tick/s"),
    Register("torque_limit", 48, 2, unit="0.1 %"),
    Register("lock", 55, 1),
    Register("present_position", 56, 2, sign_bit=15, writable=False, unit="tick"),
    Register("present_speed", 58, 2, sign_bit=15, writable=False, unit="tick/s"),
    Register("present_load", 60, 2, sign_bit=10, writable=False, unit="0.1 %"),
    Register("present_voltage", 62, 1, writable=False, unit="0.1 V"),
    Register("present_temperature", 63, 1, writable=False, unit="degC"),
    Register("status", 65, 1, writable=False),
    Register("moving", 66, 1, writable=False),
    Register("present_current", 69, 2, sign_bit=15, writable=False, unit="6.5 mA"),
)
STS3215: Mapping[str, Register] = {register.name: register for register in _TABLE}
MEMORY_BYTES = 71
