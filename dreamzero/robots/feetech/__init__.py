"""Feetech servos: the protocol without I/O, the bus over a link, an SO-100/101, and emulated servos."""

from __future__ import annotations

from .protocol import (
    BROADCAST,
    HEADER,
    MAX_ID,
    MEMORY_BYTES,
    MODEL_STS3215,
    STS3215,
    TICKS_PER_TURN,
    Instruction,
    Packet,
    Parser,
    Register,
    encode,
    error_names,
    ping,
    read,
    sync_read,
    sync_write,
    write,
)

__all__ = [
    "BROADCAST",
    "HEADER",
    "MAX_ID",
    "MEMORY_BYTES",
    "MODEL_STS3215",
    "STS3215",
    "TICKS_PER_TURN",
    "Instruction",
    "Packet",
    "Parser",
    "Register",
    "encode",
    "error_names",
    "ping",
    "read",
    "sync_read",
    "sync_write",
    "write",
]
