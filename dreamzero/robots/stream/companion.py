"""The arm's end of the stream, without sockets: what it takes over, what it refuses, when it holds.

Plug a vendor's SDK in with three methods (:class:`Backend`) and let :class:`~.server.UdpServer` carry it:

    companion = Companion(MyArm(), embodiments.get("droid"), load_key("arm.key"))
    with UdpServer(companion, "udp://10.0.0.5:47800") as server:
        server.join()

README.md beside this file has a whole one. The rules are enforced here and not at the driver's end, because
a driver can crash, be wrong, or be somebody else: one commanding session at a time; joint and velocity limits;
no command twice, out of order, or older than ``max_age_s``; a hold when commands stop.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...embodiments import Embodiment
from ..safety import Limits
from . import protocol
from .backend import ArmFault, Backend, Rules
from .bodies import (
    NONCE_BYTES,
    Command,
    Fault,
    Flag,
    Hello,
    Reason,
    Refusal,
    Role,
    State,
    Welcome,
)
from .motion import Motion
from .protocol import Frame, FrameError, Kind
from .session import Channel, handshake_keys, session_keys

Peer = tuple[Any, ...]
Outgoing = list[tuple[bytes, Peer]]
_SESSIONS = 8
_REPEAT_NS = 10_000_000_000


@dataclass
class _Session:
    peer: Peer
    role: int
    welcome: Welcome
    channel: Channel
    heard_ns: int
    live: bool = False
    taken: int = 0
    age_ns: int = 0
    allowance: float = 0.0
    counted_ns: int = 0


class Companion:
    """Takes datagrams and the time, gives datagrams back, and moves the arm in between.

    Args:
        backend: the arm.
        card: any card of that robot: its limits hold here.
        secret: from ``load_key``; empty on loopback only.
        rules: see :class:`Rules`.
        tell: is given one line for each thing somebody should know, repeated at most every 10 s.
        random: source of nonces and session numbers (tests).

    Attributes:
        counts: what was done with frames and commands, by name.
        lines: the newest lines that ``tell`` was given.
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
        self.card, self.rules = card, rules or Rules()
        self.counts: Counter[str] = Counter()
        self.lines: deque[str] = deque(maxlen=100)
        self._backend, self._secret = backend, secret
        self._tell, self._random = tell, random
        limits = Limits.from_card(card, self.rules.speed)
        self._motion = Motion(replace(limits, period_s=1 / self.rules.control_hz))
        self._driver_key, self._own_key = handshake_keys(secret)
        self._sessions: dict[int, _Session] = {}
        self._commander: _Session | None = None
        self._pose: np.ndarray | None = None
        # A fault stays until the driver has seen it: a HOLD or a new session puts it away.
        self._trouble: ArmFault | None = None
        self._troubled = self._watchdog = False
        self._commanded_ns = self._state_ns = 0
        self._refused_ns = -_REPEAT_NS
        self._told: dict[tuple[str, Peer], int] = {}
        self._ended: deque[int] = deque(maxlen=_SESSIONS)

    def receive(self, data: bytes, peer: Peer, now_ns: int) -> Outgoing:
        """Take one datagram; answers to it. Never raises, whatever the bytes are."""
        try:
            return self._receive(data, protocol.parse(data), peer, now_ns)
        except FrameError as error:
            self.counts[error.cause] += 1
            if error.cause != "version":
                return []
            other = protocol.version_of(data)
            self._say("version", peer, now_ns, f"speaks version {other} of the stream, this companion "
                      f"{protocol.VERSION}: bring both ends to the same release")  # fmt: skip
            return self._refuse(Reason.VERSION, peer, now_ns)

    def tick(self, now_ns: int) -> Outgoing:
        """Read the arm, hold or move it, and send states that are due. Call ``control_hz`` times a second."""
        for session in list(self._sessions.values()):
            if now_ns - session.heard_ns > self.rules.session_s * 1e9:
                self._end(session, now_ns, "has fallen silent")
        self._read(now_ns)
        silent_ns = now_ns - self._commanded_ns
        if not self._motion.holding and silent_ns > self.rules.watchdog_s * 1e9:
            self.counts["watchdog"] += 1
            self._watchdog = True
            self._hold(now_ns)
        setpoint = self._motion.step(now_ns / 1e9)
        if setpoint is not None:
            try:
                self._backend.command(setpoint)
            except ArmFault as trouble:
                self._break(trouble, now_ns)
        if now_ns - self._state_ns < 1e9 / self.rules.state_hz or self._pose is None:
            return []
        self._state_ns = now_ns
        return [
            (session.channel.seal(Kind.STATE, self._state(session, now_ns), now_ns), session.peer)
            for session in self._sessions.values()
            if session.live
        ]

    def close(self, now_ns: int) -> Outgoing:
        """Hold, and end every session."""
        live = [session for session in self._sessions.values() if session.live]
        self._sessions, self._commander = {}, None
        self._hold(now_ns)
        return [(s.channel.seal(Kind.BYE, b"", now_ns), s.peer) for s in live]

    def report(self) -> dict[str, Any]:
        """Counts, who commands, and the newest command taken: its sequence, and its age when it came."""
        who, sessions = self._commander, list(self._sessions.values())
        return {
            "counts": dict(self.counts) | {f"limit_{k}": v for k, v in self._motion.counts.items()},
            "sessions": sum(session.live for session in sessions),
            "commander": _name(who.peer) if who else None,
            "taken": who.taken if who else 0,
            "age_ms": who.age_ns / 1e6 if who else 0.0,
            "lines": list(self.lines),
        }

    def _receive(self, data: bytes, frame: Frame, peer: Peer, now_ns: int) -> Outgoing:
        if frame.kind == Kind.HELLO:
            return self._hello(data, frame, peer, now_ns)
        session = self._sessions.get(frame.session)
        if session is None and frame.session in self._ended:
            self.counts["ended"] += 1  # what was still under way
            return []
        if session is None:
            self.counts["foreign"] += 1
            self._say("foreign", peer, now_ns, f"sends frames of session {frame.session:#x}, which is not "
                      "open here: a capture that is replayed, or a driver that has to reconnect")  # fmt: skip
            return []
        before = session.channel.counts.copy()
        if not session.channel.admit(data, frame, now_ns):
            for cause in session.channel.counts - before:
                self.counts[cause] += 1
                self._say(cause, peer, now_ns, _WHY[cause])
            return []
        session.heard_ns = now_ns
        if frame.sequence == session.channel.newest:
            session.peer = peer
        if not session.live and not self._admit(session, now_ns):
            return self._refuse(Reason.BUSY, peer, now_ns, session.welcome.nonce)
        self._obey(session, frame, now_ns)
        return []

    def _hello(self, data: bytes, frame: Frame, peer: Peer, now_ns: int) -> Outgoing:
        if not protocol.authentic(data, self._driver_key):
            self.counts["forged"] += 1
            self._say("key", peer, now_ns, "asks for a session with another key: are the two key files "
                      "the same?" if self._secret else "has a key, this companion has none")  # fmt: skip
            return self._refuse(Reason.KEY, peer, now_ns)
        hello = Hello.unpack(frame.body)
        if (hello.robot, hello.count) != (self.card.robot, self.card.action_dim):
            mine = f"a {self.card.robot} of {self.card.action_dim} values"
            self._say(
                "arm", peer, now_ns, f"asks for a {hello.robot} of {hello.count}; this is {mine}"
            )
            return self._refuse(Reason.ARM, peer, now_ns, hello.nonce, mine)
        if hello.role == Role.COMMAND and self._commander is not None:
            who = _name(self._commander.peer)
            if self._commander.welcome.nonce != hello.nonce:
                self._say("busy", peer, now_ns, f"asks for the arm, which {who} commands")
                return self._refuse(Reason.BUSY, peer, now_ns, hello.nonce, who)
        session = next((s for s in self._sessions.values() if s.welcome.nonce == hello.nonce), None)
        if session is None:
            session = self._open(hello, peer, now_ns)
        if session is None:
            return self._refuse(Reason.FULL, peer, now_ns, hello.nonce)
        echo = protocol.Echo(frame.sequence, 1, frame.sent_ns, now_ns)
        answer = Frame(
            Kind.WELCOME, session.channel.session, 1, now_ns, echo, session.welcome.pack()
        )
        return [(protocol.pack(answer, self._own_key), peer)]

    def _open(self, hello: Hello, peer: Peer, now_ns: int) -> _Session | None:
        """A session that waits for its first frame; a HELLO alone may be an old one, replayed."""
        waiting = [s for s in self._sessions.values() if not s.live]
        if len(self._sessions) >= _SESSIONS:
            if not waiting:
                return None
            del self._sessions[min(waiting, key=lambda s: s.heard_ns).channel.session]
        rules = self.rules
        times = (rules.watchdog_s, rules.max_age_s, 1 / rules.state_hz, 1 / rules.command_hz)
        nonce = self._random(NONCE_BYTES)
        welcome = Welcome(hello.nonce, nonce, *(round(1e6 * t) for t in times))
        number = int.from_bytes(self._random(8), "little") or 1
        theirs, ours = session_keys(self._secret, welcome, number)
        session = _Session(peer, hello.role, welcome, Channel(number, ours, theirs), now_ns)
        self._sessions[number] = session
        return session

    def _admit(self, session: _Session, now_ns: int) -> bool:
        """The session's keys are proven; false if another has taken the arm meanwhile."""
        if session.role == Role.COMMAND:
            if self._commander is not None:
                del self._sessions[session.channel.session]
                return False
            self._commander = session
            self._settle(now_ns)
        session.live = True
        what = "commands" if session.role == Role.COMMAND else "observes"
        self._say("session", session.peer, now_ns, f"{what} the {self.card.robot}")
        return True

    def _obey(self, session: _Session, frame: Frame, now_ns: int) -> None:
        if frame.kind == Kind.BYE:
            self._end(session, now_ns, "has left")
            return
        if frame.kind not in (Kind.COMMAND, Kind.HOLD):
            return
        if session.role != Role.COMMAND:
            self.counts["observer"] += 1
        elif frame.sequence <= session.taken:
            self.counts["late"] += 1
        elif frame.kind == Kind.HOLD:
            session.taken = frame.sequence
            self._settle(now_ns)
        elif not self._in_rate(session, now_ns):
            self.counts["hurried"] += 1
        elif self._trouble is not None:
            self.counts["faulty"] += 1
        else:
            self._command(session, frame, now_ns)

    def _command(self, session: _Session, frame: Frame, now_ns: int) -> None:
        try:
            command = Command.unpack(frame.body)
        except FrameError:
            self.counts["body"] += 1
            return
        sync = session.channel.sync
        age_ns = sync.oldest_ns(frame.sent_ns, now_ns) if sync.known else None
        if len(command.values) != self.card.action_dim or self._pose is None:
            self.counts["body"] += 1
        elif age_ns is None or age_ns > self.rules.max_age_s * 1e9:
            self.counts["old"] += 1
            self._say("old", session.peer, now_ns, "sends commands that are older than "
                      f"{1e3 * self.rules.max_age_s:.0f} ms when they come: not executed")  # fmt: skip
        else:
            session.taken, session.age_ns = frame.sequence, age_ns
            self._commanded_ns, self._watchdog = now_ns, False
            self.counts["commands"] += 1
            self._motion.aim(np.array(command.values), command.duration_us / 1e6, now_ns / 1e9)

    def _in_rate(self, session: _Session, now_ns: int) -> bool:
        """A token bucket that holds a tenth of a second's frames."""
        rate = self.rules.command_hz
        gained = (now_ns - session.counted_ns) / 1e9 * rate
        session.allowance = min(session.allowance + gained, max(1.0, rate / 10))
        session.counted_ns = now_ns
        if session.allowance < 1:
            return False
        session.allowance -= 1
        return True

    def _read(self, now_ns: int) -> None:
        try:
            pose = np.asarray(self._backend.read(), dtype=np.float64)
            if pose.shape != (self.card.action_dim,) or not np.isfinite(pose).all():
                raise ArmFault(Fault.VENDOR)
        except ArmFault as trouble:
            self._break(trouble, now_ns)
            return
        first, self._pose, self._troubled = self._pose is None, pose, False
        if first:
            self._hold(now_ns)

    def _break(self, trouble: ArmFault, now_ns: int) -> None:
        """The arm has just said so, or says so still."""
        if self._trouble is None:
            self.counts["faults"] += 1
            self._say("fault", (), now_ns, f"the {self.card.robot} reports {trouble}")
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
            except ArmFault as trouble:
                self._trouble, self._troubled = trouble, True

    def _end(self, session: _Session, now_ns: int, why: str) -> None:
        del self._sessions[session.channel.session]
        self._ended.append(session.channel.session)
        if session.live:
            self._say("session", session.peer, now_ns, why)
        if session is self._commander:
            self._commander = None
            self._hold(now_ns)

    def _state(self, session: _Session, now_ns: int) -> bytes:
        assert self._pose is not None
        flags = Flag.HOLDING if self._motion.holding else Flag(0)
        flags |= Flag.WATCHDOG if self._watchdog else Flag(0)
        flags |= Flag.LIMITED if self._motion.limited else Flag(0)
        fault = (0, 0)
        if self._trouble is not None:
            flags |= Flag.FAULT
            fault = (self._trouble.fault, self._trouble.joint)
        pose = tuple(self._pose.tolist())
        return State(pose, now_ns, flags, *fault, session.taken, session.age_ns).pack()

    def _refuse(
        self, reason: Reason, peer: Peer, now_ns: int, nonce: bytes = bytes(16), text: str = ""
    ) -> Outgoing:
        """At most ten a second: never more than a hint to whoever asks wrongly."""
        if now_ns - self._refused_ns < 1e8:
            return []
        self._refused_ns = now_ns
        frame = Frame(Kind.REFUSE, 0, 1, now_ns, body=Refusal(nonce, reason, text).pack())
        return [(protocol.pack(frame, self._own_key), peer)]

    def _say(self, what: str, peer: Peer, now_ns: int, line: str) -> None:
        key = (what, peer)
        if what != "session" and now_ns - self._told.get(key, -_REPEAT_NS) < _REPEAT_NS:
            return
        if len(self._told) > 1000:
            self._told.clear()
        self._told[key] = now_ns
        self.lines.append(f"{_name(peer)} {line}" if peer else line)
        if self._tell is not None:
            self._tell(self.lines[-1])


_WHY = {
    "forged": "sends frames of an open session with a wrong tag: somebody without the key, refused",
    "repeated": "sends frames a second time: the network doubles them, or a capture is replayed; "
    "they are not executed again",
}


def _name(peer: Peer) -> str:
    return ":".join(map(str, peer[:2]))
