"""Dynamixel Protocol 2.0 without I/O: bytes in, packets out.

A packet is ``FF FF FD 00 id length(2) instruction parameters crc(2)``; length counts everything
behind it. ``FF FF FD`` from the instruction on is followed by one more ``FD`` (byte stuffing), so that
a header stands nowhere else. A status packet has 55 as its instruction and an error byte before its
parameters: bit 7 (alert) says that the hardware error status is not 0, the rest why an instruction
was refused. Source: ROBOTIS e-Manual, DYNAMIXEL Protocol 2.0 (emanual.robotis.com/docs/en/dxl/protocol2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum

from ...errors import UserError
from ..servos import codec
from ..servos.codec import Packet, Status, equal_width

HEADER = b"\xff\xff\xfd\x00"
BROADCAST = 0xFE
MAX_ID = 0xFC
# The longest length ROBOTIS' own SDK takes; more is noise.
MAX_LENGTH = 1024
ALERT = 0x80

ERRORS = {
    1: "result fail",
    2: "instruction error",
    3: "CRC error",
    4: "data range error",
    5: "data length error",
    6: "data limit error",
    7: "access error",
}

_STUFFED, _PLAIN = b"\xff\xff\xfd\xfd", b"\xff\xff\xfd"


class Instruction(IntEnum):
    """Instruction byte of a packet; STATUS marks an answer."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    REBOOT = 0x08
    STATUS = 0x55
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83
    FAST_SYNC_READ = 0x8A
    BULK_READ = 0x92


def _crc_table() -> tuple[int, ...]:
    """CRC of each single byte; polynomial x^16 + x^15 + x^2 + 1."""
    entries = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = crc << 1 ^ (0x8005 if crc & 0x8000 else 0)
        entries.append(crc & 0xFFFF)
    return tuple(entries)


_CRC = _crc_table()


def crc16(data: bytes, crc: int = 0) -> int:
    """CRC-16/BUYPASS (polynomial 8005, starting at 0, nothing reflected) of ``data``."""
    for byte in data:
        crc = (crc << 8 & 0xFF00) ^ _CRC[crc >> 8 ^ byte]
    return crc


def encode(packet: Packet) -> bytes:
    """The packet as bytes; UserError where an id or a length does not fit."""
    if not (0 <= packet.id <= MAX_ID or packet.id == BROADCAST) or not 0 <= packet.code <= 0xFF:
        raise UserError(f"servo id {packet.id} or instruction {packet.code} cannot be sent")
    body = bytes((packet.code,)) + packet.params
    if not _merged(packet.id, packet.code):
        body = body.replace(_PLAIN, _STUFFED)
    length = len(body) + 2
    if length > MAX_LENGTH:
        raise UserError(f"{len(packet.params)} parameter bytes do not fit one packet")
    frame = HEADER + bytes((packet.id, length & 0xFF, length >> 8)) + body
    return frame + crc16(frame).to_bytes(2, "little")


def status(servo: int, error: int = 0, data: bytes = b"") -> bytes:
    """A servo's answer."""
    return encode(Packet(servo, Instruction.STATUS, bytes((error,)) + data))


def ping(servo: int) -> bytes:
    """Answered with model number (2) and firmware version (1), by everyone if sent to everyone."""
    return encode(Packet(servo, Instruction.PING))


def read(servo: int, address: int, count: int) -> bytes:
    """Ask for ``count`` bytes of the control table from ``address`` on."""
    return encode(Packet(servo, Instruction.READ, _words(address, count)))


def write(servo: int, address: int, data: bytes) -> bytes:
    """Put ``data`` into the control table at ``address``."""
    return encode(Packet(servo, Instruction.WRITE, _words(address) + data))


def reg_write(servo: int, address: int, data: bytes) -> bytes:
    """A write that waits for ``action``."""
    return encode(Packet(servo, Instruction.REG_WRITE, _words(address) + data))


