"""A servo bus on a pseudo-terminal, with a name that stays when the cable is put back."""

from __future__ import annotations

import os
import select
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress

from ..clock import punctual


class PtyWire:
    """Answers what arrives with ``feed`` (bytes in, bytes out), on a thread of its own.

    ``feed`` may be replaced while it runs (see impairments.py). ``port`` is what to open instead of /dev/ttyACM0: a link, as udev makes them, to the
    pseudo-terminal of the moment.
    """

    def __init__(self, feed: Callable[[bytes], bytes]) -> None:
        self.feed = feed
        self._folder = tempfile.mkdtemp(prefix="dreamzero-")
        self.port = os.path.join(self._folder, "ttyACM0")
        self.address = f"serial://{self.port}"
        self._thread: threading.Thread | None = None
        self.replug()

    def unplug(self) -> None:
        """Pull the cable: the port is gone for whoever holds it."""
        self._plugged = False
        if self._thread is not None:
            self._thread.join(1.0)
            self._thread = None

    def replug(self) -> None:
        """Put it back: another pseudo-terminal under the same name."""
        import pty
        import tty

        self.unplug()
        master, slave = pty.openpty()
        # Raw, or the terminal would echo requests back and translate line ends. The other end is
        # kept open so that a client may leave and another come.
        tty.setraw(slave)
        with suppress(FileNotFoundError):
            os.unlink(self.port)
        os.symlink(os.ttyname(slave), self.port)
        self._plugged = True
        self._thread = threading.Thread(
            target=self._run, args=(master, slave), name="bus", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self.unplug()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, master: int, slave: int) -> None:
        # Servos answer within microseconds, whatever the computer is doing.
        with punctual():
            while self._plugged:
                ready, _, _ = select.select([master], [], [], 0.05)
                if ready:
                    answer = self.feed(os.read(master, 4096))
                    if answer:
                        os.write(master, answer)
        with suppress(FileNotFoundError):
            os.unlink(self.port)
        os.close(slave)
        os.close(master)
