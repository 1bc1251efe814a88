"""The emulated controller on the network: RTDE, and the line servers beside it, at one address."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable

from ...errors import UserError
from ..uri import parse
from . import dashboard, gripper, primary
from . import protocol as rtde
from .controller import Controller
from .primary import Message
from .rtde_server import RtdeServer

_SCRIPT_BYTES = 1 << 16


class LineServer:
    """A server beside the control loop, with a thread for each client.

    Args:
        talk: one conversation, given the connection, until it returns or raises OSError.
    """

    def __init__(self, host: str, port: int, talk: Callable[[socket.socket], None]) -> None:
        self._host, self._talk = host, talk
        self._clients: set[socket.socket] = set()
        self._listener: socketserver.ThreadingTCPServer | None = None
        self.port = self.plug(port)

    def plug(self, port: int) -> int:
        talk, clients = self._talk, self._clients

        class Conversation(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                clients.add(self.request)
                with contextlib.suppress(OSError):
                    talk(self.request)
                clients.discard(self.request)

        class Listener(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        try:
            self._listener = Listener((self._host, port), Conversation)
        except OSError as error:
            raise UserError(f"cannot listen at {self._host}:{port}: {error}") from error
        threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()
        return int(self._listener.server_address[1])

    def unplug(self) -> None:
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None
        for sock in list(self._clients):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    close = unplug


class ControllerWire:
    """RTDE, primary interface, dashboard server and Robotiq URCap at one address.

    At port 30004 the others take their own standard ports; at any other port free ones.

    Args:
        at: ``tcp://127.0.0.1:0``; port 0 is any free one.
    """

    def __init__(self, controller: Controller, at: str) -> None:
        host, _, port = at.removeprefix("tcp://").rpartition(":")
        if not at.startswith("tcp://") or not host or not port.isdigit():
            raise UserError(f"a controller listens at tcp://127.0.0.1:0, not at {at!r}")
        standard = int(port) == rtde.PORT
        self._servers: list[RtdeServer | LineServer] = []
        try:
            for number, talk in (
                (primary.PORT, lambda sock: _scripts(sock, controller)),
                (dashboard.PORT, lambda sock: _dashboard(sock, controller)),
                (gripper.PORT, lambda sock: _gripper(sock, controller)),
            ):
                self._servers.append(LineServer(host, number if standard else 0, talk))
            self._servers.append(RtdeServer(controller, host, int(port)))
        except BaseException:
            self.close()
            raise
        scripts, board, fingers, rtde_ = (server.port for server in self._servers)
        self.port = f"{host}:{rtde_}"
        query = f"script_port={scripts}&dashboard_port={board}&gripper_port={fingers}"
        self.address = str(parse(f"tcp://{self.port}?emulated=1&{query}"))

    def unplug(self) -> None:
        for server in self._servers:
            server.unplug()

    def replug(self) -> None:
        self.unplug()
        for server in self._servers:
            server.plug(server.port)

    def close(self) -> None:
        for server in self._servers:
            server.close()


def _scripts(sock: socket.socket, controller: Controller) -> None:
    """The primary interface: programs in, messages out."""

    def tell(message: Message) -> None:
        with contextlib.suppress(OSError):
            sock.sendall(primary.encode(message))

    forget = controller.listen_to_messages(tell)
    try:
        received = b""
        while data := sock.recv(1 << 16):
            received = (received + data)[-_SCRIPT_BYTES:]
            while (end := received.find(b"\nend\n")) >= 0:
                end += len(b"\nend\n")
                controller.script(received[:end].decode("ascii", "replace"))
                received = received[end:]
    finally:
        forget()


def _dashboard(sock: socket.socket, controller: Controller) -> None:
    sock.sendall(dashboard.GREETING.encode() + b"\n")
    for line in sock.makefile("r", encoding="ascii", errors="replace"):
        sock.sendall(controller.command(line.strip()).encode() + b"\n")


def _gripper(sock: socket.socket, controller: Controller) -> None:
    for line in sock.makefile("r", encoding="ascii", errors="replace"):
        sock.sendall(controller.gripper_line(line.strip()).encode())