def action(servo: int = BROADCAST) -> bytes:
    """Do what was registered; nobody answers when it is sent to everyone."""
    return encode(Packet(servo, Instruction.ACTION))


def reboot(servo: int) -> bytes:
    """Restart a servo."""
    return encode(Packet(servo, Instruction.REBOOT))


def sync_read(address: int, count: int, servos: Iterable[int]) -> bytes:
    """One request; every servo named answers in turn with a packet of its own."""
    return encode(
        Packet(BROADCAST, Instruction.SYNC_READ, _words(address, count) + bytes(tuple(servos)))
    )


def fast_sync_read(address: int, count: int, servos: Iterable[int]) -> bytes:
    """One request, and one packet into which every servo named puts its part (firmware 45 or 46 on)."""
    return encode(
        Packet(BROADCAST, Instruction.FAST_SYNC_READ, _words(address, count) + bytes(tuple(servos)))
    )


def bulk_read(wanted: Mapping[int, tuple[int, int]]) -> bytes:
    """Id -> (address, count), each its own; every servo named answers in turn."""
    params = b"".join(bytes((servo,)) + _words(*what) for servo, what in wanted.items())
    return encode(Packet(BROADCAST, Instruction.BULK_READ, params))


def sync_write(address: int, data: Mapping[int, bytes]) -> bytes:
    """One packet that writes equally long ``data`` to each servo; nobody answers."""
    params = _words(address, equal_width(data))
    params += b"".join(bytes((servo,)) + value for servo, value in data.items())
    return encode(Packet(BROADCAST, Instruction.SYNC_WRITE, params))


def merge(answers: Iterable[Status]) -> bytes:
    """The one answer to a fast sync read: each servo's error, id and data, and the CRC so far."""
    answers = list(answers)
    length = 1 + sum(len(answer.data) + 4 for answer in answers)
    frame = HEADER + bytes((BROADCAST, length & 0xFF, length >> 8, Instruction.STATUS))
    for answer in answers:
        frame += bytes((answer.error, answer.id)) + answer.data
        frame += crc16(frame).to_bytes(2, "little")
    return frame


def statuses(packet: Packet, count: int) -> list[Status]:
    """The answers in a packet: none in a request, several in the answer to a fast sync read."""
    if packet.code != Instruction.STATUS or not packet.params:
        return []
    if packet.id != BROADCAST:
        return [Status(packet.id, packet.params[0], packet.params[1:])]
    # The last part's CRC is the frame's own.
    parts, width = packet.params + bytes(2), count + 4
    if len(parts) % width:
        return []
    cut = [parts[i : i + width] for i in range(0, len(parts), width)]
    return [Status(part[1], part[0], part[2:-2]) for part in cut]


def error_names(code: int) -> list[str]:
    """What an error byte says; "hardware error" stands for the alert bit."""
    names = ["hardware error"] if code & ALERT else []
    number = code & ~ALERT
    return names + ([ERRORS.get(number, f"error {number}")] if number else [])


def _words(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "little") for value in values)


def _merged(servo: int, code: int) -> bool:
    """The answer to a fast sync read is not stuffed: nobody knows its length beforehand."""
    return servo == BROADCAST and code == Instruction.STATUS


class Parser(codec.Parser):
    """Frames of this protocol in a stream."""

    header = HEADER

    def frame_size(self, start: bytearray) -> int | None:
        if len(start) < 7:
            return None
        length = start[5] | start[6] << 8
        known = start[4] <= MAX_ID or start[4] == BROADCAST
        return 7 + length if known and 3 <= length <= MAX_LENGTH else 0

    def open_frame(self, frame: bytes) -> Packet | None:
        if crc16(frame[:-2]) != frame[-2] | frame[-1] << 8:
            return None
        servo, body = frame[4], frame[7:-2]
        if not _merged(servo, body[0]):
            body = body.replace(_STUFFED, _PLAIN)
        return Packet(servo, body[0], body[1:])
