"""Request and answer on a servo bus: deadlines, retries, and errors that name the servo."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

from ...errors import UserError
from ..base import RobotFault
from ..transport import Link
from .codec import Codec, Packet, Parser, Register, Status

# How long a servo may take to write its EEPROM and answer under another id.
_EEPROM_S = 0.5


class Silence(RobotFault):
    """A servo did not answer in time, or not in whole packets."""


class Bus(ABC):
    """A half-duplex bus of servos behind one link.

    A protocol supplies its codec, its tables, and what an answer's error byte means.

    Args:
        link: the byte stream.
        timeout_s: how long a servo has for its answer.
        retries: how often a request without a (whole) answer is repeated. Reads and writes of
            absolute values may be repeated safely; nothing else is sent here.
        now: clock of the timeout.
        faults: raise what a servo reports of itself; false only to look around on a broken arm.

    Attributes:
        garbage: the first bytes of the last answer that was no packet; b"" if there was none.
    """

    protocol: ClassVar[str]
    codec: ClassVar[Codec]
    parser: ClassVar[type[Parser]]
    registers: ClassVar[Mapping[str, Register]]
    models: ClassVar[Mapping[int, str]]
    bauds: ClassVar[tuple[int, ...]]
    ping_bytes: ClassVar[int] = 0

    def __init__(
        self,
        link: Link,
        timeout_s: float = 0.05,
        retries: int = 2,
        now: Callable[[], float] = time.monotonic,
        faults: bool = True,
    ) -> None:
        self.link = link
        self.timeout_s = timeout_s
        self.retries = retries
        self.faults = faults
        self.garbage = b""
        self._parser = self.parser()
        self._now = now

    def ping(self, servo: int) -> None:
        """RobotFault unless the servo answers."""
        self._ask(self.codec.ping(servo), [servo], self.ping_bytes, f"ping of id {servo}")

    def answers(self, servo: int) -> bool:
        """Whether anybody answers to that id, well or not."""
        with self.tolerant():
            try:
                self.ping(servo)
            except Silence:
                return False
        return True

    @contextmanager
    def tolerant(self) -> Iterator[None]:
        """Take answers for what they are, also from servos that report faults of themselves."""
        before, self.faults = self.faults, False
        try:
            yield
        finally:
            self.faults = before

    def read(self, servo: int, register: Register) -> int:
        """The register's value; RobotFault if the servo is silent or reports a fault."""
        request = self.codec.read(servo, register.address, register.size)
        answers = self._ask(request, [servo], register.size, f"read of {register.name}")
        return register.from_bytes(answers[servo])

    def write(self, servo: int, register: Register, value: int) -> None:
        """Write and wait for the acknowledgement."""
        request = self.codec.write(servo, register.address, register.to_bytes(value))
        self._ask(request, [servo], 0, f"write of {register.name}")

    def sync_read(
        self, register: Register, servos: Iterable[int], within_s: float | None = None
    ) -> dict[int, int]:
        """One register of many servos with one request, which is not repeated if ``within_s`` is given
        and is then given up so soon."""
        ids = list(servos)
        request = self.codec.sync_read(register.address, register.size, ids)
        return self._read_all(request, register, ids, "sync read", within_s)

    def sync_write(self, register: Register, values: Mapping[int, int]) -> None:
        """One register of many servos with one packet; the protocol has no answer to it."""
        data = {servo: register.to_bytes(value) for servo, value in values.items()}
        self.link.write(self.codec.sync_write(register.address, data))

    def scan(self, servos: Iterable[int] = range(1, 13), timeout_s: float = 0.02) -> dict[int, int]:
        """Model number of every servo that answers. A USB adapter may hold bytes back for 16 ms."""
        patient, self.timeout_s = self.timeout_s, timeout_s
        found = {}
        try:
            for servo in servos:
                try:
                    found[servo] = self.read(servo, self.registers["model"])
                except Silence:
                    continue
        finally:
            self.timeout_s = patient
        return found

    def trouble(self, servo: int) -> str:
        """What the servo reports of itself; "" if nothing. RobotFault if it is silent."""
        before, self.faults = self.faults, True
        try:
            self.ping(servo)
        except Silence:
            raise
        except RobotFault as fault:
            return str(fault)
        finally:
            self.faults = before
        return ""

    def set_id(self, old: int, new: int) -> None:
        """Give a servo another id; its torque goes off.

        Raises:
            UserError: somebody answers to the new id already.
            RobotFault: nobody answers to the old id, or the servo did not take the new one.
        """
        self.ping(old)
        if self.answers(new):
            raise UserError(
                f"servo id {new} answers on {self.link.name} already: give {old} another id, or "
                f"take servo {new} off the bus first"
            )
        self.unlock(old)
        register = self.registers["id"]
        # Whether the acknowledgement comes under the old id or the new one is not written anywhere.
        self.link.write(self.codec.write(old, register.address, register.to_bytes(new)))
        deadline = self._now() + _EEPROM_S
        while not self.answers(new):
            if self._now() > deadline:
                raise RobotFault(f"servo id {old} on {self.link.name} did not become id {new}")
        self.lock(new)
        if self.answers(old):
            raise RobotFault(
                f"{self.link.name}: id {new} answers now, and so does id {old} still: there were "
                "two servos of that id; connect new servos one at a time"
            )

    @abstractmethod
    def unlock(self, servo: int) -> None:
        """Torque off, EEPROM writable."""

    @abstractmethod
    def lock(self, servo: int) -> None:
        """EEPROM protected again."""

    @abstractmethod
    def _trouble(self, status: Status, what: str) -> str:
        """What an error byte other than 0 means and what to do; "" if nothing is wrong."""

    def _refused(self, status: Status) -> bool:
        """Whether the servo answers without the data that it was asked for, and says why."""
        return False

    def _unheard(self, status: Status) -> bool:
        """Whether the servo says that it did not get the request whole."""
        return False

    def _read_all(
        self,
        request: bytes,
        register: Register,
        ids: list[int],
        how: str,
        within_s: float | None = None,
    ) -> dict[int, int]:
        answers = self._ask(request, ids, register.size, f"{how} of {register.name}", within_s)
        return {servo: register.from_bytes(answers[servo]) for servo in ids}

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
            self._parser.reset()
            self.link.discard_input()
            self.link.write(request)
            answers, heard, others = self._collect(servos, count, timeout_s)
            again = attempt < retries
            if again and any(self._unheard(status) for status in answers.values()):
                continue
            for status in answers.values():
                if status.error and self.faults and (trouble := self._trouble(status, what)):
                    raise RobotFault(f"servo id {status.id} on {self.link.name} {trouble}")
            if len(answers) == len(servos):
                return {servo: status.data for servo, status in answers.items()}
            if heard and not answers and not others:
                self.garbage = heard[:16]
            if not again:
                others = [p for p in others if self.codec.encode(p) != request]
                raise self._silence(what, servos, answers, heard, others, timeout_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _collect(
        self, servos: list[int], count: int, timeout_s: float
    ) -> tuple[dict[int, Status], bytes, list[Packet]]:
        """(answers by id, everything heard, packets that were no answer) until the deadline."""
        answers: dict[int, Status] = {}
        others: list[Packet] = []
        heard = b""
        deadline = self._now() + timeout_s
        while len(answers) < len(servos) and (left := deadline - self._now()) > 0:
            data = self.link.read(left)
            heard += data
            for packet in self._parser.feed(data):
                statuses = self.codec.statuses(packet, count)
                wanted = [
                    status
                    for status in statuses
                    if status.id in servos and (len(status.data) == count or self._refused(status))
                ]
                answers |= {status.id: status for status in wanted}
                if not wanted:
                    others.append(packet)
        return answers, heard, others

    def _silence(
        self,
        what: str,
        servos: list[int],
        answers: Mapping[int, Status],
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
