"""A client's end of the wire: one question, one answer, and every mishap as one line that names who.

A connection that failed is closed; ``open`` makes a new one.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect

from .. import __version__
from ..errors import UserError
from . import protocol
from .log import quiet
from .messages import SUBPROTOCOL


class Lost(Exception):
    """The other side has gone."""


class Connection:
    """To one server, over and over.

    Args:
        uri: ``ws://HOST:PORT`` or ``wss://HOST``.
        token: of the server, None for none.
        ca: certificates to trust (PEM) beside the system's.
        timeout_s: an answer may take so long.
        connect_s: connecting may take so long.

    Raises:
        UserError: no such certificates.
    """

    def __init__(
        self,
        uri: str,
        token: str | None,
        ca: str | Path | None,
        timeout_s: float,
        connect_s: float,
    ) -> None:
        self.uri = uri
        self._timeout_s, self._connect_s = timeout_s, connect_s
        self._headers = {} if token is None else {"Authorization": f"Api-Key {token}"}
        self._tls = _trusting(uri, ca)
        self._stack = ExitStack()
        self._socket: ClientConnection | None = None

    @property
    def alive(self) -> bool:
        """Whether it is open, as far as is known."""
        return self._socket is not None and self._socket.state is State.OPEN

    def open(self) -> tuple[Any, bool]:
        """Connect anew.

        Returns:
            What the server said first, and whether it took our subprotocol.

        Raises:
            UserError: nobody answers, or not as a policy server.
        """
        self.close()
        tls: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls}
        try:
            self._socket = self._stack.enter_context(
                connect(
                    self.uri,
                    additional_headers=self._headers,
                    subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
                    user_agent_header=f"dreamzero/{__version__}",
                    compression=None,
                    proxy=None,
                    open_timeout=self._connect_s,
                    close_timeout=2,
                    ping_timeout=self._timeout_s,  # some servers compute on their event loop
                    max_size=protocol.Limits().size,
                    logger=quiet,
                    **tls,
                )
            )
            _limit_sending(self._socket.socket, self._timeout_s)
            first = self._receive()
        except InvalidStatus as error:
            self.fail(_status(error), error)
        except InvalidURI as error:
            self.fail("is no address; right would be ws://HOST:PORT", error)
        except ssl.SSLCertVerificationError as error:
            self.fail(f"{error.verify_message}; give its certificate with ca=FILE", error)
        except ssl.SSLError as error:
            self.fail(f"no TLS there ({error.reason}); is it ws:// rather than wss://?", error)
        except TimeoutError as error:
            self.fail(f"nobody answers in {self._connect_s:g} s", error)
        except ConnectionRefusedError as error:
            self.fail("nobody listens there; start it with `dreamzero serve --policy ...`", error)
        except (InvalidHandshake, EOFError) as error:
            self.fail(f"somebody answers, but not as a websocket ({_reason(error)})", error)
        except (OSError, WebSocketException, Lost) as error:
            self.fail(f"cannot connect ({_reason(error)})", error)
        if isinstance(first, str):
            self.fail(f"answered: {first[:500]}")
        return first, self._socket.subprotocol == SUBPROTOCOL

    def exchange(self, message: Mapping[str, Any]) -> Any:
        """The answer to a message; texts come as they are.

        Raises:
            Lost: the connection has gone.
            UserError: no answer in time, or no message.
        """
        if self._socket is None:
            raise Lost("not connected")
        try:
            self._socket.send(protocol.pack(message))
            return self._receive()
        except (ConnectionClosed, OSError) as error:
            raise Lost(_reason(error)) from error
        except KeyboardInterrupt:
            self.close()  # the answer that is under way must not be taken for the next one's
            raise

    def close(self) -> None:
        """Say goodbye."""
        self._socket = None
        self._stack.close()

    def fail(self, what: str, error: BaseException | None = None) -> NoReturn:
        """Close, and raise UserError with the address before ``what``."""
        self.close()
        raise UserError(f"{self.uri}: {what}") from error

    def _receive(self) -> Any:
        assert self._socket is not None
        try:
            data = self._socket.recv(timeout=self._timeout_s)
        except TimeoutError as error:
            self.fail(f"no answer in {self._timeout_s:g} s", error)
        except (ConnectionClosed, OSError, EOFError) as error:
            raise Lost(_reason(error)) from error
        if isinstance(data, str):
            return data
        try:
            return protocol.unpack(data)
        except protocol.ProtocolError as error:
            self.fail(f"sent {error}", error)


def _trusting(uri: str, ca: str | Path | None) -> ssl.SSLContext | None:
    if not uri.startswith("wss://"):
        if ca is not None:
            raise UserError(f"{uri}: ca={ca} is for wss:// addresses")
        return None
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(cafile=str(ca))
        except (OSError, ssl.SSLError) as error:
            raise UserError(f"{ca} holds no certificates in PEM ({error})") from error
    return context


def _limit_sending(connection: socket.socket, seconds: float) -> None:
    """A send that blocks for so long fails: the library waits for ever, holding its own keepalive."""
    timeout = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)


def _status(error: InvalidStatus) -> str:
    status, who = error.response.status_code, error.response.headers.get("Server", "somebody")
    said = (error.response.body or b"").decode(errors="replace").strip()[:200]
    remedy = ": a wrong token or none; give token-file" if status == 401 else f" ({said})"
    return f"{who} refused with HTTP {status}{remedy}"


def _reason(error: BaseException) -> str:
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        return f"closed with {error.rcvd.code} {error.rcvd.reason}".strip()
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
