"""The server: websockets in front, one computing thread behind, health and figures beside.

    with serving(source("hold", embodiments.get("droid")), ServeConfig(port=0)) as address:
        policy = RemotePolicy(address.uri, embodiments.get("droid"))

Every connection is served by a task of its own and asked for one thing at a time; what it does wrong
ends it alone. An error goes out as a text frame, then the connection closes: 1007 for a request that
makes no sense, 1013 when there is no room, 1011 when the fault is ours, 1001 when the server ends.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from websockets.asyncio.server import Server as Listener
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from .. import __version__
from ..errors import UserError
from . import protocol
from .config import Address, ServeConfig, bind
from .door import Door, peer
from .log import Visit, event, quiet
from .messages import (
    RESET_DONE,
    SUBPROTOCOL,
    Answer,
    Infer,
    greeting,
    parse_request,
)
from .metrics import Metrics
from .policies import Source
from .protocol import Limits, ProtocolError
from .sessions import Sessions
from .wire import wire
from .worker import Busy, Gone, Worker

GOING_AWAY, BAD_DATA, INTERNAL, TRY_AGAIN = 1001, 1007, 1011, 1013


class _Slow(Exception):
    """A client did not take what it was sent."""


class Server:
    """Serves one policy.

    Args:
        source: what is served.
        config: how.
    """

    def __init__(self, source: Source, config: ServeConfig) -> None:
        self.source, self.config = source, config
        self.wire = wire(source.card)
        self.worker = Worker(config.queue)
        self.sessions = Sessions(
            source.make,
            self.wire,
            self.worker,
            config.max_sessions,
            config.session_timeout_s,
            config.real_clock,
        )
        self.metrics = Metrics(
            {
                "queue_length": ("Requests that wait or run", lambda: self.worker.length),
                "sessions": ("Sessions", lambda: len(self.sessions)),
                "connections": ("Open websockets", lambda: len(self._visits)),
            }
        )
        self._limits = Limits(size=config.max_message)
        self._visits: dict[ServerConnection, Visit] = {}
        self._stopping = False
        self._fault = ""
        self._began_s = time.monotonic()

    async def run(self, ready: Callable[[Address], None], stop: asyncio.Event) -> bool:
        """Take the port, warm up, listen, call ``ready``, and serve until ``stop`` is set.

        Returns:
            Whether nothing is left computing.

        Raises:
            UserError: no policy can be made, or the port cannot be had.
        """
        try:
            sock, address = bind(self.config)
            with sock:
                return await self._run(sock, lambda: ready(address), stop)
        except BaseException:
            self.worker.close(1.0)
            raise

    async def _run(
        self, sock: socket.socket, ready: Callable[[], None], stop: asyncio.Event
    ) -> bool:
        stopped = asyncio.create_task(stop.wait())
        warm = asyncio.create_task(self.sessions.warm_up())
        await asyncio.wait({warm, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not warm.done():
            warm.cancel()
            return self.worker.close(1.0)
        await warm
        listener = await self._listen(sock)
        sweep = asyncio.create_task(self._sweep())
        try:
            event("ready", warm_up_s=round(time.monotonic() - self._began_s, 3))
            ready()
            await stop.wait()
        finally:
            sweep.cancel()
            clean = await self._end(listener)
        return clean

    async def _listen(self, sock: socket.socket) -> Listener:
        config = self.config
        return await serve(
            self._serve,
            sock=sock,
            ssl=config.tls,
            # A browser sends where its page comes from; robots send nothing.
            origins=[None],
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            select_subprotocol=_subprotocol,
            process_request=Door(
                config.token,
                config.max_connections,
                self.metrics,
                self._health,
                lambda: len(self._visits),
                _turned_away,
            ),
            compression=None,
            server_header=f"dreamzero/{__version__}",
            open_timeout=10,
            close_timeout=2,
            ping_interval=config.ping_s,
            ping_timeout=config.ping_s,
            max_size=config.max_message,
            max_queue=1,
            logger=quiet,
        )

    def _health(self) -> dict[str, Any]:
        health: dict[str, Any] = {
            "ready": not self._stopping and not self._fault,
            "policy": self.source.name,
            "embodiment": self.source.card.name,
            "protocol": self.config.dialect,
            "version": __version__,
            "sessions": len(self.sessions),
            "connections": len(self._visits),
            "queue": self.worker.length,
            "uptime_s": round(time.monotonic() - self._began_s, 3),
        }
        return health | ({"fault": self._fault} if self._fault else {})

    async def _end(self, listener: Listener) -> bool:
        """No new connections; answers under way go out, then everybody is told goodbye."""
        self._stopping = True
        listener.close(close_connections=False)
        idle = [connection for connection, visit in self._visits.items() if not visit.busy]
        goodbyes = [asyncio.create_task(c.close(GOING_AWAY, "the server ends")) for c in idle]
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.grace_s):
                await listener.wait_closed()
        for connection in list(self._visits):
            connection.transport.abort()
        for goodbye in goodbyes:
            goodbye.cancel()
        clean = self.worker.close(1.0)
        if not clean:
            event("a computation did not end in time and is left behind", logging.WARNING)
        event("ended", up_s=round(time.monotonic() - self._began_s, 1))
        return clean

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(self.config.session_timeout_s / 4, 10.0))
            self.sessions.expire()

    async def _serve(self, connection: ServerConnection) -> None:
        ours = connection.subprotocol == SUBPROTOCOL
        visit = Visit(peer(connection), "dreamzero" if ours else self.config.dialect)
        self._visits[connection] = visit
        try:
            hello = greeting(visit.dialect, self.wire.config, self.source.name, self.source.card)
            await self._send(connection, protocol.pack(hello))
            while not self._stopping:
                data = await connection.recv()
                visit.busy = True
                arrived_s = time.monotonic()
                answer = await self._answer(connection, visit, data, arrived_s)
                await self._send(connection, answer)
                self.metrics.request_s.observe(time.monotonic() - arrived_s)
                visit.requests += 1
                visit.busy = False
                del data, answer  # megabytes that need not wait for the next request
            await connection.close(GOING_AWAY, "the server ends")
        except ConnectionClosed as error:
            # Over the size, no valid frame, no answer to pings: the library has closed it.
            if error.sent is not None and not error.rcvd_then_sent and error.sent.code > 1001:
                silent = "ping" in error.sent.reason
                self._failed(visit, "slow" if silent else "protocol", error.sent.reason)
        except Gone:
            pass
        except _Slow as error:
            self._failed(visit, "slow", str(error))
            connection.transport.abort()
        except Busy as error:
            await self._refuse(connection, visit, "busy", str(error), TRY_AGAIN)
        except ProtocolError as error:
            await self._refuse(connection, visit, "protocol", str(error), BAD_DATA)
        except UserError as error:
            await self._refuse(connection, visit, "request", str(error), BAD_DATA)
        except Exception as error:  # noqa: BLE001  one client's misfortune must not end the server
            self._fault = f"{type(error).__name__}: {error}"[:500]
            event("internal error", logging.ERROR, exc_info=error, peer=visit.peer)
            said = f"internal error ({type(error).__name__}); the server's log has it"
            await self._refuse(connection, visit, "internal", said, INTERNAL)
        finally:
            del self._visits[connection]
            self.sessions.release(connection)
            visit.over(connection.close_code)

    async def _answer(
        self, connection: ServerConnection, visit: Visit, data: bytes | str, arrived_s: float
    ) -> bytes | str:
        if isinstance(data, str):
            raise ProtocolError("a text frame is no request: send msgpack in a binary frame")
        request = parse_request(protocol.unpack(data, self._limits))
        if not isinstance(request, Infer):
            self.sessions.release(connection, request.session_id)
            self.metrics.requests.labels("reset").inc()
            return RESET_DONE
        frames, state = self.wire.read(request.observation)
        steps = request.executed_steps
        if steps is not None and steps > self.source.card.horizon:
            raise ProtocolError(
                f"executed_steps {steps}: a chunk has {self.source.card.horizon} actions"
            )
        session = await self.sessions.claim(connection, request.session_id)
        try:
            episode = session.episode
            answer: Answer = await self.worker.run(
                lambda: episode.infer(request.prompt, frames, state, steps, arrived_s),
                lambda: connection.state is State.OPEN,
            )
        finally:
            session.busy = False
        self._count(visit, answer)
        answer.timing["queue_ms"] = 1e3 * (time.monotonic() - arrived_s - answer.infer_s)
        return protocol.pack(answer.to_message(visit.dialect))

    def _count(self, visit: Visit, answer: Answer) -> None:
        self._fault = ""
        self.metrics.requests.labels("infer").inc()
        self.metrics.infer_s.observe(answer.infer_s)
        self.metrics.contexts.labels(answer.context).inc()
        self.metrics.evaluations.inc(int(answer.chunk.info.get("evaluations", 0)))
        if answer.why:
            visit.restarted(answer.why)

    async def _send(self, connection: ServerConnection, data: bytes | str) -> None:
        try:
            async with asyncio.timeout(self.config.send_timeout_s):
                await connection.send(data)
        except TimeoutError:
            raise _Slow(f"took nothing for {self.config.send_timeout_s:g} s") from None

    async def _refuse(
        self, connection: ServerConnection, visit: Visit, kind: str, text: str, code: int
    ) -> None:
        self._failed(visit, kind, text)
        try:
            await self._send(connection, text[:1000])
            await connection.close(code, text.encode()[:120].decode(errors="ignore"))
        except (ConnectionClosed, _Slow):
            connection.transport.abort()

    def _failed(self, visit: Visit, kind: str, text: str) -> None:
        self.metrics.errors.labels(kind).inc()
        visit.error = f"{kind}: {text[:300]}"


def _subprotocol(connection: ServerConnection, offered: Any) -> Any:
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


def _turned_away(who: str, why: str) -> None:
    event("turned away", logging.WARNING, peer=who, why=why)


@contextmanager
def serving(source: Source, config: ServeConfig) -> Iterator[Address]:
    """A server on a thread of its own while the block runs; yields where it listens.

    Raises:
        UserError: it could not start.
    """
    started: threading.Event = threading.Event()
    found: list[Address | BaseException] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def ready(address: Address) -> None:
        found.append(address)
        started.set()

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(Server(source, config).run(ready, stop))
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            found.append(error)
            started.set()

    thread = threading.Thread(target=work, name="dreamzero-serve-loop")
    thread.start()
    started.wait()
    if not isinstance(found[0], Address):
        thread.join()
        raise found[0]
    try:
        yield found[0]
    finally:
        with suppress(RuntimeError):  # it has ended by itself, with an error
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        if len(found) > 1 and isinstance(found[1], BaseException):
            raise found[1]
