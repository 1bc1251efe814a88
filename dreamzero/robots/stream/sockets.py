"""Where a ``udp://`` address leads, and whether it may be used without a key."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from ...errors import UserError
from ..uri import Uri

Address = tuple[Any, ...]


def resolve(uri: Uri) -> tuple[int, Address]:
    """(address family, socket address); UserError where the name is unknown."""
    try:
        found = socket.getaddrinfo(uri.host, uri.port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{uri}: host {uri.host!r} is not known ({error})") from error
    family, _, _, _, address = found[0]
    return family, address


def check_key(uri: Uri, address: Address, keyed: bool) -> None:
    """UserError if frames without a key would leave this machine."""
    local = ipaddress.ip_address(str(address[0]).split("%")[0]).is_loopback
    if not (keyed or local or uri.query.get("insecure") == "1"):
        raise UserError(
            f"{uri}: leaves this machine without a key; add ?key=FILE, the same file at both ends "
            "((umask 077; openssl rand -hex 32 > FILE)), or ?insecure=1 where nobody else is on the wire"
        )
