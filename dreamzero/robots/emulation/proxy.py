"""The impaired network itself: a proxy between drivers and an emulated arm, on a thread of its own."""

from __future__ import annotations

import heapq
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from ...errors import UserError
from ..uri import Uri, parse
from .device import Device, Wire
from .impairments import Dice, Impairments, impaired

_MOST_BYTES = 1 << 16


class Proxy:
    """Forwards between clients and a target; ``UdpProxy`` and ``TcpProxy`` say how.

    Args:
        listen, target: (host, port); port 0 of ``listen`` is any that is free.
        dice: what happens on the way.

    Attributes:
        port: where it listens.
        plugged: while false everything that comes is lost.

    Raises:
        UserError: it cannot listen there.
    """

    kind: socket.SocketKind

    def __init__(self, listen: tuple[str, int], target: tuple[str, int], dice: Dice) -> None:
        self.dice, self.target, self.plugged = dice, target, True
        family, _, _, _, address = socket.getaddrinfo(*listen, type=self.kind)[0]
        self._front = socket.socket(family, self.kind)
        self._front.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._front.bind(address)
            if self.kind == socket.SOCK_STREAM:
                self._front.listen()
        except OSError as error:
            self._front.close()
            where = f"{listen[0]}:{listen[1]}"
            raise UserError(f"{where}: cannot listen there ({error.strerror})") from error
        self.port: int = self._front.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, Callable[[], Any]]] = []
        self._count = 0
        self._stop = threading.Event()
        self._watch(self._front, self._accept)
        self._thread = threading.Thread(target=self._run, name=f"proxy {self.port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it and every connection. Safe to call twice."""
        self._stop.set()
        self._thread.join(2.0)
        for key in list((self._selector.get_map() or {}).values()):
            self._forget(key.fileobj)
        self._selector.close()

    def _accept(self) -> None:
        raise NotImplementedError

    def _watch(self, sock: socket.socket, ready: Callable[[], None]) -> None:
        self._selector.register(sock, selectors.EVENT_READ, ready)

    def _forget(self, sock: Any) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(sock)
        sock.close()

    def _later(self, when_s: float, do: Callable[[], Any]) -> None:
        self._count += 1
        heapq.heappush(self._due, (when_s, self._count, do))

    def _run(self) -> None:
        while not self._stop.is_set():
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                with suppress(OSError):  # whoever it was for has gone
                    heapq.heappop(self._due)[2]()
            wait_s = min(0.05, self._due[0][0] - now) if self._due else 0.05
            for key, _ in self._selector.select(max(0.0, wait_s)):
                with suppress(OSError):
                    key.data()


class UdpProxy(Proxy):
    """Datagrams: lost, late, twice, overtaken, with flipped bits. A socket of its own for each client."""

    kind = socket.SOCK_DGRAM

    def __init__(self, listen: tuple[str, int], target: tuple[str, int], dice: Dice) -> None:
        self._clients: dict[Any, socket.socket] = {}
        super().__init__(listen, target, dice)

    def _accept(self) -> None:
        data, client = self._front.recvfrom(_MOST_BYTES)
        if client not in self._clients:
            family, _, _, _, address = socket.getaddrinfo(*self.target, type=self.kind)[0]
            back = socket.socket(family, self.kind)
            back.connect(address)
            self._clients[client] = back
            self._watch(back, lambda: self._pass(back.recv(_MOST_BYTES), self._reply(client)))
        self._pass(data, self._clients[client].send)

    def _reply(self, client: Any) -> Callable[[bytes], int]:
        return lambda data: self._front.sendto(data, client)

    def _pass(self, data: bytes, send: Callable[[bytes], int]) -> None:
        if self.plugged:
            now = time.monotonic()
            for delay, copy in self.dice.datagram(data):
                self._later(now + delay, lambda copy=copy: send(copy))  # type: ignore[misc]


class TcpProxy(Proxy):
    """A byte stream: late, with flipped bits, and silent while what was lost is sent again."""

    kind = socket.SOCK_STREAM

    def _accept(self) -> None:
        client, _ = self._front.accept()
        try:
            server = socket.create_connection(self.target, 2.0)
        except OSError:
            client.close()
            raise
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(2.0)
        for one, other in ((client, server), (server, client)):
            self._watch(one, self._forward(one, other))

    def _forward(self, source: socket.socket, sink: socket.socket) -> Callable[[], None]:
        last_s = 0.0

        def ready() -> None:
            nonlocal last_s
            data = b""
            with suppress(OSError):
                data = source.recv(_MOST_BYTES)
            if not data:
                self._forget(source)
                self._later(max(last_s, time.monotonic()), lambda: self._forget(sink))
            elif self.plugged:
                delay, data = self.dice.chunk(data)
                # In order, whatever the jitter: a stream waits for its slowest part.
                last_s = max(last_s, time.monotonic() + delay)
                self._later(last_s, lambda: sink.sendall(data))

        return ready


class ImpairedWire:
    """A wire with a proxy before it; its address is the proxy's."""

    def __init__(self, wire: Wire, proxy: Proxy, at: Uri) -> None:
        self._wire, self.proxy = wire, proxy
        inner = parse(wire.address)
        self.address = str(replace(inner, host=at.host, port=proxy.port))
        self.port = f"{at.host}:{proxy.port}"

    def unplug(self) -> None:
        self.proxy.plugged = False
        self._wire.unplug()

    def replug(self) -> None:
        self._wire.replug()
        self.proxy.plugged = True

    def close(self) -> None:
        self.proxy.close()
        self._wire.close()


def listen(device: Device, at: str, impairments: Impairments) -> tuple[Wire, Dice]:
    """Open a device's wire behind impairments.

    Args:
        device: whose wire.
        at: where clients shall reach it, as for ``device.listen``.
        impairments: what happens on the way.

    Raises:
        UserError: it cannot listen there, or nothing can be impaired on such a wire.
    """
    from ..stream.sockets import check_key, resolve

    dice = Dice(impairments)
    if not at.startswith(("tcp:", "udp:")):
        wire = device.listen(at)
        feed = getattr(wire, "feed", None)
        if feed is None:
            raise UserError(f"a wire at {at!r} cannot be impaired; tcp, udp and pty can")
        wire.feed = impaired(feed, dice)  # type: ignore[attr-defined]
        return wire, dice
    uri = parse(at, ("tcp", "udp"), listen=True)
    if uri.scheme == "udp":
        check_key(uri, resolve(uri)[1], "key" in uri.query)
    # The arm itself hides on a free port of this machine.
    options = f"?{urlencode(dict(uri.query), safe='/:')}" if uri.query else ""
    wire = device.listen(f"{uri.scheme}://127.0.0.1:0{options}")
    inner = parse(wire.address)
    kind = UdpProxy if uri.scheme == "udp" else TcpProxy
    try:
        proxy = kind((uri.host, uri.port), (inner.host, inner.port), dice)
    except UserError:
        wire.close()
        raise
    return ImpairedWire(wire, proxy, uri), dice
