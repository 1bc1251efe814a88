"""What servo protocols share, without I/O: registers, and frames in a stream that carries noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from ...errors import UserError


@dataclass(frozen=True)
class Packet:
    """One frame: ``code`` is the instruction, or what stands in its place in an answer."""

    id: int
    code: int
    params: bytes = b""


class Status(NamedTuple):
    """What one servo answered; ``error`` is 0 where all is well."""

    id: int
    error: int
    data: bytes


@dataclass(frozen=True)
class Register:
    """One entry of a servo's memory table; values are little-endian.

    Attributes:
        sign_bit: bit that carries the sign of a sign-and-magnitude value; None where there is none.
        signed: two's complement.
        unit: what one count is.
    """

    name: str
    address: int
    size: int
    sign_bit: int | None = None
    writable: bool = True
    unit: str = ""
    signed: bool = False

    @property
    def range(self) -> tuple[int, int]:
        """Least and greatest value that fits."""
        if self.sign_bit is not None:
            return 1 - (1 << self.sign_bit), (1 << self.sign_bit) - 1
        bits = 8 * self.size
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if self.signed else (0, (1 << bits) - 1)

    def to_bytes(self, value: int) -> bytes:
        """The value as bytes; UserError where it does not fit."""
        low, high = self.range
        if not low <= value <= high:
            raise UserError(f"{value} does not fit register {self.name}: {low}..{high}")
        if self.sign_bit is not None and value < 0:
            value = -value | 1 << self.sign_bit
        return value.to_bytes(self.size, "little", signed=self.signed)

    def from_bytes(self, data: bytes) -> int:
        raw = int.from_bytes(data, "little", signed=self.signed)
        if self.sign_bit is None:
            return raw
        magnitude = raw & ((1 << self.sign_bit) - 1)
        return -magnitude if raw >> self.sign_bit & 1 else magnitude


def table(registers: Iterable[Register]) -> Mapping[str, Register]:
    """Registers by name."""
    return {register.name: register for register in registers}


class Parser(ABC):
    """Finds packets in a byte stream that may be split anywhere and carry noise.

    ``feed`` returns what became complete. After a bad checksum the search goes on one byte further,
    so that a true packet behind a false header is found. Counts what it threw away.
    """

    header: ClassVar[bytes]

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.noise_bytes = 0
        self.bad_checksums = 0

    @abstractmethod
    def frame_size(self, start: bytearray) -> int | None:
        """Bytes of the frame whose header ``start`` begins with.

        Returns:
            None while more bytes are needed to tell, 0 where no frame begins like this.
        """

    @abstractmethod
    def open_frame(self, frame: bytes) -> Packet | None:
        """The packet in a whole frame; None where the checksum is wrong."""

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
            start = buffer.find(self.header)
            if start < 0:
                # The last bytes may be the beginning of a header.
                longest = min(len(self.header) - 1, len(buffer))
                kept = next(
                    (n for n in range(longest, 0, -1) if buffer.endswith(self.header[:n])), 0
                )
                self._drop(len(buffer) - kept)
                return None
            self._drop(start)
            size = self.frame_size(buffer)
            if size is None or len(buffer) < size:
                return None
            packet = self.open_frame(bytes(buffer[:size])) if size else None
            if packet is not None:
                del buffer[:size]
                return packet
            self.bad_checksums += size > 0
            self._drop(1)
        return None


class Codec(Protocol):
    """A protocol as a module: what a bus has to say, and how to read what it hears."""

    BROADCAST: int

    def encode(self, packet: Packet) -> bytes:
        """The packet as bytes; UserError where an id or a length does not fit."""

    def ping(self, servo: int) -> bytes: ...

    def read(self, servo: int, address: int, count: int) -> bytes: ...

    def write(self, servo: int, address: int, data: bytes) -> bytes: ...

    def sync_read(self, address: int, count: int, servos: Iterable[int]) -> bytes:
        """One request; every servo named answers in turn with a packet of its own."""

    def sync_write(self, address: int, data: Mapping[int, bytes]) -> bytes:
        """One packet that writes equally long ``data`` to each servo; nobody answers."""

    def statuses(self, packet: Packet, count: int) -> list[Status]:
        """The answers in a packet that came while ``count`` bytes of each servo were asked for."""

    def error_names(self, code: int) -> list[str]:
        """What an answer's error byte says, in words."""


def equal_width(data: Mapping[int, bytes]) -> int:
    """Bytes for each servo of a sync write; UserError unless they are the same for all."""
    widths = {len(value) for value in data.values()}
    if len(widths) != 1:
        raise UserError(f"a sync write needs equally long data for each servo, got {widths}")
    return widths.pop()
