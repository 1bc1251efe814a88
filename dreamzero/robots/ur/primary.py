"""The primary client interface without I/O: what a controller tells beside its state.

A package is ``size type ...`` (int32, uint8; size counts all). Robot messages (type 20) go on with
``time source kind`` (uint64, int8, int8) and a body of their kind. Scripts go the other way as plain
text. The secondary interface (port 30002) takes scripts too, but keeps to itself why one was refused,
so the driver uses this one. Source: Universal Robots, "Primary and Secondary Interfaces", and "Remote
Control via TCP/IP" with its tables.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

PORT = 30001
ROBOT_STATE = 16
ROBOT_MESSAGE = 20
MAX_BYTES = 1 << 16
# Error code of a connection that the pendant has not handed over.
READ_ONLY = 210

_HEAD = struct.Struct(">iB")
_MESSAGE = struct.Struct(">QbB")
_ERROR = struct.Struct(">iiiII")
_PLACE = struct.Struct(">ii")


class Kind(IntEnum):
    """Kinds of robot messages."""

    TEXT = 0
    POPUP = 2
    VERSION = 3
    SAFETY_MODE = 5
    ERROR_CODE = 6
    KEY = 7
    RUNTIME_EXCEPTION = 10


@dataclass(frozen=True)
class Message:
    """One robot message as a person would read it.

    Attributes:
        code: of an error ("C210A0"); 0 for other kinds.
        title: of a key message, such as PROGRAM_XXX_STARTED.
        line, column: of a runtime exception, from 1 on.
    """

    kind: int
    text: str
    code: int = 0
    argument: int = 0
    title: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if self.kind == Kind.ERROR_CODE:
            return f"C{self.code}A{self.argument} {self.text}".strip()
        if self.kind == Kind.RUNTIME_EXCEPTION:
            return f"line {self.line}, column {self.column}: {self.text}"
        return f"{self.title} {self.text}".strip()


class NotPrimary(ValueError):
    """Bytes that no primary interface sends."""


def encode(message: Message, time_us: int = 0) -> bytes:
    """A robot message as bytes; kinds TEXT, ERROR_CODE, KEY and RUNTIME_EXCEPTION."""
    said = message.text.encode("ascii", "replace")
    if message.kind == Kind.ERROR_CODE:
        said = _ERROR.pack(message.code, message.argument, 2, 0, 0) + said
    elif message.kind == Kind.RUNTIME_EXCEPTION:
        said = _PLACE.pack(message.line, message.column) + said
    elif message.kind == Kind.KEY:
        title = message.title.encode("ascii")
        said = _PLACE.pack(message.code, message.argument) + bytes((len(title),)) + title + said
    elif message.kind != Kind.TEXT:
        raise ValueError(f"robot messages of kind {message.kind} are not written here")
    body = _MESSAGE.pack(time_us, -2, message.kind) + said
    return _HEAD.pack(_HEAD.size + len(body), ROBOT_MESSAGE) + body


class Parser:
    """Finds robot messages among the packages of a stream that may be split anywhere."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Messages that became complete; NotPrimary on a size that there is not."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _HEAD.size:
            size, kind = _HEAD.unpack_from(self._buffer)
            if not _HEAD.size <= size <= MAX_BYTES:
                raise NotPrimary(f"no primary package: {bytes(self._buffer[:24])!r}")
            if len(self._buffer) < size:
                break
            if kind == ROBOT_MESSAGE:
                messages.append(_message(bytes(self._buffer[_HEAD.size : size])))
            del self._buffer[:size]
        return messages


def _message(body: bytes) -> Message:
    try:
        _, _, kind = _MESSAGE.unpack_from(body)
        rest = body[_MESSAGE.size :]
        if kind == Kind.ERROR_CODE:
            code, argument, _, _, _ = _ERROR.unpack_from(rest)
            return Message(kind, _text(rest[_ERROR.size :]), code, argument)
        if kind == Kind.RUNTIME_EXCEPTION:
            line, column = _PLACE.unpack_from(rest)
            return Message(kind, _text(rest[_PLACE.size :]), line=line, column=column)
        if kind == Kind.KEY:
            code, argument = _PLACE.unpack_from(rest)
            end = _PLACE.size + 1 + rest[_PLACE.size]
            title = _text(rest[_PLACE.size + 1 : end])
            return Message(kind, _text(rest[end:]), code, argument, title)
        return Message(kind, _text(rest) if kind == Kind.TEXT else "")
    except (struct.error, IndexError) as error:
        raise NotPrimary(f"a robot message that breaks off: {body[:24]!r}") from error


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace").rstrip("\0")
