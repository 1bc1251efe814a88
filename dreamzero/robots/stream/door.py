"""Who may speak to a companion: sessions, proofs, refusals, and what somebody should be told of them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import protocol
from .backend import Rules
from .bodies import NONCE_BYTES, Hello, Reason, Refusal, Role, Welcome
from .protocol import Frame, FrameError, Kind
from .session import Channel, handshake_keys, session_keys

Peer = tuple[Any, ...]
Outgoing = list[tuple[bytes, Peer]]
_SESSIONS = 8
_REPEAT_NS = 10_000_000_000
_REFUSE_NS = 100_000_000


@dataclass
class Session:
    """One driver. ``live`` once it has proven its keys; ``taken`` and ``age_ns`` go into its states."""

    peer: Peer
    role: int
    welcome: Welcome
    channel: Channel
    heard_ns: int
    live: bool = False
    taken: int = 0
    age_ns: int = 0
    _allowance: float = 0.0
    _counted_ns: int = 0

    def in_rate(self, most_hz: float, now_ns: int) -> bool:
        """Whether one more command may be taken: a token bucket that holds a tenth of a second's."""
        gained = (now_ns - self._counted_ns) / 1e9 * most_hz
        self._allowance = min(self._allowance + gained, max(1.0, most_hz / 10))
        self._counted_ns = now_ns
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


class Heard(NamedTuple):
    """An authentic frame that was not seen before. ``first``: the session is live from now on."""

    session: Session
    frame: Frame
    first: bool


