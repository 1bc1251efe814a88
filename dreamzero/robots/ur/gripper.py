"""Grippers on a UR: Robotiq's through its URCap, or one on a digital output.

The URCap listens on port 63352 for lines: ``SET POS 128`` is answered with ``ack``, ``GET POS`` with
``POS 128``; 0 is open and 255 closed. Variables: ACT (activate), GTO (go to), POS, SPE, FOR (0 to 255),
STA (3: active), FLT (0: no fault). Source: Robotiq, 2F-85 / 2F-140 instruction manual (register
meanings), and the URCap's own script functions, which use that port.
"""

from __future__ import annotations

import re
import threading
import time
from typing import Protocol

from ...errors import UserError
from ..base import LinkLost, RobotFault
from ..clock import punctual
from .link import RtdeLink, connect
from .protocol import Recipe

PORT = 63352
_POLL_S = 1 / 30
_ACTIVE = 3


class Gripper(Protocol):
    """0 closed to 1 open, as the cards have it."""

    def position(self, output_bits: int) -> float:
        """Where it is; ``output_bits`` are the controller's digital outputs."""

    def command(self, value: float) -> float:
        """Send it somewhere without waiting; returns what it will really do."""

    def close(self) -> None: ...


class Robotiq:
    """A two-finger gripper behind its URCap, talked to by a thread of its own.

    Args:
        move: activate it if it is not (the fingers then run to both ends once), and let it move.

    Raises:
        LinkLost: nobody answers there. RobotFault: it reports a fault, or does not become active.
    """

    def __init__(
        self, host: str, port: int = PORT, move: bool = True, patience_s: float = 6.0
    ) -> None:
        self.name = f"gripper at {host}:{port}"
        self._sock = connect(host, port, "Robotiq URCap", "is it installed and running?")
        self._sock.settimeout(1.0)
        self._wanted: int | None = None
        self._fault: RobotFault | None = None
        self._news = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        try:
            if move:
                self._activate(patience_s)
            self._count = self._get("POS")
        except BaseException:
            self._sock.close()
            raise
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def position(self, output_bits: int) -> float:
        if self._fault is not None:
            raise self._fault
        return 1 - self._count / 255

    def command(self, value: float) -> float:
        if self._fault is not None:
            raise self._fault
        count = round(255 * (1 - min(max(value, 0.0), 1.0)))
        if count != self._wanted:
            self._wanted = count
            self._news.set()
        return 1 - count / 255

    def close(self) -> None:
        self._stopped = True
        self._news.set()
        if self._thread is not None:
            self._thread.join(1.5)
        self._sock.close()

    def _activate(self, patience_s: float) -> None:
        if fault := self._get("FLT"):
            raise RobotFault(f"{self.name} reports fault {fault}: its manual says which; reset it")
        if self._get("STA") != _ACTIVE:
            self._set("ACT", 1)
        deadline = time.monotonic() + patience_s
        while self._get("STA") != _ACTIVE:
            if time.monotonic() > deadline:
                raise RobotFault(f"{self.name} does not become active: is it powered, and free?")
            time.sleep(_POLL_S)
        for name, value in (("GTO", 1), ("SPE", 255), ("FOR", 128)):
            self._set(name, value)

    def _run(self) -> None:
        sent: int | None = None
        # Not for its own sake: a thread that is put aside while it holds the interpreter's lock keeps
        # the one that streams waiting.
        with punctual():
            try:
                while not self._stopped:
                    if (wanted := self._wanted) is not None and wanted != sent:
                        self._set("POS", wanted)
                        sent = wanted
                    self._count = self._get("POS")
                    if self._news.wait(_POLL_S):
                        self._news.clear()
            except RobotFault as fault:
                self._fault = fault

    def _set(self, name: str, value: int) -> None:
        self._ask(f"SET {name} {value}", re.compile(r"ack"))

    def _get(self, name: str) -> int:
        return int(self._ask(f"GET {name}", re.compile(rf"{name} (\d+)"))[1])

    def _ask(self, request: str, pattern: re.Pattern[str]) -> re.Match[str]:
        answer = ""
        try:
            self._sock.sendall(request.encode("ascii") + b"\n")
            while len(answer) < 256:
                data = self._sock.recv(256)
                if not data:
                    raise LinkLost(f"{self.name} hung up")
                answer += data.decode("ascii", "replace")
                # "ack" has no line end, and a number may or may not have one.
                if match := pattern.fullmatch(answer.strip()):
                    return match
        except TimeoutError as error:
            raise LinkLost(f"{self.name}: no answer to {request!r} but {answer!r}") from error
        except OSError as error:
            raise LinkLost(f"lost the {self.name}: {error}") from error
        raise RobotFault(f"{self.name} answers {request!r} with {answer[:40]!r}: is it the URCap?")


class Digital:
    """A gripper that closes while a standard digital output is on.

    It has no position of its own: what the output is, is what is reported.
    """

    def __init__(self, link: RtdeLink, recipe: Recipe | None, output: int) -> None:
        self._link, self._recipe, self._output = link, recipe, output
        self._closed: bool | None = None

    def position(self, output_bits: int) -> float:
        return 0.0 if output_bits >> self._output & 1 else 1.0

    def command(self, value: float) -> float:
        closed = value < 0.5
        if closed != self._closed and self._recipe is not None:
            bit = 1 << self._output
            self._link.write(self._recipe.encode((bit, bit if closed else 0)))
            self._closed = closed
        return 0.0 if closed else 1.0

    def close(self) -> None:
        """The output stays as it is: what is held is not dropped."""


DIGITAL_NAMES = ("standard_digital_output_mask", "standard_digital_output")


def parse(text: str) -> tuple[str, int]:
    """("robotiq", 0), ("digital", output) or ("none", 0) from ``gripper=``; UserError otherwise."""
    kind, _, number = text.partition(":")
    if kind in ("robotiq", "none") and not number:
        return kind, 0
    if kind == "digital" and number in tuple("01234567"):
        return kind, int(number)
    raise UserError(f"gripper={text}: known are robotiq, digital:0 to digital:7, and none")
