"""The server's log: one line an event and one a connection, for readers or as JSON.

Events are records of the logger ``dreamzero.serve`` with their figures in ``fields``; nothing is written
unless somebody listens, as ``dreamzero serve`` does with ``write_to``.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any, TextIO

from .messages import Dialect

log = logging.getLogger("dreamzero.serve")
# For the websockets library: what went wrong with a connection is told by those who use it.
quiet = logging.getLogger("dreamzero.serve.websockets")
quiet.disabled = True


def event(
    what: str, level: int = logging.INFO, exc_info: BaseException | None = None, **fields: Any
) -> None:
    """Log one event with its figures, and with the traceback of an exception."""
    log.log(level, what, exc_info=exc_info, extra={"fields": fields})


def write_to(stream: TextIO, as_json: bool) -> None:
    """Write events to a stream from now on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Lines(as_json))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


class _Lines(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        fields: dict[str, Any] = getattr(record, "fields", {})
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._json:
            head = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
            return json.dumps(head | fields | ({"trace": trace} if trace else {}))
        # What a client sent may be in a field: no line of its making.
        shown = " ".join(f"{name}={json.dumps(value)}" for name, value in fields.items())
        line = f"{when} {record.getMessage()} {shown}".rstrip()
        return f"{line}\n{trace}" if trace else line


@dataclass
class Visit:
    """One connection, for its line.

    Attributes:
        peer: address and port.
        busy: between a request and its answer.
        error: what ended it, if something did.
        restarts: chunks before which the context had to be restarted.
    """

    peer: str
    dialect: Dialect
    busy: bool = False
    requests: int = 0
    restarts: int = 0
    error: str = ""
    began_s: float = field(default_factory=time.monotonic)

    def over(self, code: int | None) -> None:
        """Write the line; ``code`` is that of the close frame."""
        event(
            "connection",
            peer=self.peer,
            dialect=self.dialect,
            seconds=round(time.monotonic() - self.began_s, 3),
            requests=self.requests,
            restarts=self.restarts,
            code=code,
            error=self.error,
        )

    def restarted(self, why: str) -> None:
        """Count a restart; the first is told, for its cause is how the client is written."""
        self.restarts += 1
        if self.restarts == 1:
            event("context restarted (told once a connection)", peer=self.peer, why=why)
