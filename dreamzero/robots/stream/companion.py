"""The arm's end of the stream, without sockets: what it takes over, what it refuses, when it holds.

Plug a vendor's SDK in with three methods (``Backend``) and let ``UdpServer`` carry it:

    companion = Companion(MyArm(), embodiments.get("droid"), load_key("arm.key"))
    with UdpServer(companion, "udp://10.0.0.5:47800") as server:
        server.join()

README.md beside this file has a whole one. The rules are enforced here and not at the driver's end, because
a driver can crash, be wrong, or be somebody else: one commanding session at a time; joint and velocity limits;
no command twice, out of order, or older than ``max_age_s``; a hold when commands stop.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ...embodiments import Embodiment
from ..safety import Limits
from .backend import ArmFault, Backend, Rules
from .bodies import Command, Fault, Flag, Role, State
from .door import Door, Heard, Outgoing, Peer, Session, name
from .motion import Motion
from .protocol import Frame, FrameError, Kind


class Companion:
    """Takes datagrams and the time, gives datagrams back, and moves the arm in between.

    Args:
        backend: the arm.
        card: any card of that robot: its limits hold here.
        secret: from ``load_key``; empty on loopback only.
        rules: see ``Rules``.
        tell: is given one line for each thing somebody should know, the same at most every 10 s.
        random: source of nonces and session numbers (tests).
    """

    def __init__(
        self,
        backend: Backend,
        card: Embodiment,
        secret: bytes = b"",
        rules: Rules | None = None,
        tell: Callable[[str], None] | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.card, self.rules, self.keyed = card, rules or Rules(), bool(secret)
        self._backend = backend
        self._door = Door(card.robot, card.action_dim, secret, self.rules, tell, random)
        limits = Limits.from_card(card, self.rules.speed)
        self._motion = Motion(replace(limits, period_s=1 / self.rules.control_hz))
        self._counts: Counter[str] = Counter()
        self._pose: np.ndarray | None = None
        # A fault stays until the driver has seen it: a HOLD or a new session puts it away.
        self._trouble: ArmFault | None = None
        self._troubled = self._watchdog = False
        self._commanded_ns = self._state_ns = 0

    def receive(self, data: bytes, peer: Peer, now_ns: int) -> Outgoing:
        """Take one datagram; answers to it. Never raises, whatever the bytes are."""
        answers, heard = self._door.receive(data, peer, now_ns)
        if heard is not None:
            self._obey(heard, now_ns)
        return answers

    def tick(self, now_ns: int) -> Outgoing:
        """Read the arm, hold or move it, and send states that are due. Call ``control_hz`` times a second."""
        for session in list(self._door.sessions.values()):
            if now_ns - session.heard_ns > self.rules.session_s * 1e9:
                self._end(session, "silent", now_ns)
        self._read(now_ns)
        silent_ns = now_ns - self._commanded_ns
        if not self._motion.holding and silent_ns > self.rules.watchdog_s * 1e9:
            self._counts["watchdog"] += 1
            self._watchdog = True
            self._hold(now_ns)
        setpoint = self._motion.step(now_ns / 1e9)
        if setpoint is not None:
            try:
                self._backend.command(setpoint)
            except Exception as error:  # noqa: BLE001
                self._break(_trouble(error), now_ns)
        if now_ns - self._state_ns < 1e9 / self.rules.state_hz or self._pose is None:
            return []
        self._state_ns = now_ns
        return [
            (s.channel.seal(Kind.STATE, self._state(s, self._pose, now_ns), now_ns), s.peer)
            for s in self._door.live
        ]

    def close(self, now_ns: int) -> Outgoing:
        """Hold, and end every session."""
        live = self._door.live
        frames = [(s.channel.seal(Kind.BYE, b"", now_ns), s.peer) for s in live]
        for session in live:
            self._door.end(session, "left", now_ns)
        self._hold(now_ns)
        return frames

    def report(self) -> dict[str, Any]:
        """What may be asked while it runs.

        Returns:
            ``counts`` of frames and commands by what became of them, ``sessions`` that are live,
            ``commander``, the newest command ``taken`` of it (sequence) and its ``age_ms`` when it came,
            and ``lines``, the newest that were told.
        """
        who = self._door.commander
        limits = {f"limit_{kind}": count for kind, count in self._motion.counts.items()}
        return {
            "counts": dict(self._door.counts) | dict(self._counts) | limits,
            "sessions": len(self._door.live),
            "commander": name(who.peer) if who else None,
            "taken": who.taken if who else 0,
            "age_ms": who.age_ns / 1e6 if who else 0.0,
            "lines": list(self._door.lines),
        }

    def _obey(self, heard: Heard, now_ns: int) -> None:
        session, frame, first = heard
        if first and session is self._door.commander:
            self._settle(now_ns)
        if frame.kind == Kind.BYE:
            self._end(session, "left", now_ns)
            return
        if frame.kind not in (Kind.COMMAND, Kind.HOLD):
            return
        if session.role != Role.COMMAND:
            self._counts["observer"] += 1
        elif frame.sequence <= session.taken:
            self._counts["late"] += 1
        elif frame.kind == Kind.HOLD:
            session.taken = frame.sequence
            self._settle(now_ns)
        elif not session.in_rate(self.rules.command_hz, now_ns):
            self._counts["hurried"] += 1
        elif self._trouble is not None:
            self._counts["faulty"] += 1
        else:
            self._command(session, frame, now_ns)

    def _command(self, session: Session, frame: Frame, now_ns: int) -> None:
        try:
            command = Command.unpack(frame.body)
        except FrameError:
            self._counts["body"] += 1
            return
        sync = session.channel.sync
        age_ns = sync.oldest_ns(frame.sent_ns, now_ns) if sync.known else None
        if len(command.values) != self.card.action_dim or self._pose is None:
            self._counts["body"] += 1
        elif age_ns is None or age_ns > self.rules.max_age_s * 1e9:
            self._counts["old"] += 1
            self._door.say("old", session.peer, now_ns, most=1e3 * self.rules.max_age_s)
        else:
            session.taken, session.age_ns = frame.sequence, age_ns
            self._commanded_ns, self._watchdog = now_ns, False
            self._counts["commands"] += 1
            self._motion.aim(np.array(command.values), command.duration_us / 1e6, now_ns / 1e9)

    def _read(self, now_ns: int) -> None:
        try:
            pose = np.asarray(self._backend.read(), dtype=np.float64)
            if pose.shape != (self.card.action_dim,) or not np.isfinite(pose).all():
                raise ArmFault(Fault.VENDOR)
        except Exception as error:  # noqa: BLE001
            self._break(_trouble(error), now_ns)
            return
        first, self._pose, self._troubled = self._pose is None, pose, False
        if first:
            self._hold(now_ns)

    def _break(self, trouble: ArmFault, now_ns: int) -> None:
        """The arm has just said so, or says so still."""
        if self._trouble is None:
            self._counts["faults"] += 1
            self._door.say("fault", (), now_ns, robot=self.card.robot, trouble=trouble)
        first, self._trouble, self._troubled = not self._troubled, trouble, True
        if first:
            self._hold(now_ns)

    def _settle(self, now_ns: int) -> None:
        """The driver knows how things are: hold, and put away a fault that is over."""
        self._watchdog = False
        if not self._troubled:
            self._trouble = None
        self._hold(now_ns)

    def _hold(self, now_ns: int) -> None:
        if self._pose is not None:
            self._motion.hold(self._pose, now_ns / 1e9)
            try:
                self._backend.hold()
            except Exception as error:  # noqa: BLE001
                self._trouble, self._troubled = _trouble(error), True

    def _end(self, session: Session, why: str, now_ns: int) -> None:
        commands = session is self._door.commander
        self._door.end(session, why, now_ns)
        if commands:
            self._hold(now_ns)

    def _state(self, session: Session, pose: np.ndarray, now_ns: int) -> bytes:
        flags = Flag.HOLDING if self._motion.holding else Flag(0)
        flags |= Flag.WATCHDOG if self._watchdog else Flag(0)
        flags |= Flag.LIMITED if self._motion.limited else Flag(0)
        fault = (0, 0)
        if self._trouble is not None:
            flags |= Flag.FAULT
            fault = (self._trouble.fault, self._trouble.joint)
        values = tuple(pose.tolist())
        return State(values, now_ns, flags, *fault, session.taken, session.age_ns).pack()


def _trouble(error: Exception) -> ArmFault:
    """What a backend raised; whatever its SDK throws is the arm's trouble, and not the end of the watch."""
    if isinstance(error, ArmFault):
        return error
    trouble = ArmFault(Fault.VENDOR)
    trouble.args = (f"{trouble} ({type(error).__name__}: {error})",)
    return trouble
