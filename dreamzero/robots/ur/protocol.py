"""Universal Robots' RTDE protocol, version 2, without I/O: bytes in, packages out.

A package is ``size type payload``: size is a big-endian uint16 that counts all three, type one ASCII
letter. A client asks for a protocol version, names the variables it wants to read (one output recipe)
and to write (input recipes), and starts; from then on data packages run both ways, their values packed
in the recipe's order. Every request but a data package is answered by a package of the same type.

Source: Universal Robots, "Real-Time Data Exchange (RTDE) Guide", protocol version 2 (PolyScope from
3.4 / 5.0 on). The variables themselves are in ``variables.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from ...errors import UserError

PORT = 30004
VERSION = 2
MAX_BYTES = 0xFFFF
# A list of names may be this long, says the guide.
MAX_NAMES_BYTES = 2048
NOT_FOUND = "NOT_FOUND"
IN_USE = "IN_USE"

# Type name -> (struct code of one element, elements).
TYPES = {
    "BOOL": ("?", 1),
    "UINT8": ("B", 1),
    "UINT32": ("I", 1),
    "UINT64": ("Q", 1),
    "INT32": ("i", 1),
    "DOUBLE": ("d", 1),
    "VECTOR3D": ("d", 3),
    "VECTOR6D": ("d", 6),
    "VECTOR6INT32": ("i", 6),
    "VECTOR6UINT32": ("I", 6),
}

_HEAD = struct.Struct(">HB")
_CONTROLLER = struct.Struct(">4I")


class Kind(IntEnum):
    """Type byte of a package; the same letter asks and answers."""

    REQUEST_PROTOCOL_VERSION = ord("V")
    GET_URCONTROL_VERSION = ord("v")
    TEXT_MESSAGE = ord("M")
    DATA_PACKAGE = ord("U")
    SETUP_OUTPUTS = ord("O")
    SETUP_INPUTS = ord("I")
    START = ord("S")
    PAUSE = ord("P")


class Level(IntEnum):
    """How grave a text message is."""

    EXCEPTION = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


_KINDS = frozenset(int(kind) for kind in Kind)


class NotRtde(ValueError):
    """Bytes that no RTDE peer sends; a TCP stream cannot be picked up again after them."""


@dataclass(frozen=True)
class Package:
    """One package: its type byte, and what follows the header."""

    kind: int
    payload: bytes = b""


@dataclass(frozen=True)
class Text:
    """A message for people, either way."""

    message: str
    source: str
    level: Level


def encode(kind: int, payload: bytes = b"") -> bytes:
    """One package as bytes; UserError where it does not fit the size field."""
    size = _HEAD.size + len(payload)
    if size > MAX_BYTES:
        raise UserError(
            f"an RTDE package of {size} bytes does not fit the {MAX_BYTES} of its header"
        )
    return _HEAD.pack(size, kind) + payload


def request_version(version: int = VERSION) -> bytes:
    """Ask to speak this version of the protocol; ``read_answer`` takes the answer."""
    return encode(Kind.REQUEST_PROTOCOL_VERSION, struct.pack(">H", version))


def get_controller_version() -> bytes:
    """Ask for the controller's software version."""
    return encode(Kind.GET_URCONTROL_VERSION)


def setup_outputs(frequency_hz: float, names: Sequence[str]) -> bytes:
    """Ask for an output recipe at ``frequency_hz``; the controller rounds it to whole cycles."""
    return encode(Kind.SETUP_OUTPUTS, struct.pack(">d", frequency_hz) + _names(names))


def setup_inputs(names: Sequence[str]) -> bytes:
    """Ask for an input recipe of these variables."""
    return encode(Kind.SETUP_INPUTS, _names(names))


def start() -> bytes:
    """Ask for output packages to begin."""
    return encode(Kind.START)


def pause() -> bytes:
    """Ask for output packages to cease."""
    return encode(Kind.PAUSE)


def text(message: str, source: str = "", level: Level = Level.INFO) -> bytes:
    """A text message; both strings are cut at the 255 bytes that their length byte can count."""
    said, by = (part.encode("ascii", "replace")[:255] for part in (message, source))
    body = bytes((len(said),)) + said + bytes((len(by),)) + by + bytes((level,))
    return encode(Kind.TEXT_MESSAGE, body)


def read_version_request(payload: bytes) -> int:
    """The version that a client asks for. NotRtde: the payload has another length."""
    return int(_unpack(">H", payload, "protocol version")[0])


def answer(kind: Kind, accepted: bool) -> bytes:
    """Answer to a request for a version, to start and to pause."""
    return encode(kind, bytes((accepted,)))


def read_answer(payload: bytes) -> bool:
    """Whether it was accepted. NotRtde: the payload has another length."""
    return bool(_unpack(">B", payload, "accepted")[0])


def controller_version(version: tuple[int, int, int, int]) -> bytes:
    """Answer of the controller: (major, minor, bugfix, build)."""
    return encode(Kind.GET_URCONTROL_VERSION, _CONTROLLER.pack(*version))


def read_controller_version(payload: bytes) -> tuple[int, int, int, int]:
    """(major, minor, bugfix, build) of the controller's software."""
    major, minor, bugfix, build = _unpack(">4I", payload, "controller version")
    return int(major), int(minor), int(bugfix), int(build)


def read_outputs_request(payload: bytes) -> tuple[float, tuple[str, ...]]:
    """(frequency in Hz, names) of a request for outputs."""
    (frequency_hz,) = _unpack(">d", payload[:8], "frequency")
    return float(frequency_hz), read_names(payload[8:])


