"""Token and certificate files of server and client."""

from __future__ import annotations

import ssl
from pathlib import Path

from ..errors import UserError


def read_token(path: str | Path) -> str:
    """The one line of a token file.

    Raises:
        UserError: unreadable, empty, or not one line of printable ASCII.
    """
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"token file {path} cannot be read ({error})") from error
    if not token or not token.isascii() or not token.isprintable():
        raise UserError(
            f"token file {path} should hold one line of printable ASCII, as `openssl rand -hex 32` "
            "writes it"
        )
    return token


def server_tls(certificate: str | Path | None, key: str | Path | None) -> ssl.SSLContext | None:
    """TLS of a server; None where neither file is given.

    Raises:
        UserError: only one of the two, or they are no pair.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UserError("--tls-cert and --tls-key belong together: give both")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"--tls-cert {certificate}, --tls-key {key}: no certificate and its key in PEM ({error})"
        ) from error
    return context
