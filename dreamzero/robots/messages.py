"""Messages between processes of this package: JSON with bytes behind it, never pickle.

One message is two big-endian uint32 (bytes of JSON, bytes of data), then JSON, then data.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from typing import Any

_HEAD = struct.Struct("!II")
# A picture of 2048 x 2048; anything longer is no message of ours.
_MOST_BYTES = 3 * 2048 * 2048


def pack(message: dict[str, Any], data: bytes = b"") -> bytes:
    """One message as bytes."""
    return _head(message, len(data)) + data


def send(sock: socket.socket, message: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """One message; the data (C-contiguous) are not copied here."""
    view = memoryview(data).cast("B")
    sock.sendall(_head(message, len(view)))
    if len(view):
        sock.sendall(view)


def receive(sock: socket.socket) -> tuple[dict[str, Any], bytes]:
    """One message; EOFError when the other side has gone, ValueError when it is not ours."""
    text_bytes, data_bytes = _HEAD.unpack(_exactly(sock, _HEAD.size))
    if text_bytes > 1 << 16 or data_bytes > _MOST_BYTES:
        raise ValueError("a message of another protocol")
    message = json.loads(_exactly(sock, text_bytes))
    if not isinstance(message, dict):
        raise ValueError("a message of another protocol")  # noqa: TRY004  bad bytes, not bad code
    return message, _exactly(sock, data_bytes)


def readable(sock: socket.socket, timeout_s: float) -> bool:
    """Whether something has come, or the other side has gone, waiting up to ``timeout_s``."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(1e3 * timeout_s))


def _head(message: dict[str, Any], data_bytes: int) -> bytes:
    text = json.dumps(message).encode()
    return _HEAD.pack(len(text), data_bytes) + text


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
