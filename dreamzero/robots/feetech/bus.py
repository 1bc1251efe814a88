"""Feetech's request and answer over a link: deadlines, retries, and errors that name the servo."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from ..base import RobotFault
from ..transport import Link
from . import protocol as feetech
from .protocol import Packet, Register


class Bus:
    """A half-duplex bus of servos behind one link.

    Args:
        link: the byte stream.
        timeout_s: how long a servo has for its answer.
        retries: how often a request without a (whole) answer is repeated. Reads and writes of
            absolute values may be repeated safely; nothing else is sent here.
        now: clock of the timeout.
    """

    def __init__(
        self,
        link: Link,
        timeout_s: float = 0.05,
        retries: int = 2,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.link = link
        self.timeout_s = timeout_s
        self.retries = retries
        self.parser = feetech.Parser()
        self._now = now

    def ping(self, servo: int) -> None:
        """RobotFault unless the servo answers."""
        self._ask(feetech.ping(servo), [servo], 0, f"ping of id {servo}")

    def read(self, servo: int, register: Register) -> int:
        """The register's value; RobotFault if the servo is silent or reports a fault."""
        request = feetech.read(servo, register.address, register.size)
        answers = self._ask(request, [servo], register.size, f"read of {register.name}")
        return register.from_bytes(answers[servo])

    def write(self, servo: int, register: Register, value: int) -> None:
        """Write and wait for the acknowledgement."""
        request = feetech.write(servo, register.address, register.to_bytes(value))
        self._ask(request, [servo], 0, f"write of {register.name}")

    def sync_read(
        self, register: Register, servos: Iterable[int], within_s: float | None = None
    ) -> dict[int, int]:
        """One register of many servos with one request, which is not repeated if ``within_s`` is given
        and is then given up so soon."""
        ids = list(servos)
        request = feetech.sync_read(register.address, register.size, ids)
        what = f"sync read of {register.name}"
        answers = self._ask(request, ids, register.size, what, within_s)
        return {servo: register.from_bytes(answers[servo]) for servo in ids}

    def sync_write(self, register: Register, values: Mapping[int, int]) -> None:
        """One register of many servos with one packet; the protocol has no answer to it."""
        data = {servo: register.to_bytes(value) for servo, value in values.items()}
        self.link.write(feetech.sync_write(register.address, data))

    def scan(self, servos: Iterable[int] = range(1, 13), timeout_s: float = 0.01) -> dict[int, int]:
        """Model number of every servo that answers (STS3215 is 777)."""
        register = feetech.STS3215["model"]
        patient, self.timeout_s = self.timeout_s, timeout_s
        found = {}
        try:
            for servo in servos:
                try:
                    found[servo] = self.read(servo, register)
                except Silence:
                    continue
        finally:
            self.timeout_s = patient
        return found

    def _ask(
        self,
        request: bytes,
        servos: list[int],
        count: int,
        what: str,
        within_s: float | None = None,
    ) -> dict[int, bytes]:
        """Send, then collect a status packet of ``count`` bytes from each servo."""
        retries = self.retries if within_s is None else 0
        timeout_s = self.timeout_s if within_s is None else min(within_s, self.timeout_s)
        for attempt in range(retries + 1):
            self.parser.reset()
            self.link.discard_input()
            self.link.write(request)
            answers, heard, others = self._collect(request, servos, count, timeout_s)
            if len(answers) == len(servos):
                return answers
            if attempt == retries:
                raise self._silence(what, servos, answers, heard, others, timeout_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _collect(
        self, request: bytes, servos: list[int], count: int, timeout_s: float
    ) -> tuple[dict[int, bytes], bytes, list[Packet]]:
        answers: dict[int, bytes] = {}
        others: list[Packet] = []
        heard = b""
        deadline = self._now() + timeout_s
        while len(answers) < len(servos) and (left := deadline - self._now()) > 0:
            data = self.link.read(left)
            heard += data
            for packet in self.parser.feed(data):
                if packet.id not in servos or len(packet.params) != count:
                    others.append(packet)
                    continue
                if faults := feetech.error_names(packet.code):
                    raise RobotFault(
                        f"servo id {packet.id} on {self.link.name} reports {', '.join(faults)}: "
                        "relieve the arm, switch it off and on, and try again"
                    )
                answers[packet.id] = packet.params
        if heard.startswith(request) and not answers:
            others = [p for p in others if feetech.encode(p) != request]
        return answers, heard, others

    def _silence(
        self,
        what: str,
        servos: list[int],
        answers: Mapping[int, bytes],
        heard: bytes,
        others: list[Packet],
        timeout_s: float,
    ) -> Silence:
        missing = [servo for servo in servos if servo not in answers]
        if others:
            ids = sorted({packet.id for packet in others})
            instead = f"id {', '.join(map(str, ids))} answered instead"
        elif answers:
            instead = f"id {', '.join(map(str, answers))} did answer"
        elif heard:
            instead = f"what came instead was {heard[:16].hex(' ')}, which is no packet (baud?)"
        else:
            instead = "nothing came back: check power, cable, id and baud"
        return Silence(
            f"{what} on {self.link.name} ({self.link.detail}): no answer from servo id "
            f"{', '.join(map(str, missing))} within {timeout_s * 1000:.0f} ms; {instead}"
        )


class Silence(RobotFault):
    """A servo did not answer in time, or not in whole packets."""
