"""Addresses of robots, cameras and policies: ``serial:///dev/ttyACM0``, ``ws://127.0.0.1:8000``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ..errors import UserError

_FORMS = {
    "serial": "serial:///dev/ttyACM0?baud=1000000",
    "tcp": "tcp://192.168.0.10:4000",
    "udp": "udp://10.0.0.5:47800?key=arm.key",
    "sim": "sim://so101?task=reach&seed=0",
    "camera": "camera://127.0.0.1:40123/front",
    "v4l2": "v4l2:///dev/video0",
    "file": "file:///data/episode.mp4",
    "rtsp": "rtsp://10.0.0.7:554/stream1",
    "ws": "ws://127.0.0.1:8000",
    "wss": "wss://policy.example.org?token-file=FILE",
}
ROBOT_SCHEMES = ("serial", "tcp", "udp", "sim")
CAMERA_SCHEMES = ("camera", "v4l2", "rtsp", "file")
POLICY_SCHEMES = ("ws", "wss")


@dataclass(frozen=True)
class Uri:
    """A parsed address.

    Attributes:
        scheme: one of the schemes above.
        host: host of tcp, udp and camera, the robot's name of sim, empty for files.
        port: TCP or UDP port, 0 where the scheme has none.
        path: device or file, or the view of a camera.
        query: options, percent-decoded; a repeated one is an error.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def hardware(self) -> bool:
        """Whether something heavy may move: a wire that is no pseudo-terminal, and no emulator's.

        An emulator on TCP or UDP cannot be told from a real arm behind a tunnel: it marks its own address
        with ``emulated=1``.
        """
        return (self.scheme in ("tcp", "udp") and self.query.get("emulated") != "1") or (
            self.scheme == "serial" and not os.path.realpath(self.path).startswith("/dev/pts/")
        )

    def number(self, key: str, default: int) -> int:
        """A whole positive number of the query."""
        text = self.query.get(key, str(default))
        if not text.isdigit() or int(text) == 0:
            raise UserError(f"{self}: {key}={text} is not a positive whole number")
        return int(text)

    def allow(self, *keys: str) -> None:
        """UserError on a query key that is not in ``keys``: a misspelt option must not pass."""
        for key in self.query:
            if key not in keys:
                known = ", ".join(keys) if keys else "none"
                raise UserError(f"{self}: unknown option {key!r}; known: {known}")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        query = f"?{urlencode(dict(self.query), safe='/:')}" if self.query else ""
        return f"{self.scheme}://{host}{port}{self.path}{query}"


def parse(text: str, schemes: tuple[str, ...] = ROBOT_SCHEMES, listen: bool = False) -> Uri:
    """Take an address apart; UserError says which part is wrong and shows a right one.

    Args:
        text: the address.
        schemes: the schemes that make sense here (``ROBOT_SCHEMES`` or ``CAMERA_SCHEMES``).
        listen: port 0 is one too: any that is free.
    """
    forms = ", ".join(_FORMS[s] for s in schemes)
    try:
        parts = urlsplit(text)
        port = parts.port or 0
    except ValueError as error:
        raise UserError(f"address {text!r}: {error}; right would be {forms}") from None
    if parts.scheme not in schemes:
        what = f"unknown scheme {parts.scheme!r}" if parts.scheme else "no scheme"
        raise UserError(f"address {text!r}: {what}; right would be {forms}")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = dict(pairs)
    if len(query) != len(pairs):
        raise UserError(f"address {text!r}: an option is given twice")
    uri = Uri(parts.scheme, parts.hostname or "", port, unquote(parts.path), query)
    right = f"right would be {_FORMS[uri.scheme]}"
    portless = not uri.port and not (listen and parts.port == 0)
    if uri.scheme in ("tcp", "udp", "camera") and (not uri.host or portless):
        raise UserError(f"address {text!r}: host or port is missing; {right}")
    if uri.scheme in (*POLICY_SCHEMES, "rtsp") and not uri.host:
        raise UserError(f"address {text!r}: the host is missing; {right}")
    if uri.scheme in ("serial", "v4l2", "file"):
        if uri.host or uri.port:
            raise UserError(f"address {text!r}: a device path starts with a third slash; {right}")
        if uri.path in ("", "/"):
            raise UserError(f"address {text!r}: the device path is missing; {right}")
    if uri.scheme == "sim" and (not uri.host or uri.port or uri.path not in ("", "/")):
        raise UserError(f"address {text!r}: name one robot; {right}")
    return uri
