"""What is said on a servo bus, byte by byte: notebook 04 listens in and decodes it.

```python
with wire.tapped(arm) as tap:
    arm.observe(views=())
for packet in wire.decode(tap.heard, arm.calibration): print(packet.meaning)
```
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dreamzero.errors import UserError
from dreamzero.robots import feetech
from dreamzero.robots.calibration import Calibration
from dreamzero.robots.feetech import Instruction, Packet, Register
from dreamzero.robots.transport import Link

_BY_ADDRESS = {register.address: register for register in feetech.STS3215.values()}


class Tap:
    """A link that keeps what passes through it.

    Attributes:
        heard: ("out" or "in", bytes), in order; "out" goes to the arm.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.name, self.detail = link.name, link.detail
        self.heard: list[tuple[str, bytes]] = []

    def write(self, data: bytes) -> None:
        self.heard.append(("out", bytes(data)))
        self.link.write(data)

    def read(self, timeout_s: float) -> bytes:
        data = self.link.read(timeout_s)
        if data:
            self.heard.append(("in", data))
        return data

    def discard_input(self) -> None:
        self.link.discard_input()

    def close(self) -> None:
        self.link.close()


@contextmanager
def tapped(arm: Any) -> Iterator[Tap]:
    """Listen to a connected arm's bus inside a ``with`` block.

    Raises:
        UserError: the arm has no byte stream (a simulated one).
    """
    if not hasattr(arm, "bus"):
        raise UserError(f"{arm} has no wire to listen to; give a serial:// or tcp:// address")
    bus = arm.bus
    tap = Tap(bus.link)
    bus.link = tap
    try:
        yield tap
    finally:
        bus.link = tap.link


@dataclass(frozen=True)
class Spoken:
    """One packet: who said it ("out" to the arm, "in" from it), its bytes, and in words."""

    direction: str
    data: bytes
    meaning: str

    @property
    def parts(self) -> list[tuple[str, bytes]]:
        """(role, bytes) in order; roles are header, id, length, code, parameters, checksum."""
        d = self.data
        return [
            ("header", d[:2]),
            ("id", d[2:3]),
            ("length", d[3:4]),
            ("code", d[4:5]),
            ("parameters", d[5:-1]),
            ("checksum", d[-1:]),
        ]


def decode(heard: Sequence[tuple[str, bytes]], calibration: Calibration) -> list[Spoken]:
    """Whole packets of a conversation in words; answers are read by the request before them."""
    parsers = {"out": feetech.Parser(), "in": feetech.Parser()}
    asked: Register | None = None
    spoken = []
    for direction, data in heard:
        for packet in parsers[direction].feed(data):
            if direction == "out":
                asked, meaning = _request(packet, calibration)
            else:
                meaning = _answer(packet, asked, calibration)
            spoken.append(Spoken(direction, feetech.encode(packet), meaning))
    return spoken


def _request(packet: Packet, calibration: Calibration) -> tuple[Register | None, str]:
    code, p = packet.code, packet.params
    if code == Instruction.SYNC_READ and len(p) > 2:
        register = _BY_ADDRESS.get(p[0])
        ids = ", ".join(str(servo) for servo in p[2:])
        return register, f"sync read: {_name(register, p[0])} of servos {ids}"
    if code == Instruction.SYNC_WRITE and len(p) > 2:
        register, width = _BY_ADDRESS.get(p[0]), p[1] + 1
        pieces = [p[i : i + width] for i in range(2, len(p), width)]
        values = ", ".join(_value(piece[0], piece[1:], register, calibration) for piece in pieces)
        return None, f"sync write: {_name(register, p[0])}: {values}"
    name = Instruction(code).name.lower() if code in set(Instruction) else f"code {code:#04x}"
    register = _BY_ADDRESS.get(p[0]) if p else None
    return register, f"{name} of servo {packet.id}" + (f": {register.name}" if register else "")


def _answer(packet: Packet, asked: Register | None, calibration: Calibration) -> str:
    faults = feetech.error_names(packet.code)
    if faults:
        return f"servo {packet.id} reports {', '.join(faults)}"
    if asked is None or not packet.params:
        return f"servo {packet.id}: done"
    return _value(packet.id, packet.params, asked, calibration)


def _name(register: Register | None, address: int) -> str:
    return register.name if register else f"address {address}"


def _value(servo: int, data: bytes, register: Register | None, calibration: Calibration) -> str:
    """ "elbow_flex 2113 (+0.100 rad)" for positions, else the bare count."""
    count = register.from_bytes(data) if register else int.from_bytes(data, "little")
    joint = next((j for j in calibration.joints if j.id == servo), None)
    if joint is None or register is None or "position" not in register.name:
        return f"{joint.name if joint else f'servo {servo}'} {count}"
    unit = "open" if joint.name == "gripper" else "rad"
    return f"{joint.name} {count} ({joint.to_value(count):+.3f} {unit})"