def read_names(payload: bytes) -> tuple[str, ...]:
    """Names separated by commas; one at the end, as ur_rtde sends it, counts for nothing."""
    if len(payload) > MAX_NAMES_BYTES:
        raise NotRtde(f"{len(payload)} bytes of variable names; {MAX_NAMES_BYTES} are allowed")
    return tuple(_ascii(payload).removesuffix(",").split(",")) if payload else ()


def setup_answer(kind: Kind, identity: int, types: Sequence[str]) -> bytes:
    """Answer to a request for outputs or inputs; ``identity`` 0 if a type says what was wrong."""
    return encode(kind, bytes((identity,)) + ",".join(types).encode("ascii"))


def read_setup_answer(payload: bytes) -> tuple[int, tuple[str, ...]]:
    """(recipe id, types in the order of the names); a type may be NOT_FOUND or IN_USE."""
    if not payload:
        raise NotRtde("an answer to a setup without a recipe id")
    return payload[0], tuple(_ascii(payload[1:]).split(",")) if len(payload) > 1 else ()


def read_text(payload: bytes) -> Text:
    """A text message of protocol version 2."""
    try:
        said = payload[1 : 1 + payload[0]]
        rest = payload[1 + payload[0] :]
        by, level = rest[1 : 1 + rest[0]], rest[1 + rest[0]]
        if len(said) != payload[0] or len(by) != rest[0]:
            raise IndexError
        return Text(_ascii(said), _ascii(by), Level(level))
    except (IndexError, ValueError) as error:
        raise NotRtde(
            f"a text message that breaks off or has no level: {payload[:40]!r}"
        ) from error


@dataclass(frozen=True)
class Recipe:
    """What one kind of data package carries, in order.

    Attributes:
        identity: recipe id, the first byte of each such package.
        names, types: variables and their types.
        at: variable -> its place among the flat values.
        payload_bytes: length of a payload, the recipe id included.
    """

    identity: int
    names: tuple[str, ...]
    types: tuple[str, ...]
    at: dict[str, slice] = field(init=False, repr=False)
    _layout: struct.Struct = field(init=False, repr=False)
    _package: struct.Struct = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.types) or not self.names:
            raise NotRtde(f"{len(self.types)} types were answered for {len(self.names)} variables")
        codes, at, place = "", {}, 0
        for name, kind in zip(self.names, self.types, strict=True):
            if kind not in TYPES:
                raise NotRtde(f"variable {name} has type {kind!r}; known: {', '.join(TYPES)}")
            code, count = TYPES[kind]
            codes += f"{count}{code}"
            at[name] = slice(place, place + count)
            place += count
        for attribute, value in {
            "at": at,
            "_layout": struct.Struct(f">B{codes}"),
            "_package": struct.Struct(f">HBB{codes}"),
        }.items():
            object.__setattr__(self, attribute, value)

    @property
    def payload_bytes(self) -> int:
        return self._layout.size

    def encode(self, values: Sequence[float]) -> bytes:
        """A whole data package of the flat values."""
        package = self._package
        return package.pack(package.size, Kind.DATA_PACKAGE, self.identity, *values)

    def flat(self, payload: bytes | memoryview) -> tuple[float, ...]:
        """The flat values of a data package; NotRtde if it is another recipe's, or too short."""
        if len(payload) != self._layout.size or payload[0] != self.identity:
            raise NotRtde(
                f"a data package of {len(payload)} bytes for recipe {payload[:1].hex() or 'none'}; "
                f"recipe {self.identity} has {self._layout.size}"
            )
        return self._layout.unpack(payload)[1:]

    def decode(self, payload: bytes | memoryview) -> dict[str, float | tuple[float, ...]]:
        """Variable -> value, or tuple of a vector's values."""
        values = self.flat(payload)
        found = {}
        for name, place in self.at.items():
            part = values[place]
            found[name] = part if len(part) > 1 else part[0]
        return found


class Parser:
    """Finds packages in a TCP stream that may be split anywhere.

    Never holds more than one package and what ``feed`` was given with it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> list[Package]:
        """Packages that became complete; NotRtde on a type or a size that there is not."""
        buffer = self._buffer
        buffer += data
        packages, start, end = [], 0, len(buffer)
        while end - start >= _HEAD.size:
            size, kind = _HEAD.unpack_from(buffer, start)
            if kind not in _KINDS or size < _HEAD.size:
                raise NotRtde(f"no RTDE package: {bytes(buffer[start : start + 24])!r}")
            if end - start < size:
                break
            packages.append(Package(kind, bytes(buffer[start + _HEAD.size : start + size])))
            start += size
        del buffer[:start]
        return packages


def _names(names: Sequence[str]) -> bytes:
    data = ",".join(names).encode("ascii")
    if len(data) > MAX_NAMES_BYTES:
        raise UserError(
            f"{len(names)} RTDE variables need {len(data)} bytes of names; the controller takes "
            f"{MAX_NAMES_BYTES}"
        )
    return data


def _ascii(data: bytes) -> str:
    return data.decode("ascii", "replace")


def _unpack(layout: str, payload: bytes, what: str) -> tuple[int | float, ...]:
    try:
        return struct.unpack(layout, payload)
    except struct.error as error:
        raise NotRtde(f"{what}: {len(payload)} bytes do not hold it") from error
