"""Keys, replay windows and counters: what makes a frame count, still without I/O.

A secret of at least 128 bits is shared through a file. Every handshake draws two nonces, and from secret and
nonces come the keys of that session, one for each direction (HKDF, RFC 5869): a capture of another session, or
a frame sent back to where it came from, has the wrong tag. Within a session a window of sequence numbers
lets every frame pass once (RFC 4303, 3.4.3), in whatever order it comes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections import Counter
from pathlib import Path

from ...errors import UserError
from . import protocol
from .bodies import Welcome
from .clock_sync import ClockSync
from .protocol import Echo, Frame, Kind

LEAST_KEY_BYTES = 16
_WINDOW = 256


def load_key(path: str | Path) -> bytes:
    """The secret in a file of hexadecimal digits, as ``openssl rand -hex 32`` writes it.

    Raises:
        UserError: no such file, others may read it, it is no hexadecimal, or it is too short.
    """
    try:
        mode = os.stat(path).st_mode
        text = Path(path).read_text(encoding="ascii").strip()
        key = bytes.fromhex(text)
    except OSError as error:
        raise UserError(f"key {path}: {error.strerror}; make one: {_HOW.format(path)}") from None
    except ValueError:
        raise UserError(
            f"key {path}: not hexadecimal digits; make one: {_HOW.format(path)}"
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(f"key {path}: others may read it; chmod 600 {path}")
    if len(key) < LEAST_KEY_BYTES:
        raise UserError(f"key {path}: {len(key)} bytes are too few; make one: {_HOW.format(path)}")
    return key


_HOW = "(umask 077; openssl rand -hex 32 > {})"


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes of HKDF-SHA256 (RFC 5869, 2)."""
    inner = hmac.digest(salt, secret, hashlib.sha256)
    return hmac.digest(inner, info + b"\x01", hashlib.sha256)


def handshake_keys(secret: bytes) -> tuple[bytes, bytes]:
    """(driver's, companion's) keys for HELLO, and for WELCOME and REFUSE."""
    return _pair(secret, b"", b"dreamzero stream 1 handshake")


def session_keys(secret: bytes, welcome: Welcome, session: int) -> tuple[bytes, bytes]:
    """(driver's, companion's) keys of one session."""
    salt = welcome.nonce + welcome.companion_nonce
    return _pair(secret, salt, b"dreamzero stream 1 session " + session.to_bytes(8, "little"))


def _pair(secret: bytes, salt: bytes, info: bytes) -> tuple[bytes, bytes]:
    return hkdf(secret, salt, info + b" driver"), hkdf(secret, salt, info + b" companion")


class Window:
    """Lets each sequence number pass once, as long as it is among the newest 256."""

    def __init__(self) -> None:
        self.newest = 0
        self._seen = 0

    def admit(self, sequence: int) -> bool:
        """Whether it is new; it will not be again."""
        ahead = sequence - self.newest
        if ahead > 0:
            # A longer shift than the window would be work for whoever sends a huge number.
            self._seen = (self._seen << ahead if ahead < _WINDOW else 0) | 1
            self._seen &= (1 << _WINDOW) - 1
            self.newest = sequence
            return True
        if -ahead >= _WINDOW or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True


class Channel:
    """One side of one session: seals frames, admits the peer's, and keeps count.

    Args:
        session: its number.
        send_key, receive_key: of the two directions.

    Attributes:
        sync: the peer's clock.
        counts: "forged" (wrong tag), "repeated" (seen, or too old to tell), "reordered".
        received: frames admitted. jitter_ns: of their travel time (RFC 3550, 6.4.1).
    """

    def __init__(self, session: int, send_key: bytes, receive_key: bytes) -> None:
        self.session = session
        self.sync = ClockSync()
        self.counts: Counter[str] = Counter()
        self.received = 0
        self.sent = 0
        self.jitter_ns = 0.0
        self.heard_ns = 0
        self._send_key, self._receive_key = send_key, receive_key
        self._window = Window()
        self._echo = Echo()
        self._peer = Echo()
        self._transit: int | None = None

    @property
    def newest(self) -> int:
        """Greatest sequence admitted."""
        return self._window.newest

    def seal(self, kind: Kind, body: bytes, now_ns: int) -> bytes:
        """The next frame as bytes."""
        self.sent += 1
        frame = Frame(kind, self.session, self.sent, now_ns, self._echo, body)
        return protocol.pack(frame, self._send_key)

    def admit(self, data: bytes, frame: Frame, now_ns: int) -> bool:
        """Whether a parsed frame is the peer's and new."""
        if not protocol.authentic(data, self._receive_key):
            self.counts["forged"] += 1
            return False
        newest = self.newest
        if not self._window.admit(frame.sequence):
            self.counts["repeated"] += 1
            return False
        self.received += 1
        self.heard_ns = now_ns
        transit = now_ns - frame.sent_ns
        if self._transit is not None:
            self.jitter_ns += (abs(transit - self._transit) - self.jitter_ns) / 16
        self._transit = transit
        if frame.sequence > newest:
            self._echo = Echo(frame.sequence, self.received, frame.sent_ns, now_ns)
            self._peer = frame.echo
        else:
            self.counts["reordered"] += 1
            self._echo = Echo(newest, self.received, self._echo.sent_ns, self._echo.received_ns)
        if frame.echo.sequence:
            self.sync.add(frame.echo.sent_ns, frame.echo.received_ns, frame.sent_ns, now_ns)
        return True

    def stats(self, now_ns: int) -> dict[str, float]:
        """Losses as shares of 1, times in ms, counts; NaN for what is not known yet."""
        known, sync = self.sync.known, self.sync
        nothing = float("nan")
        return {
            "loss_in": _loss(self.newest, self.received),
            "loss_out": _loss(self._peer.sequence, self._peer.count),
            "reordered": self.counts["reordered"],
            "repeated": self.counts["repeated"],
            "forged": self.counts["forged"],
            "rtt_ms": sync.rtt_ns / 1e6 if known else nothing,
            "least_rtt_ms": sync.least_rtt_ns / 1e6 if known else nothing,
            "jitter_ms": self.jitter_ns / 1e6,
            "offset_ms": sync.offset_ns(now_ns) / 1e6 if known else nothing,
            "offset_error_ms": sync.error_ns(now_ns) / 1e6 if known else nothing,
            "drift_ppm": sync.drift_ppm,
        }


def _loss(newest: int, count: int) -> float:
    return max(0.0, 1 - count / newest) if newest else 0.0
