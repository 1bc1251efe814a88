"""Which servos are on a port: every protocol and baud rate tried, nothing moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...errors import UserError
from ..base import RobotFault
from ..transport import Link, SerialLink
from ..uri import Uri
from .bus import Bus

Opener = Callable[[Uri], Link]
IDS = range(1, 21)


def buses() -> dict[str, type[Bus]]:
    """Protocol -> its bus."""
    from ..dynamixel.bus import Bus as Dynamixel
    from ..feetech.bus import Bus as Feetech

    return {bus.protocol: bus for bus in (Feetech, Dynamixel)}


@dataclass(frozen=True)
class Found:
    """One servo.

    Attributes:
        model: model number; ``name`` is what it is sold as, "" if we do not know it.
        firmware: version number, as the servo counts.
        return_delay_us: how long it waits before every answer.
        torque: whether it holds its joint.
        trouble: what it reports of itself, "" if nothing.
    """

    protocol: str
    baud: int
    id: int
    model: int
    name: str
    firmware: int
    return_delay_us: int
    torque: bool
    trouble: str = ""


@dataclass
class Survey:
    """What was found on a port.

    Attributes:
        port: as a person would call it.
        found: servos, in the order they were found.
        garbage: (protocol asked, baud) -> first bytes that came and were no packet.
        tried: (protocol, baud) of every attempt.
    """

    port: str
    found: list[Found] = field(default_factory=list)
    garbage: dict[tuple[str, int], bytes] = field(default_factory=dict)
    tried: list[tuple[str, int]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        heard = [
            {"protocol": protocol, "baud": baud, "bytes": data.hex(" ")}
            for (protocol, baud), data in self.garbage.items()
        ]
        return {"port": self.port, "servos": [vars(one) for one in self.found], "garbage": heard}

    def explain(self) -> str:
        """Why nothing was found, as far as can be told."""
        asked: dict[str, list[str]] = {}
        for protocol, baud in self.tried:
            asked.setdefault(protocol, []).append(str(baud or "the bridge's"))
        if not self.garbage:
            tried = "; ".join(f"{name} at {', '.join(bauds)}" for name, bauds in asked.items())
            return (
                f"{self.port}: no servo answers (tried {tried} baud); check power and cable, and "
                "--ids if theirs are high"
            )
        heard = "; ".join(
            f"asked in {protocol} at {baud} baud came {data.hex(' ')}"
            for (protocol, baud), data in self.garbage.items()
        )
        return (
            f"{self.port}: something answers and it is no packet of ours: {heard}; another baud "
            "rate, two servos of one id, or another kind of device"
        )


def survey(
    uri: Uri,
    protocols: Iterable[str] = (),
    ids: Iterable[int] = IDS,
    everything: bool = False,
    link: Opener = SerialLink,
) -> Survey:
    """Look for servos. Writes nothing to them.

    Args:
        uri: ``serial:///dev/ttyACM0``, with ``baud=`` to try only that one; or ``tcp://host:port``.
        protocols: names in ``buses``; all of them if empty.
        ids: servo ids to try.
        everything: go on through all protocols and baud rates after something was found.

    Raises:
        UserError: the port does not open, or a protocol is unknown.
        RobotFault: the port is lost on the way.
    """
    result = Survey(uri.path or f"{uri.host}:{uri.port}")
    for bus_type, where, baud in _attempts(uri, tuple(protocols)):
        bus = bus_type(link(where), retries=0, faults=False)
        try:
            result.tried.append((bus.protocol, baud))
            for servo, model in bus.scan(tuple(ids)).items():
                result.found.append(_describe(bus, baud, servo, model))
            if bus.garbage:
                result.garbage[bus.protocol, baud] = bus.garbage
        finally:
            bus.link.close()
        if result.found and not everything:
            break
    return result


def bus_of(uri: Uri, servo: int, protocols: Iterable[str] = (), link: Opener = SerialLink) -> Bus:
    """An open bus on which that servo answers; protocol and baud rate are found out.

    Raises:
        RobotFault: it answers nowhere.
    """
    seen = survey(uri, protocols, (servo,), link=link)
    if not seen.found:
        raise RobotFault(f"servo id {servo}: {seen.explain()}")
    one = seen.found[0]
    return buses()[one.protocol](link(_at(uri, one.baud)))


def _attempts(uri: Uri, protocols: tuple[str, ...]) -> Iterator[tuple[type[Bus], Uri, int]]:
    """(bus, address, baud) in the order of likelihood; 0 behind a bridge, which has its own."""
    known = buses()
    for name in protocols:
        if name not in known:
            raise UserError(f"no servo protocol {name!r}; known: {', '.join(known)}")
    chosen = [known[name] for name in protocols or known]
    if uri.scheme == "tcp" or "baud" in uri.query:
        baud = 0 if uri.scheme == "tcp" else uri.number("baud", 0)
        yield from ((bus, uri, baud) for bus in chosen)
        return
    bauds = dict.fromkeys(baud for bus in chosen for baud in bus.bauds)
    for baud in bauds:
        yield from ((bus, _at(uri, baud), baud) for bus in chosen if baud in bus.bauds)


def _at(uri: Uri, baud: int) -> Uri:
    if uri.scheme == "tcp":
        return uri
    return Uri(uri.scheme, uri.host, uri.port, uri.path, dict(uri.query) | {"baud": str(baud)})


def _describe(bus: Bus, baud: int, servo: int, model: int) -> Found:
    def read(name: str) -> int:
        return bus.read(servo, bus.registers[name])

    try:
        firmware, delay, torque = read("firmware"), read("return_delay"), read("torque_enable")
        trouble = bus.trouble(servo)
    except RobotFault as fault:
        firmware, delay, torque, trouble = 0, 0, 0, str(fault)
    name = bus.models.get(model, "")
    return Found(bus.protocol, baud, servo, model, name, firmware, 2 * delay, bool(torque), trouble)
