"""Feetech's half-duplex servo protocol (STS/SMS series) without I/O: bytes in, packets out.

A packet is ``FF FF id length code parameters checksum``; length counts code, parameters and checksum;
the checksum is the complement of the sum from the id on. A servo answers with the same frame, its
error bits in place of the instruction. STS registers are little-endian; signed ones are
sign-and-magnitude. Sources: Feetech's communication manual and STS3215 memory table, as used by
LeRobot's control tables (huggingface/lerobot, motors/feetech/tables.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum

from ...errors import UserError
from ..servos import codec
from ..servos.codec import Packet, Register, Status, equal_width, table

HEADER = b"\xff\xff"
BROADCAST = 0xFE
MAX_ID = 0xFD
# Longest value of the length byte that a bus of this kind carries; more is noise.
MAX_LENGTH = 250
MODEL_STS3215 = 777
MODELS = {MODEL_STS3215: "STS3215", 2825: "STS3250", 11272: "SM8512BL", 1284: "SCS0009"}
TICKS_PER_TURN = 4096
BAUDS = (1_000_000, 500_000, 115_200, 57_600, 38_400)

ERRORS = {0: "voltage", 1: "angle sensor", 2: "overheating", 3: "overcurrent", 5: "overload"}


class Instruction(IntEnum):
    """Instruction byte of a packet; an answer has an error byte in its place."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


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
    """Ask whether a servo is there; it answers without parameters."""
    return encode(Packet(servo, Instruction.PING))


def read(servo: int, address: int, count: int) -> bytes:
    """Ask for ``count`` bytes of the memory table from ``address`` on."""
    return encode(Packet(servo, Instruction.READ, bytes((address, count))))


def write(servo: int, address: int, data: bytes) -> bytes:
    """Put ``data`` into the memory table at ``address``."""
    return encode(Packet(servo, Instruction.WRITE, bytes((address,)) + data))


def sync_read(address: int, count: int, servos: Iterable[int]) -> bytes:
    """One request; every servo named answers in turn with a packet of its own."""
    return encode(Packet(BROADCAST, Instruction.SYNC_READ, bytes((address, count, *servos))))


def sync_write(address: int, data: Mapping[int, bytes]) -> bytes:
    """One packet that writes equally long ``data`` to each servo; nobody answers."""
    params = bytes((address, equal_width(data)))
    params += b"".join(bytes((servo,)) + value for servo, value in data.items())
    return encode(Packet(BROADCAST, Instruction.SYNC_WRITE, params))


def statuses(packet: Packet, count: int) -> list[Status]:
    """The answer that a packet is; answers look like requests here."""
    return [Status(packet.id, packet.code, packet.params)]


def error_names(code: int) -> list[str]:
    """Names of the faults in a status packet's error byte."""
    return [name for bit, name in ERRORS.items() if code >> bit & 1]


class Parser(codec.Parser):
    """Frames of this protocol in a stream."""

    header = HEADER

    def frame_size(self, start: bytearray) -> int | None:
        # FF FF FF: the header begins one byte later.
        if len(start) > 2 and start[2] == 0xFF:
            return 0
        if len(start) < 4:
            return None
        return 4 + start[3] if 2 <= start[3] <= MAX_LENGTH else 0

    def open_frame(self, frame: bytes) -> Packet | None:
        body = frame[2:-1]
        return Packet(body[0], body[2], body[3:]) if frame[-1] == checksum(body) else None


STS3215 = table(
    (
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
)
MEMORY_BYTES = 71
