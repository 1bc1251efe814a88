"""Dynamixel X servos on a bus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from ..servos import bus
from ..servos.bus import Silence
from ..servos.codec import Codec, Register, Status
from . import protocol as dynamixel
from .table import HARDWARE_ERRORS, MODELS, X_SERIES

__all__ = ["Bus", "Silence"]

_CRC_ERROR = 3
# After a broadcast ping every servo waits for those before it: 3 ms an id in ROBOTIS' own SDK.
_PING_S = 0.003


class Bus(bus.Bus):
    """X series servos: an alert bit in every answer, its reason in a register of its own."""

    protocol = "dynamixel"
    codec: ClassVar[Codec] = dynamixel
    parser = dynamixel.Parser
    registers = X_SERIES
    models: ClassVar[Mapping[int, str]] = {number: model.name for number, model in MODELS.items()}
    # 57600 is what they leave the factory with, 1000000 what arms are set to.
    bauds = (1_000_000, 57_600, 115_200, 2_000_000, 3_000_000, 4_000_000, 9_600)
    ping_bytes = 3

    def fast_sync_read(
        self, register: Register, servos: Iterable[int], within_s: float | None = None
    ) -> dict[int, int]:
        """As ``sync_read``, in one packet for all; servos with old firmware stay silent."""
        ids = list(servos)
        request = dynamixel.fast_sync_read(register.address, register.size, ids)
        try:
            return self._read_all(request, register, ids, "fast sync read", within_s)
        except Silence:
            if within_s is not None:
                raise
            # The parts of one packet wait for each other; asked one by one, the silent one shows.
            self.sync_read(register, ids)
            raise

    def reboot(self, servo: int) -> None:
        """Start the servo anew: torque off, errors gone; it is away for some 0.2 s."""
        with self.tolerant():
            self._ask(dynamixel.reboot(servo), [servo], 0, f"reboot of id {servo}")

    def scan(self, servos: Iterable[int] = range(1, 21), timeout_s: float = 0.02) -> dict[int, int]:
        """Model number of every servo among ``servos`` that answers a ping sent to everyone."""
        wanted = set(servos)
        patience_s = timeout_s + _PING_S * (max(wanted, default=0) + 1)
        self._parser.reset()
        self.link.discard_input()
        self.link.write(dynamixel.ping(dynamixel.BROADCAST))
        found: dict[int, int] = {}
        heard = b""
        deadline = self._now() + patience_s
        while (left := deadline - self._now()) > 0 and not wanted <= set(found):
            data = self.link.read(left)
            heard += data
            for packet in self._parser.feed(data):
                for status in dynamixel.statuses(packet, self.ping_bytes):
                    if len(status.data) == self.ping_bytes and status.id in wanted:
                        found[status.id] = int.from_bytes(status.data[:2], "little")
        if heard and not found:
            self.garbage = heard[:16]
        return found

    def unlock(self, servo: int) -> None:
        self.write(servo, self.registers["torque_enable"], 0)

    def lock(self, servo: int) -> None:
        """Switching torque on does it; until then the EEPROM stays writable."""

    def hardware_errors(self, servo: int) -> list[str]:
        """Names of what the servo has shut down for."""
        with self.tolerant():
            code = self.read(servo, self.registers["hardware_error"])
        return [name for bit, name in HARDWARE_ERRORS.items() if code >> bit & 1]

    def _refused(self, status: Status) -> bool:
        return not status.data and status.error & ~dynamixel.ALERT > 0

    def _unheard(self, status: Status) -> bool:
        return status.error & ~dynamixel.ALERT == _CRC_ERROR

    def _trouble(self, status: Status, what: str) -> str:
        if status.error & dynamixel.ALERT:
            faults = self.hardware_errors(status.id) or ["a hardware error"]
            return (
                f"reports {', '.join(faults)}: relieve the arm, then switch it off and on, or run "
                f"`dreamzero robot identify --reboot {status.id}` on this address"
            )
        return f"refused the {what}: {', '.join(dynamixel.error_names(status.error))}"
