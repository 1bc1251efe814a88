"""Feetech servos on a bus."""

from __future__ import annotations

from typing import ClassVar

from ..servos import bus
from ..servos.bus import Silence
from ..servos.codec import Codec, Status
from . import protocol as feetech

__all__ = ["Bus", "Silence"]


class Bus(bus.Bus):
    """STS and SMS servos: error bits in every answer, a lock before the EEPROM."""

    protocol = "feetech"
    codec: ClassVar[Codec] = feetech
    parser = feetech.Parser
    registers = feetech.STS3215
    models = feetech.MODELS
    bauds = feetech.BAUDS

    def unlock(self, servo: int) -> None:
        self.write(servo, self.registers["torque_enable"], 0)
        self.write(servo, self.registers["lock"], 0)

    def lock(self, servo: int) -> None:
        self.write(servo, self.registers["lock"], 1)

    def _trouble(self, status: Status, what: str) -> str:
        faults = feetech.error_names(status.error)
        return (
            f"reports {', '.join(faults)}: relieve the arm, switch it off and on, and try again"
            if faults
            else ""
        )
