"""Byte streams to a robot, with errors that say what to do. pyserial carries serial ports,
pseudo-terminals and serial-to-TCP bridges (``socket://``) alike."""

from __future__ import annotations

import errno
import os
import select
import termios
import threading
import time
from contextlib import suppress
from typing import Any, Protocol

from ..errors import UserError
from .base import LinkLost
from .uri import Uri

_WRITE_S = 0.5
# What pyserial lets through when a port vanishes while in use; termios.error is no OSError.
_LOST = (OSError, TypeError, termios.error)


class Link(Protocol):
    """An open byte stream. ``name`` and ``detail`` are for messages: port, and how it was opened."""

    name: str
    detail: str

    def write(self, data: bytes) -> None:
        """Send all of it."""

    def read(self, timeout_s: float) -> bytes:
        """Bytes that are there, after waiting for the first up to ``timeout_s``; b"" if none."""

    def discard_input(self) -> None:
        """Drop what has come and was not read."""

    def close(self) -> None:
        """Close the port."""


def explain_open_error(error: BaseException, port: str) -> str:
    """One line on why a port did not open, and the remedy.

    Args:
        error: what pyserial or the system raised.
        port: device path, or host and port.
    """
    code = getattr(error, "errno", None)
    text = str(error)
    if code == errno.EACCES or "Permission denied" in text:
        return (
            f"no permission to open {port}: add yourself to dialout "
            "(sudo usermod -aG dialout $USER) and log in again"
        )
    if code == errno.ENOENT or "No such file" in text:
        return f"there is no {port}; serial ports here: {', '.join(ports()) or 'none'}"
    if code in (errno.EBUSY, errno.EAGAIN) or "lock" in text:
        return f"{port} is in use by another program: close it (lsof {port} names it)"
    if isinstance(error, ValueError) or code in (errno.EINVAL, errno.ENOTTY):
        return f"{port} is no serial port, or does not take this baud rate: {text}"
    if "Could not open port socket" in text or isinstance(error, ConnectionError):
        return f"nobody answers at {port}: is the bridge on, and the port number right? ({text})"
    return f"cannot open {port}: {text}"


def ports() -> list[str]:
    """Device paths of the serial ports of this machine."""
    from serial.tools import list_ports

    return sorted(port.device for port in list_ports.comports())


class SerialLink:
    """A pyserial port, opened exclusively: two programs on one bus garble each other.

    A thread of its own listens, and writing does not wait for the port to be ready: on a busy machine the
    kernel keeps whoever polls a terminal until an ordinary worker of its own has moved the bytes
    (``tty_buffer_flush_work`` in n_tty.c), longer than any timeout.

    Args:
        uri: ``serial:///dev/...?baud=`` or ``tcp://host:port`` (raw bytes, as ser2net sends).

    Raises:
        UserError: the port is missing, forbidden, busy, or takes no such baud rate.
    """

    def __init__(self, uri: Uri) -> None:
        import serial

        baud = uri.number("baud", 1_000_000)
        self._tcp = tcp = uri.scheme == "tcp"
        self.name = f"{uri.host}:{uri.port}" if tcp else uri.path
        self.detail = "tcp" if tcp else f"{baud} baud"
        if not tcp and os.path.exists(uri.path) and not os.access(uri.path, os.R_OK | os.W_OK):
            raise UserError(explain_open_error(PermissionError(errno.EACCES, ""), self.name))
        self._fresh = threading.Condition()
        self._heard = bytearray()
        self._failed: BaseException | None = None
        url = f"socket://{uri.host}:{uri.port}" if tcp else uri.path
        options: dict[str, Any] = {} if tcp else {"exclusive": True}
        try:
            self._port = serial.serial_for_url(
                url, baudrate=baud, timeout=0, write_timeout=0, **options
            )
        except (serial.SerialException, ValueError, OSError) as error:
            raise UserError(explain_open_error(error, self.name)) from error
        if not tcp:
            # An FTDI adapter (U2D2) otherwise holds answers back for up to 16 ms; others do not know
            # the request.
            with suppress(OSError, ValueError, AttributeError, NotImplementedError):
                self._port.set_low_latency_mode(True)
        self._leave = os.eventfd(0)
        self._thread = threading.Thread(target=self._listen, name=self.name, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        try:
            if self._failed is not None:
                raise self._failed
            deadline = time.monotonic() + _WRITE_S
            while data := data[self._put(data) :]:
                if time.monotonic() > deadline:
                    raise TimeoutError("it takes no more bytes")
        except _LOST as error:
            raise self._lost(error) from error

    def _put(self, data: bytes) -> int:
        """How many bytes went. pyserial's own, without a timeout, tries a full port for ever."""
        if self._tcp:
            return int(self._port.write(data))
        number = self._port.fileno()
        if not select.select([], [number], [], 0.01)[1]:
            return 0
        try:
            return os.write(number, data)
        except BlockingIOError:
            return 0

    def read(self, timeout_s: float) -> bytes:
        with self._fresh:
            if not self._heard and self._failed is None:
                self._fresh.wait(timeout_s)
            data = bytes(self._heard)
            self._heard.clear()
            if not data and self._failed is not None:
                raise self._lost(self._failed) from self._failed
            return data

    def discard_input(self) -> None:
        with self._fresh:
            self._heard.clear()

    def close(self) -> None:
        if self._leave < 0:
            return
        os.eventfd_write(self._leave, 1)
        self._thread.join()
        os.close(self._leave)
        self._leave = -1
        # A port that has vanished cannot be closed better than this.
        with suppress(*_LOST):
            self._port.close()

    def _listen(self) -> None:
        # Not by pyserial: it asks first how much there is, which locks out whoever wants to write.
        try:
            port = self._port.fileno()
            poll = select.poll()
            for one in (port, self._leave):
                poll.register(one, select.POLLIN)
            while self._leave not in [one for one, _ in poll.poll()]:
                if not (data := os.read(port, 4096)):
                    raise ConnectionError("the other side is gone")
                with self._fresh:
                    self._heard += data
                    self._fresh.notify()
        except _LOST as error:
            with self._fresh:
                self._failed = error
                self._fresh.notify()

    def _lost(self, error: BaseException) -> LinkLost:
        return LinkLost(
            f"lost {self.name} ({self.detail}): {error}. Is the cable in and the power on?"
        )
