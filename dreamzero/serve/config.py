"""How a server serves, and where it listens."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Literal

from ..errors import UserError
from .protocol import MIB


@dataclass(frozen=True)
class ServeConfig:
    """How to serve.

    Attributes:
        host, port: where to listen; port 0 takes a free one.
        dialect: of clients that do not ask for ours (see `messages`).
        token: what clients have to send as ``Authorization: Api-Key TOKEN``; None asks for nothing.
        tls: certificate and key, for wss.
        max_sessions: policies at most, if the memory allows.
        max_connections: websockets at most; more are refused with HTTP 503.
        queue: requests that may wait for the device.
        session_timeout_s: a session that was not asked for so long has ended.
        max_message: bytes of a message.
        send_timeout_s: a client that does not take its answer for so long is cut off.
        grace_s: how long requests under way may take when the server ends.
        ping_s: between keepalive pings; a client that does not answer one for as long is gone.
        real_clock: whether clients' robots live in real time (see `frames`).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    dialect: Literal["roboarena", "openpi"] = "roboarena"
    token: str | None = None
    tls: ssl.SSLContext | None = None
    max_sessions: int = 4
    max_connections: int = 64
    queue: int = 16
    session_timeout_s: float = 600.0
    max_message: int = 64 * MIB
    send_timeout_s: float = 10.0
    grace_s: float = 30.0
    ping_s: float = 20.0
    real_clock: bool = True

    def __post_init__(self) -> None:
        for name in ("max_sessions", "max_connections", "queue", "max_message"):
            if getattr(self, name) < 1:
                raise UserError(f"serve: {name}={getattr(self, name)} should be at least 1")
        for name in ("session_timeout_s", "send_timeout_s", "grace_s", "ping_s"):
            if not getattr(self, name) > 0:
                raise UserError(f"serve: {name}={getattr(self, name)} should be more than 0 s")
        if not 0 <= self.port < 2**16:
            raise UserError(f"serve: port {self.port} is not 0 to 65535")


@dataclass(frozen=True)
class Address:
    """Where a server really listens."""

    host: str
    port: int
    uri: str

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host.startswith("127.") or self.host == "::1"


def bind(config: ServeConfig) -> tuple[socket.socket, Address]:
    """The port, taken but not yet listened on: before a model is loaded and warmed up for minutes.

    Raises:
        UserError: it is taken, forbidden, or the host is not of this machine.
    """
    listener: socket.socket | None = None
    try:
        family, kind, number, _, where = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise UserError(
            f"cannot listen on {config.host} port {config.port} ({error.strerror or error}); "
            "--port 0 takes a free port"
        ) from error
    host, port = listener.getsockname()[:2]
    scheme, shown = "ws" if config.tls is None else "wss", f"[{host}]" if ":" in host else host
    return listener, Address(host, port, f"{scheme}://{shown}:{port}")