class Door:
    """Lets in drivers that have the key; at most one commands, a few others look on.

    Args:
        robot, count: what is behind it.
        secret: see ``load_key``.
        rules: announced in WELCOME.
        tell: see ``Companion``.
        random: source of nonces and session numbers.

    Attributes:
        sessions: by number, those that wait for their proof included.
        commander: the one that commands.
        counts: frames that were not let in, by cause.
        lines: the newest that were told.
    """

    def __init__(
        self,
        robot: str,
        count: int,
        secret: bytes,
        rules: Rules,
        tell: Callable[[str], None] | None,
        random: Callable[[int], bytes],
    ) -> None:
        self.sessions: dict[int, Session] = {}
        self.commander: Session | None = None
        self.counts: Counter[str] = Counter()
        self.lines: deque[str] = deque(maxlen=100)
        self._robot, self._count, self._secret, self._rules = robot, count, secret, rules
        self._tell, self._random = tell, random
        self._driver_key, self._own_key = handshake_keys(secret)
        self._refused_ns = -_REFUSE_NS
        self._told: dict[tuple[str, Peer], int] = {}
        self._ended: deque[int] = deque(maxlen=_SESSIONS)

    @property
    def live(self) -> list[Session]:
        """Sessions that get states. (A copy first: other threads ask for reports.)"""
        return [session for session in list(self.sessions.values()) if session.live]

    def receive(self, data: bytes, peer: Peer, now_ns: int) -> tuple[Outgoing, Heard | None]:
        """Answers to one datagram, and what was heard. Never raises, whatever the bytes are."""
        try:
            frame = protocol.parse(data)
            if frame.kind == Kind.HELLO:
                return self._hello(data, frame, peer, now_ns), None
        except FrameError as error:
            self.counts[error.cause] += 1
            if error.cause != "version":
                return [], None
            other = protocol.version_of(data)
            self.say("version", peer, now_ns, other=other, own=protocol.VERSION)
            return self._refuse(Reason.VERSION, peer, now_ns), None
        session = self.sessions.get(frame.session)
        if session is None or session.peer != peer:
            if frame.session in self._ended:
                self.counts["ended"] += 1  # it was still under way
                return [], None
            self.counts["foreign"] += 1
            whose = f"is {name(session.peer)}'s" if session is not None else "is not open here"
            self.say("foreign", peer, now_ns, session=frame.session, whose=whose)
            return [], None
        before = session.channel.counts.copy()
        if not session.channel.admit(data, frame, now_ns):
            for cause in session.channel.counts - before:
                self.counts[cause] += 1
                self.say(cause, peer, now_ns)
            return [], None
        session.heard_ns = now_ns
        if session.live:
            return [], Heard(session, frame, False)
        if session.role == Role.COMMAND:
            if self.commander is not None:
                # Two asked while the arm was free, and the other was quicker.
                del self.sessions[frame.session]
                return self._refuse(Reason.BUSY, peer, now_ns, session.welcome.nonce), None
            self.commander = session
        session.live = True
        what = "commands" if session is self.commander else "observes"
        self.say(what, peer, now_ns, robot=self._robot)
        return [], Heard(session, frame, True)

    def end(self, session: Session, why: str, now_ns: int) -> None:
        """The session is over: "left" or "silent"."""
        del self.sessions[session.channel.session]
        self._ended.append(session.channel.session)
        if session.live:
            self.say(why, session.peer, now_ns)
        if session is self.commander:
            self.commander = None

    def say(self, what: str, peer: Peer, now_ns: int, **details: Any) -> None:
        """Tell one line about a peer, the same at most every 10 s."""
        key = (what, peer)
        if now_ns - self._told.get(key, -_REPEAT_NS) < _REPEAT_NS:
            return
        if len(self._told) > 1000:
            self._told.clear()
        self._told[key] = now_ns
        self.lines.append(f"{name(peer)} {_LINES[what].format(**details)}".lstrip())
        if self._tell is not None:
            self._tell(self.lines[-1])

    def _hello(self, data: bytes, frame: Frame, peer: Peer, now_ns: int) -> Outgoing:
        if not protocol.authentic(data, self._driver_key):
            self.counts["forged"] += 1
            self.say("key" if self._secret else "no key", peer, now_ns)
            return self._refuse(Reason.KEY, peer, now_ns)
        hello = Hello.unpack(frame.body)
        if (hello.robot, hello.count) != (self._robot, self._count):
            mine = f"a {self._robot} of {self._count} values"
            self.say("arm", peer, now_ns, theirs=f"a {hello.robot} of {hello.count}", mine=mine)
            return self._refuse(Reason.ARM, peer, now_ns, hello.nonce, mine)
        asked = (hello.nonce, peer)
        known = (s for s in self.sessions.values() if (s.welcome.nonce, s.peer) == asked)
        session = next(known, None)
        if session is None and hello.role == Role.COMMAND and self.commander is not None:
            who = name(self.commander.peer)
            self.say("busy", peer, now_ns, who=who)
            return self._refuse(Reason.BUSY, peer, now_ns, hello.nonce, who)
        session = session or self._open(hello, peer, now_ns)
        if session is None:
            return self._refuse(Reason.FULL, peer, now_ns, hello.nonce)
        number, body = session.channel.session, session.welcome.pack()
        echo = protocol.Echo(frame.sequence, 1, frame.sent_ns, now_ns)
        answer = Frame(Kind.WELCOME, number, 1, now_ns, echo, body)
        return [(protocol.pack(answer, self._own_key), peer)]

    def _open(self, hello: Hello, peer: Peer, now_ns: int) -> Session | None:
        """A session that waits for its first frame; a HELLO alone may be an old one, replayed."""
        if len(self.sessions) >= _SESSIONS:
            waiting = [s for s in self.sessions.values() if not s.live]
            if not waiting:
                return None
            del self.sessions[min(waiting, key=lambda s: s.heard_ns).channel.session]
        rules = self._rules
        times = (rules.watchdog_s, rules.max_age_s, 1 / rules.state_hz, 1 / rules.command_hz)
        nonce = self._random(NONCE_BYTES)
        welcome = Welcome(hello.nonce, nonce, *(round(1e6 * t) for t in times))
        number = int.from_bytes(self._random(8), "little") or 1
        theirs, ours = session_keys(self._secret, welcome, number)
        session = Session(peer, hello.role, welcome, Channel(number, ours, theirs), now_ns)
        self.sessions[number] = session
        return session

    def _refuse(
        self, reason: Reason, peer: Peer, now_ns: int, nonce: bytes = bytes(16), text: str = ""
    ) -> Outgoing:
        """At most ten a second, so that nobody can use them against others."""
        if now_ns - self._refused_ns < _REFUSE_NS:
            return []
        self._refused_ns = now_ns
        frame = Frame(Kind.REFUSE, 0, 1, now_ns, body=Refusal(nonce, reason, text).pack())
        return [(protocol.pack(frame, self._own_key), peer)]


def name(peer: Peer) -> str:
    """``host:port``."""
    return ":".join(map(str, peer[:2]))


# What somebody should know, after the address of whom it is about.
_LINES = {
    "commands": "commands the {robot}",
    "observes": "observes the {robot}",
    "left": "has left",
    "silent": "has fallen silent",
    "busy": "asks for the arm, which {who} commands",
    "arm": "asks for {theirs}; this is {mine}",
    "version": "speaks version {other} of the stream, this companion {own}: bring both ends to the same "
    "release",
    "key": "asks for a session with another key: are the two key files the same?",
    "no key": "asks for a session with a key; this companion has none",
    "forged": "sends frames of an open session with a wrong tag: noise, or somebody without the key; refused",
    "foreign": "sends frames of session {session:#x}, which {whose}: a capture that is replayed, or a driver "
    "that has to reconnect",
    "repeated": "sends frames a second time: the network doubles them, or a capture is replayed; they are "
    "not executed again",
    "old": "sends commands that are older than {most:.0f} ms when they come: not executed",
    "fault": "the {robot} reports {trouble}",
}
