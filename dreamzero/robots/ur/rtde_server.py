"""RTDE as the emulated controller serves it, on the thread that turns the control loop."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from ...errors import UserError
from ..clock import MonotonicClock, punctual
from . import protocol as rtde
from .controller import Controller
from .protocol import IN_USE, NOT_FOUND, Kind, Level, NotRtde, Package, Recipe

# What an overloaded controller leaves out: it answers RTDE in one cycle of so many.
_SLOW_CYCLES = 50


class Session:
    """One RTDE client."""

    def __init__(self, sock: socket.socket, controller: Controller, server: RtdeServer) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inputs: dict[int, Recipe] = {}
        self._sock, self._controller, self._server = sock, controller, server
        self._parser = rtde.Parser()
        self._outputs: Recipe | None = None
        self._every, self._started, self._greeted = 1, False, False
        self._unsent = b""

    def read(self) -> bool:
        """Take what has come; false when the client has gone or sends nonsense."""
        try:
            data = self._sock.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        try:
            for package in self._parser.feed(data):
                self._controller.packets += 1
                self._take(package)
        except NotRtde as error:
            self._send(rtde.text(str(error), "RTDE", Level.EXCEPTION))
            return False
        return True

    def write(self, cycle: int) -> bool:
        """Send the state if it is due; what a slow client has no room for is left out."""
        if self._unsent:
            return self._send(b"")
        if not self._started or self._outputs is None or cycle % self._every:
            return True
        values = self._controller.values
        flat: list[Any] = []
        for name in self._outputs.names:
            flat += values[name]
        return self._send(self._outputs.encode(flat))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _send(self, data: bytes) -> bool:
        data = self._unsent + data
        try:
            self._unsent = data[self._sock.send(data) :]
        except BlockingIOError:
            self._unsent = data
        except OSError:
            return False
        return True

    def _take(self, package: Package) -> None:
        kind, payload = package.kind, package.payload
        if kind == Kind.DATA_PACKAGE:
            recipe = self.inputs.get(payload[0]) if payload else None
            if recipe is None:
                raise NotRtde("data for an input recipe that was not set up")
            flat = recipe.flat(payload)
            for name, place in recipe.at.items():
                self._controller.write(name, flat[place])
        elif kind == Kind.REQUEST_PROTOCOL_VERSION:
            self._greeted = rtde.read_version_request(payload) in self._controller.speaks
            self._send(rtde.answer(Kind(kind), self._greeted))
        elif kind == Kind.GET_URCONTROL_VERSION:
            self._send(rtde.controller_version(self._controller.version))
        elif kind in (Kind.START, Kind.PAUSE):
            ready = kind == Kind.PAUSE or self._outputs is not None
            self._started = kind == Kind.START and ready
            self._send(rtde.answer(Kind(kind), ready))
        elif kind in (Kind.SETUP_OUTPUTS, Kind.SETUP_INPUTS):
            if not self._greeted:
                raise NotRtde("no protocol version was agreed on, and version 1 is not spoken here")
            self._set_up(Kind(kind), payload)

    def _set_up(self, kind: Kind, payload: bytes) -> None:
        controller = self._controller
        if kind == Kind.SETUP_OUTPUTS:
            rate_hz = 1 / controller.step_s
            frequency_hz, names = rtde.read_outputs_request(payload)
            types = tuple(controller.outputs.get(name, NOT_FOUND) for name in names)
            fits = bool(names) and NOT_FOUND not in types and 1 <= frequency_hz <= rate_hz
            self._outputs = Recipe(1, names, types) if fits else None
            self._every = int(rate_hz / frequency_hz) if fits else 1
            identity = int(fits)
        else:
            names = rtde.read_names(payload)
            types = tuple(controller.inputs.get(name, NOT_FOUND) for name in names)
            taken = self._server.taken(self)
            types = tuple(IN_USE if n in taken else t for n, t in zip(names, types, strict=True))
            fits = bool(names) and not {NOT_FOUND, IN_USE} & set(types) and len(self.inputs) < 255
            identity = len(self.inputs) + 1 if fits else 0
            if fits:
                self.inputs[identity] = Recipe(identity, names, types)
        self._send(rtde.setup_answer(kind, identity, types))


class RtdeServer:
    """The control loop on absolute deadlines, and RTDE for any number of clients."""

    def __init__(self, controller: Controller, host: str, port: int) -> None:
        self.host = host
        self._controller = controller
        self._sessions: list[Session] = []
        self._listener: socket.socket | None = None
        self._running = True
        self.port = self.plug(port)
        self._thread = threading.Thread(target=self._run, name="control loop", daemon=True)
        self._thread.start()

    def plug(self, port: int) -> int:
        """Listen at a port (0: any free one); returns which."""
        listener = _listen(self.host, port)
        listener.setblocking(False)
        self._listener = listener
        return int(listener.getsockname()[1])

    def unplug(self) -> None:
        with self._controller.lock:
            if self._listener is not None:
                self._listener.close()
            self._listener = None
            for session in self._sessions:
                session.close()
            self._sessions = []

    def close(self) -> None:
        self._running = False
        self._thread.join(1.0)
        self.unplug()

    def taken(self, by_others_than: Session) -> set[str]:
        """Input variables that some other client controls."""
        others = (s for s in self._sessions if s is not by_others_than)
        return {n for s in others for recipe in s.inputs.values() for n in recipe.names}

    def _run(self) -> None:
        clock, controller = MonotonicClock(), self._controller
        step_s = controller.step_s
        with punctual():
            due = clock.now()
            while self._running:
                due += step_s
                clock.sleep_until(due)
                behind = int((clock.now() - due) / step_s)
                if behind:
                    # Deadlines are absolute: what was missed is not made up for.
                    controller.late += behind
                    due += behind * step_s
                with controller.lock:
                    if not controller.frozen:
                        self._cycle()

    def _cycle(self) -> None:
        controller = self._controller
        talks = not controller.slow or controller.cycles % _SLOW_CYCLES == 0
        if talks:
            self._accept()
            self._keep([s for s in self._sessions if not s.read()])
        controller.cycle()
        if talks:
            cycle = controller.cycles
            self._keep([s for s in self._sessions if not s.write(cycle)])

    def _keep(self, lost: list[Session]) -> None:
        for session in lost:
            session.close()
            self._sessions.remove(session)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            if self._listener is not None:
                sock, _ = self._listener.accept()
                self._sessions.append(Session(sock, self._controller, self))


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=8)
    except OSError as error:
        raise UserError(f"cannot listen at {host}:{port}: {error}") from error
