"""An emulated arm behind a real companion: everything but the vendor's SDK is what runs beside a real arm."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np

from ... import embodiments
from ...embodiments import Embodiment
from ...errors import UserError
from ..base import Features
from ..emulation.device import Wire
from ..uri import parse
from .backend import ArmFault, Rules
from .bodies import Fault
from .companion import Companion
from .server import UdpServer
from .session import load_key


class StreamArm:
    """The vendor's side of a companion: a ``Backend`` to it, a ``Device`` to the emulated world.

    The companion's thread reads and commands, the world's thread moves; ``lock`` keeps poses whole.
    """

    faults = ("silent", "stuck", "overload")

    def __init__(self, card: Embodiment) -> None:
        self.card = card
        self.names = Features.from_card(card, {}).joints
        self._lock = threading.Lock()
        self._pose = self._goal = np.zeros(card.action_dim)
        self._stuck = np.zeros(card.action_dim, dtype=bool)
        self._overload = 0
        self._displaced = False
        self._companion: Companion | None = None
        self._server: UdpServer | None = None

    def read(self) -> np.ndarray:
        with self._lock:
            if self._overload:
                raise ArmFault(Fault.OVERLOAD, self._overload)
            return self._pose

    def command(self, q: np.ndarray) -> None:
        with self._lock:
            if not self._displaced:
                self._goal = q

    def hold(self) -> None:
        with self._lock:
            self._goal, self._displaced = self._pose, False

    def goals(self) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            # An overloaded arm has switched its motors off, all of them.
            return self._goal, ~self._stuck & (self._overload == 0)

    def measure(self, values: np.ndarray, elapsed_s: float) -> None:
        with self._lock:
            self._pose = np.array(values, dtype=np.float64)

    def rest(self) -> None:
        """The arm was put elsewhere: it stays there until the companion has held it once."""
        self.hold()
        self._displaced = True

    def fault(self, kind: str, joint: int) -> None:
        """``silent`` is the whole arm's (the companion's process hangs); else ``joint`` counts from 1."""
        if kind in ("stuck", "overload") and not 1 <= joint <= self.card.action_dim:
            raise UserError(
                f"fault {kind!r} of joint {joint}: there is no such joint; they are 1 to {self.card.action_dim}"
            )
        with self._lock:
            if kind == "mend":
                self._stuck[:], self._overload = False, 0
            elif kind == "stuck":
                self._stuck[joint - 1] = True
            elif kind == "overload":
                self._overload = joint
        if self._server is not None and kind in ("silent", "mend"):
            self._server.mute(kind == "silent")

    def report(self) -> dict[str, Any]:
        """``packets``: commands taken over; ``companion``: what it did with the rest."""
        report = self._companion.report() if self._companion is not None else {"counts": {}}
        return {"packets": report["counts"].get("commands", 0), "companion": report}

    def listen(self, at: str) -> Wire:
        """``udp://127.0.0.1:0``, options ``key``, ``insecure``, ``watchdog_ms``, ``max_age_ms``."""
        uri = parse(at, ("udp",), listen=True)
        uri.allow("key", "insecure", "watchdog_ms", "max_age_ms")
        secret = load_key(uri.query["key"]) if "key" in uri.query else b""
        rules = Rules(
            watchdog_s=uri.number("watchdog_ms", 300) / 1000,
            max_age_s=uri.number("max_age_ms", 250) / 1000,
        )
        self._companion = Companion(self, self.card, secret, rules, tell=_tell)
        self._server = UdpServer(self._companion, uri, emulated=True)
        return self._server


def franka() -> StreamArm:
    """A Franka and its hand."""
    return StreamArm(embodiments.get("tabletop_franka"))


def yam() -> StreamArm:
    """One YAM and its gripper."""
    return StreamArm(embodiments.get("yam_arm"))


def _tell(line: str) -> None:
    print(f"companion: {line}", file=sys.stderr, flush=True)
