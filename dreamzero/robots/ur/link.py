"""A connection to the controller's RTDE interface: set up by question and answer, then read by a
thread that keeps the newest state and nothing older."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ..base import LinkLost, RobotFault
from ..clock import Clock, punctual
from . import protocol as rtde
from .protocol import IN_USE, NOT_FOUND, Kind, NotRtde, Package, Recipe
from .variables import INPUTS, OUTPUTS

# Without a package for so long the link counts as lost; the arm has stopped by itself long before.
_SILENCE_S = 1.0
_BEAT_S = 0.05
_ANSWER_S = 2.0


def connect(host: str, port: int, what: str, remedy: str, timeout_s: float = 2.0) -> socket.socket:
    """A TCP connection without delays; LinkLost says what did not answer, and ``remedy``."""
    try:
        sock = socket.create_connection((host, port), timeout_s)
    except OSError as error:
        reason = str(error) or type(error).__name__
        raise LinkLost(f"no {what} answers at {host}:{port} ({reason}): {remedy}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class RtdeLink:
    """One RTDE session.

    Args:
        host, port: of the controller (30004).
        clock: what states are stamped with.

    Attributes:
        version: (major, minor, bugfix, build) of the controller.
        packages: data packages received.

    Raises:
        LinkLost: nobody answers, or the wire broke.
        RobotFault: what answers is no RTDE interface, or refuses.
    """

    def __init__(self, host: str, port: int, clock: Clock) -> None:
        self.name = f"{host}:{port}"
        self.packages = 0
        self._clock = clock
        self._said: deque[str] = deque(maxlen=4)
        self._parser = rtde.Parser()
        self._waiting: deque[Package] = deque()
        self._sock = connect(
            host,
            port,
            "RTDE interface",
            "is the controller on and in this network, and RTDE enabled on the pendant "
            "(Settings, Security, Services)?",
        )
        self._write_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._newest: tuple[bytes, float] | None = None
        self._first = threading.Event()
        self._stopped, self._lost = False, ""
        self._recipe: Recipe | None = None
        self._beat: Recipe | None = None
        try:
            if not rtde.read_answer(
                self._ask(rtde.request_version(), Kind.REQUEST_PROTOCOL_VERSION)
            ):
                raise RobotFault(
                    f"the controller at {self.name} does not speak RTDE protocol version "
                    f"{rtde.VERSION}: its software is too old (PolyScope 3.4 or 5.0 at least)"
                )
            request = rtde.get_controller_version()
            answer = self._ask(request, Kind.GET_URCONTROL_VERSION)
            self.version = rtde.read_controller_version(answer)
        except BaseException:
            self.close()
            raise

    @property
    def rate_hz(self) -> float:
        """Rate of the control cycle: 500 Hz from the e-Series on, 125 Hz before."""
        return 500.0 if self.version[0] >= 5 else 125.0

    def outputs(self, frequency_hz: float, names: Sequence[str]) -> Recipe:
        """Choose what the controller shall send, and how often."""
        request = rtde.setup_outputs(frequency_hz, names)
        self._recipe = self._set_up(request, Kind.SETUP_OUTPUTS, names)
        return self._recipe

    def inputs(self, names: Sequence[str]) -> Recipe:
        """Reserve variables to write."""
        return self._set_up(rtde.setup_inputs(names), Kind.SETUP_INPUTS, names)

    def start(self, beat: Recipe | None = None) -> None:
        """Begin; ``beat``, a recipe of one integer, is sent 20 times a second from now on."""
        if not rtde.read_answer(self._ask(rtde.start(), Kind.START)):
            raise RobotFault(f"the controller at {self.name} does not start RTDE{self._heard()}")
        self._beat = beat
        self._sock.settimeout(_BEAT_S)
        self._thread = threading.Thread(target=self._run, name=f"rtde {self.name}", daemon=True)
        self._thread.start()
        self._first.wait(_ANSWER_S)

    def latest(self) -> tuple[Mapping[str, Any], float]:
        """(variable -> value of the newest package, when it came); LinkLost if that is long ago."""
        newest = self._newest
        if self._lost:
            raise LinkLost(f"lost the controller at {self.name}: {self._lost}")
        if newest is None or self._clock.now() - newest[1] > _SILENCE_S:
            raise LinkLost(
                f"the controller at {self.name} has sent nothing for {_SILENCE_S:.0f} s: is it on, "
                f"and the cable in?{self._heard()}"
            )
        assert self._recipe is not None
        try:
            return self._recipe.decode(newest[0]), newest[1]
        except NotRtde as error:
            raise RobotFault(f"controller at {self.name}: {error}") from error

    def write(self, data: bytes) -> None:
        """Send whole packages, from any thread."""
        try:
            with self._write_lock:
                self._sock.sendall(data)
        except OSError as error:
            reason = self._lost or str(error)
            raise LinkLost(f"lost the controller at {self.name}: {reason}") from error

    def close(self) -> None:
        """Safe to call twice."""
        self._stopped = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(1.0)
        self._sock.close()

    def _set_up(self, request: bytes, kind: Kind, names: Sequence[str]) -> Recipe:
        identity, types = rtde.read_setup_answer(self._ask(request, kind))
        table = OUTPUTS if kind == Kind.SETUP_OUTPUTS else INPUTS
        missing = [n for n, t in zip(names, types, strict=False) if t == NOT_FOUND]
        if missing:
            since = max((table[name].since for name in missing if name in table), default="")
            raise RobotFault(
                f"the controller at {self.name} (software {'.'.join(map(str, self.version))}) has no "
                f"{', '.join(missing)}"
                + (
                    f": they came with PolyScope {since}; ?registers=lower needs none"
                    if since
                    else ""
                )
            )
        taken = [n for n, t in zip(names, types, strict=False) if t == IN_USE]
        if taken:
            raise RobotFault(
                f"{', '.join(taken)} of the controller at {self.name} are in use by another RTDE "
                "client: end it, or a fieldbus that holds them, or use other registers "
                "(?registers=lower)"
            )
        try:
            return Recipe(identity, tuple(names), types)
        except NotRtde as error:
            raise RobotFault(f"controller at {self.name}: {error}") from error

    def _ask(self, request: bytes, kind: Kind) -> bytes:
        """Payload of the answer; text messages on the way are kept for error messages."""
        self.write(request)
        deadline = time.monotonic() + _ANSWER_S
        while True:
            while self._waiting:
                package = self._waiting.popleft()
                if package.kind == kind:
                    return package.payload
                self._note(package)
            left = deadline - time.monotonic()
            if left <= 0:
                raise LinkLost(
                    f"the controller at {self.name} did not answer {kind.name} within "
                    f"{_ANSWER_S:.0f} s{self._heard()}"
                )
            self._sock.settimeout(left)
            try:
                data = self._sock.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as error:
                raise LinkLost(f"lost the controller at {self.name}: {error}") from error
            if not data:
                raise LinkLost(
                    f"the controller at {self.name} hung up on {kind.name}{self._heard()}"
                )
            try:
                self._waiting.extend(self._parser.feed(data))
            except NotRtde as error:
                raise RobotFault(
                    f"what answers at {self.name} is no RTDE interface (port {rtde.PORT}): {error}"
                ) from error

    def _run(self) -> None:
        buffer = memoryview(bytearray(1 << 16))
        sock, parser, now = self._sock, self._parser, self._clock.now
        beaten, beats = 0.0, 0
        with punctual():
            while not self._stopped:
                try:
                    count = sock.recv_into(buffer)
                    if not count:
                        self._lost = "it closed the connection"
                        return
                    newest = None
                    for package in parser.feed(buffer[:count]):
                        if package.kind == Kind.DATA_PACKAGE:
                            newest = package.payload
                            self.packages += 1
                        else:
                            self._note(package)
                    if newest is not None:
                        self._newest = (newest, now())
                        self._first.set()
                except TimeoutError:
                    pass
                except (OSError, NotRtde) as error:
                    self._lost = str(error)
                    return
                if self._beat is not None and now() - beaten >= _BEAT_S:
                    beaten, beats = now(), (beats + 1) & 0x7FFF
                    with contextlib.suppress(LinkLost):
                        self.write(self._beat.encode((beats,)))

    def _note(self, package: Package) -> None:
        if package.kind == Kind.TEXT_MESSAGE:
            with contextlib.suppress(NotRtde):
                self._said.append(rtde.read_text(package.payload).message)

    def _heard(self) -> str:
        return f"; it says: {' / '.join(self._said)}" if self._said else ""
