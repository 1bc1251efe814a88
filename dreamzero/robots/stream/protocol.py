"""The project's own joint stream over UDP, without I/O: frames to bytes and back.

One datagram is one frame. All numbers are little-endian; times are ns of the sender's monotonic clock.

      at  size  field
       0     4  magic ``DZJS``
       4     1  version, 1
       5     1  kind, see ``Kind``
       6     2  length of the body in bytes
       8     8  session: chosen by the companion, 0 in a HELLO
      16     8  sequence: from 1, one more with every frame of a session and direction
      24     8  sent: when this frame left
      32     8  echo sequence: newest sequence received from the peer, 0 if none
      40     8  echo count: frames received from the peer in this session
      48     8  echo sent: ``sent`` of the frame that is echoed, the peer's clock
      56     8  echo received: when it came, this clock
      64     n  body
    64+n     4  CRC-32 (IEEE 802.3, as zlib's) of everything before it
    68+n    16  tag: HMAC-SHA256 of everything before it, its first 16 bytes (RFC 2104, RFC 4868)

Every frame carries an echo, so each is a whole NTP exchange (RFC 5905, 8) and a loss count, and no frames
are spent on either. In every version magic, version and kind stand first and CRC and tag last, so that
versions can tell each other apart. A reader ignores what follows the fields of a body that it knows, and
kinds that it does not: fields and kinds may be added without a new version.

The CRC tells noise on the wire from a wrong key; only the tag makes a frame count. What the handshake is,
how keys are derived and a worked example in hexadecimal are in README.md beside this file.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

MAGIC, VERSION = b"DZJS", 1
TAG_BYTES = 16
# Below IPv6's least MTU (1280) with headers: never fragmented.
MAX_BODY = 1024
_HEAD = struct.Struct("<4sBBH7Q")
_CRC = struct.Struct("<I")
_TRAILER = _CRC.size + TAG_BYTES
OVERHEAD = _HEAD.size + _TRAILER
MAX_FRAME = OVERHEAD + MAX_BODY


class Kind(IntEnum):
    """Kind of a frame, and who sends it."""

    HELLO = 1  # driver: asks for a session
    WELCOME = 2  # companion: the session and its rules
    REFUSE = 3  # companion: no session, and why
    STATE = 4  # companion: where the arm is
    COMMAND = 5  # driver: where it shall be
    HOLD = 6  # driver: stay where you are, now
    PING = 7  # driver: still here; proves the keys after WELCOME
    BYE = 8  # either: the session is over


class FrameError(Exception):
    """These bytes are no frame. ``cause`` is one word: short, magic, corrupt, version, length, body."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True)
class Echo:
    """What a sender says of the newest frame it has; zeros before the first."""

    sequence: int = 0
    count: int = 0
    sent_ns: int = 0
    received_ns: int = 0


@dataclass(frozen=True)
class Frame:
    """One datagram's content. ``kind`` is an int: a later one may be none of ours."""

    kind: int
    session: int
    sequence: int
    sent_ns: int
    echo: Echo = Echo()
    body: bytes = b""


def pack(frame: Frame, key: bytes) -> bytes:
    """The frame as bytes, tagged with ``key``.

    Raises:
        ValueError: the body is too long, or a number does not fit its field.
    """
    if len(frame.body) > MAX_BODY:
        raise ValueError(f"a body of {len(frame.body)} bytes; {MAX_BODY} fit one frame")
    echo = frame.echo
    numbers = (frame.session, frame.sequence, frame.sent_ns)
    echoed = (echo.sequence, echo.count, echo.sent_ns, echo.received_ns)
    try:
        data = _HEAD.pack(MAGIC, VERSION, frame.kind, len(frame.body), *numbers, *echoed)
    except struct.error as error:
        raise ValueError(str(error)) from error
    data += frame.body
    data += _CRC.pack(zlib.crc32(data))
    return data + _tag(data, key)


def parse(data: bytes) -> Frame:
    """Take a datagram apart. It is not authentic before ``authentic`` says so.

    Raises:
        FrameError: nothing else, whatever the bytes are.
    """
    if len(data) < OVERHEAD:
        raise FrameError("short")
    if data[:4] != MAGIC:
        raise FrameError("magic")
    (crc,) = _CRC.unpack_from(data, len(data) - _TRAILER)
    if zlib.crc32(data[:-_TRAILER]) != crc:
        raise FrameError("corrupt")
    _, version, kind, length, session, sequence, sent, *echo = _HEAD.unpack_from(data)
    if version != VERSION:
        raise FrameError("version")
    if length != len(data) - OVERHEAD or length > MAX_BODY or sequence == 0:
        raise FrameError("length")
    return Frame(kind, session, sequence, sent, Echo(*echo), data[_HEAD.size : -_TRAILER])


def authentic(data: bytes, key: bytes) -> bool:
    """Whether the datagram was tagged with ``key``; compared in constant time."""
    return hmac.compare_digest(data[-TAG_BYTES:], _tag(data[:-TAG_BYTES], key))


def version_of(data: bytes) -> int:
    """The version a datagram of ours or a later version claims, 0 for anything else."""
    return data[4] if len(data) > 5 and data[:4] == MAGIC else 0


def _tag(data: bytes, key: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)[:TAG_BYTES]
