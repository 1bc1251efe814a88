"""A companion on a UDP socket, turned by a thread of its own."""

from __future__ import annotations

import select
import socket
import threading
import time
from types import TracebackType
from typing import Self

from ...errors import UserError
from ..clock import punctual
from ..uri import Uri, parse
from .companion import Companion
from .door import Outgoing
from .protocol import MAX_FRAME
from .sockets import check_key, resolve


class UdpServer:
    """Serves a companion until ``close``. Also the ``Wire`` of an emulated arm.

    Args:
        companion: see ``Companion``.
        at: ``udp://10.0.0.5:47800``; port 0 takes a free one. A companion without a key is served on
            loopback only, unless ``?insecure=1``.
        emulated: say so in ``address``: nothing heavy moves.

    Raises:
        UserError: the address is not one of this machine, taken, or needs a key.
    """

    def __init__(self, companion: Companion, at: str | Uri, emulated: bool = False) -> None:
        uri = parse(at, ("udp",), listen=True) if isinstance(at, str) else at
        family, address = resolve(uri)
        check_key(uri, address, companion.keyed)
        self.companion = companion
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise UserError(f"{uri}: cannot listen there ({error.strerror})") from error
        self._socket.setblocking(False)
        port = self._socket.getsockname()[1]
        self.port = f"{uri.host}:{port}"
        query = {key: uri.query[key] for key in ("key", "insecure") if key in uri.query}
        query |= {"emulated": "1"} if emulated else {}
        self.address = str(Uri("udp", uri.host, port, query=query))
        self._plugged, self._mute = True, False
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"companion {self.port}", daemon=True
        )
        self._thread.start()

    def unplug(self) -> None:
        """Pull the network cable: nothing gets in or out; the arm's own rules go on."""
        self._plugged = False

    def replug(self) -> None:
        self._plugged = True

    def mute(self, silent: bool) -> None:
        """Answer nothing, as a companion whose process hangs; what comes is lost."""
        self._mute = silent

    def join(self) -> None:
        """Wait until somebody closes the server, or Ctrl-C."""
        while not self._stop.wait(1.0):
            pass

    def close(self) -> None:
        """Hold, say goodbye, let go of the port. Safe to call twice."""
        self._stop.set()
        self._thread.join(2.0)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        period_ns = round(1e9 / self.companion.rules.control_hz)
        due = time.monotonic_ns()
        try:
            with punctual():
                while not self._stop.is_set():
                    wait_s = max(0, due - time.monotonic_ns()) / 1e9
                    if select.select([self._socket], [], [], wait_s)[0]:
                        self._take()
                    now = time.monotonic_ns()
                    if now >= due:
                        self._send(self.companion.tick(now))
                        # After a hiccup it goes on from now instead of racing.
                        due = max(due + period_ns, now)
        finally:
            # Whatever ended it, the arm is told to hold, and whoever waits for the end hears of it.
            self._stop.set()
            self._send(self.companion.close(time.monotonic_ns()))

    def _take(self) -> None:
        """What has come, but never so much that the next setpoint is late."""
        for _ in range(64):
            try:
                data, peer = self._socket.recvfrom(MAX_FRAME + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # an earlier datagram could not be delivered (ICMP): not ours to mend
            now = time.monotonic_ns()
            if self._plugged and not self._mute:
                self._send(self.companion.receive(data, peer, now))

    def _send(self, frames: Outgoing) -> None:
        for data, peer in frames:
            try:
                if self._plugged and not self._mute:
                    self._socket.sendto(data, peer)
            except OSError:
                continue  # a full queue or no route: as good as lost on the way
