"""The door: who may come in, and what plain HTTP on the same port is told.

``GET /healthz`` answers anybody (200 when ready, else 503), ``GET /metrics`` those with the token. All
else has to become a websocket.
"""

from __future__ import annotations

import hmac
import http
import json
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from .metrics import CONTENT_TYPE, Metrics


class Door:
    """Looks at every request before it becomes a websocket.

    Args:
        token: see `config.ServeConfig`.
        most: websockets at most.
        metrics: where refusals are counted.
        health: what ``/healthz`` says; its ``ready`` decides the status.
        inside: how many websockets are open.
        refused: told (peer, why) of everybody who was turned away.
    """

    def __init__(
        self,
        token: str | None,
        most: int,
        metrics: Metrics,
        health: Callable[[], dict[str, Any]],
        inside: Callable[[], int],
        refused: Callable[[str, str], None],
    ) -> None:
        self._wanted = None if token is None else f"Api-Key {token}".encode()
        self._most, self._metrics, self._health = most, metrics, health
        self._inside, self._refused = inside, refused

    def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer that ends it here; None lets it become a websocket."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            health = self._health()
            status = http.HTTPStatus.OK if health["ready"] else http.HTTPStatus.SERVICE_UNAVAILABLE
            return _response(status, "application/json", json.dumps(health).encode() + b"\n")
        if not self._may(request):
            return self._refuse(
                connection, "auth", http.HTTPStatus.UNAUTHORIZED,
                "send the header Authorization: Api-Key TOKEN",
            )  # fmt: skip
        if path == "/metrics":
            return _response(http.HTTPStatus.OK, CONTENT_TYPE, self._metrics.text())
        if self._inside() >= self._most:
            return self._refuse(
                connection, "full", http.HTTPStatus.SERVICE_UNAVAILABLE,
                f"busy: {self._most} connections are open",
            )  # fmt: skip
        return None

    def _may(self, request: Request) -> bool:
        if self._wanted is None:
            return True
        given = request.headers.get_all("Authorization")
        # As bytes: compare_digest takes no texts beyond ASCII, and must not be made to raise.
        return len(given) == 1 and hmac.compare_digest(
            given[0].encode(errors="surrogateescape"), self._wanted
        )

    def _refuse(
        self, connection: ServerConnection, kind: str, status: http.HTTPStatus, text: str
    ) -> Response:
        self._metrics.errors.labels(kind).inc()
        self._refused(peer(connection), kind)
        response = connection.respond(status, f"{text}\n")
        if status is http.HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = "Api-Key"
        return response


def peer(connection: ServerConnection) -> str:
    """Address and port of the other side."""
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if address else "gone"


def _response(status: http.HTTPStatus, kind: str, body: bytes) -> Response:
    headers = Headers(
        {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"}
    )
    return Response(status.value, status.phrase, headers, body)
