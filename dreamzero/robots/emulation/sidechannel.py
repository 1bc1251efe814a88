"""The emulator's second wire: pictures, scores and faults, apart from the bytes of the bus.

Requests are JSON alone; an answer with ``error`` is raised at the asker. Local use: 127.0.0.1 only.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...errors import UserError
from ..base import RobotFault
from ..messages import pack, receive

Handler = Callable[[dict[str, Any]], tuple[dict[str, Any], bytes]]


class Client:
    """Asks an emulator. One question at a time, from any thread."""

    def __init__(self, host: str, port: int, timeout_s: float = 5.0) -> None:
        self._name = f"{host}:{port}"
        self._lock = threading.Lock()
        try:
            self._sock = socket.create_connection((host, port), timeout_s)
        except OSError as error:
            raise UserError(f"no emulator answers at {self._name}: {error}") from error
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Returns (answer, data). UserError if the request is refused, RobotFault if nobody is there."""
        with self._lock:
            try:
                self._sock.sendall(pack(request))
                answer, data = receive(self._sock)
            except (OSError, EOFError, ValueError) as error:
                reason = str(error) or "it has gone"
                raise RobotFault(f"emulator at {self._name} does not answer: {reason}") from error
        if "error" in answer:
            raise UserError(f"emulator: {answer['error']}")
        return answer, data

    def close(self) -> None:
        # Whoever waits for an answer hears of a shut socket, and not of a closed one.
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class Server:
    """Answers on 127.0.0.1, a thread a client, until ``close``."""

    def __init__(self, handler: Handler, port: int = 0) -> None:
        class Conversation(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    while True:
                        request, _ = receive(self.request)
                        try:
                            answer, data = handler(request)
                        except UserError as error:
                            answer, data = {"error": str(error)}, b""
                        self.request.sendall(pack(answer, data))
                except (EOFError, OSError, ValueError):
                    return

        class Listener(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._listener = Listener(("127.0.0.1", port), Conversation)
        self.port: int = self._listener.server_address[1]
        self._thread = threading.Thread(target=self._listener.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()
