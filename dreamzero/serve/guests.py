"""Guests of a soak: those that drive as robots do, one that crawls, and those that break the protocol."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from ..embodiments import Embodiment
from ..errors import UserError
from . import protocol
from .client import RemotePolicy
from .log import quiet
from .wire import wire


@dataclass
class Book:
    """What all guests of a soak write down.

    Attributes:
        latency_ms: of every chunk of the guests that behave, round trip.
        errors: what those were refused, and how often.
        slow: chunks of slow guests; mischief: attempts of malformed ones by kind.
    """

    latency_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    slow: int = 0
    mischief: Counter[str] = field(default_factory=Counter)


class Guest(threading.Thread):
    """One client until ``stop`` is set; every fourth is malformed, every eighth slow.

    Args:
        number: decides its kind, and seeds its chance.
        pause_s: what a robot does between two chunks.
    """

    def __init__(
        self,
        number: int,
        uri: str,
        card: Embodiment,
        pause_s: float,
        book: Book,
        lock: threading.Lock,
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"guest-{number}")
        self._number, self._uri, self._card, self._pause_s = number, uri, card, pause_s
        self._book, self._lock, self._stopping = book, lock, stop
        self._rng = random.Random(number)

    def run(self) -> None:
        """An error of a guest is an entry of the book: a thread's traceback is seen by nobody."""
        try:
            if self._number % 4 == 3:
                self._misbehave()
            elif self._number % 8 == 5:
                self._crawl()
            else:
                while not self._stopping.is_set():
                    self._behave()
        except Exception as error:  # noqa: BLE001
            with self._lock:
                self._book.errors[f"{type(error).__name__}: {error}"[:200]] += 1

    def _behave(self) -> None:
        """A few episodes on one connection."""
        card, rng = self._card, self._rng
        frames, state = _views(card, card.frames_per_block), np.zeros(card.state_dim, np.float32)
        policy = RemotePolicy(self._uri, card)
        for episode in range(rng.randint(1, 3)):
            policy.reset(f"episode {episode}")
            policy.observe({view: clip[:1] for view, clip in frames.items()}, state)
            for _ in range(rng.randint(1, 12)):
                if self._stopping.is_set():
                    break
                began_s = time.perf_counter()
                policy.act()
                took_ms = 1e3 * (time.perf_counter() - began_s)
                with self._lock:
                    self._book.latency_ms.append(took_ms)
                time.sleep(self._pause_s)
                policy.observe(frames, state)
        policy.close()

    def _crawl(self) -> None:
        """Requests in eight pieces, answers read late."""
        data = protocol.pack(_request(self._card))
        step = len(data) // 8 + 1

        def pieces() -> Iterator[bytes]:
            for i in range(0, len(data), step):
                yield data[i : i + step]
                time.sleep(self._rng.uniform(0, 0.05))

        with _visit(self._uri) as server:
            server.recv(timeout=30)
            while not self._stopping.is_set():
                server.send(pieces())
                time.sleep(self._rng.uniform(0, 0.3))
                answer = server.recv(timeout=30)
                if isinstance(answer, str):
                    raise UserError(f"a slow client was refused: {answer}")
                with self._lock:
                    self._book.slow += 1

    def _misbehave(self) -> None:
        while not self._stopping.is_set():
            kind = self._rng.choice([*MISCHIEF, "handshake", "garbage"])
            if kind in MISCHIEF:
                # However it ends for the guest: what counts is how the server fares.
                with suppress(WebSocketException, OSError), _visit(self._uri) as server:
                    server.recv(timeout=30)
                    MISCHIEF[kind](server, self._card, self._rng)
                    server.recv(timeout=30)
            else:
                _raw(self._uri, self._rng, kind)
            with self._lock:
                self._book.mischief[kind] += 1
            time.sleep(self._rng.uniform(0, 0.1))


def _visit(uri: str) -> Any:
    return connect(uri, compression=None, proxy=None, close_timeout=1, logger=quiet)


def _raw(uri: str, rng: random.Random, kind: str) -> None:
    """Half an HTTP request, or bytes that are none."""
    where = urlsplit(uri)
    said = b"GET / HTTP/1.1\r\nUpgrade: webs" if kind == "handshake" else rng.randbytes(200)
    with suppress(OSError), socket.create_connection((where.hostname, where.port), 5) as raw:
        raw.sendall(said)


def _noise(server: ClientConnection, card: Embodiment, rng: random.Random) -> None:
    server.send(rng.randbytes(rng.randint(1, 4096)))


def _text(server: ClientConnection, card: Embodiment, rng: random.Random) -> None:
    server.send('{"endpoint": "infer"}')


def _missing(server: ClientConnection, card: Embodiment, rng: random.Random) -> None:
    request = _request(card)
    request.pop(rng.choice(list(request)))
    request["endpoint"] = "infer" if rng.random() < 0.5 else "explode"
    server.send(protocol.pack(request))


def _nan(server: ClientConnection, card: Embodiment, rng: random.Random) -> None:
    key, width = wire(card).state[0]
    server.send(protocol.pack(_request(card) | {key: np.full(width, np.nan, np.float32)}))


def _bomb(server: ClientConnection, card: Embodiment, rng: random.Random) -> None:
    server.send(b"\x91" * rng.choice([500, 100_000]))


def _vanish(server: ClientConnection, card: Embodiment, rng: random.Random) -> None:
    """In the middle of its request's answer, without a word."""
    server.send(protocol.pack(_request(card)))
    server.socket.shutdown(socket.SHUT_RDWR)


MISCHIEF: dict[str, Callable[[ClientConnection, Embodiment, random.Random], None]] = {
    "noise": _noise,
    "text": _text,
    "missing": _missing,
    "nan": _nan,
    "bomb": _bomb,
    "vanish": _vanish,
}


def _views(card: Embodiment, count: int) -> dict[str, np.ndarray]:
    size = wire(card).config.image_resolution or card.canvas_px
    return {view: np.full((count, *size, 3), 127, np.uint8) for view in card.views}


def _request(card: Embodiment) -> dict[str, Any]:
    found: dict[str, Any] = dict(wire(card).write(_views(card, 1), np.zeros(card.state_dim)))
    return found | {"endpoint": "infer", "prompt": "wait", "session_id": "s"}
