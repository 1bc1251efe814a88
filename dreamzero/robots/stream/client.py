"""The driver's end of the stream, without sockets: the handshake, the newest state, commands and holds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from . import protocol
from .bodies import NONCE_BYTES, Command, Flag, Hello, Refusal, Role, State, Welcome
from .protocol import Frame, FrameError, Kind
from .session import Channel, handshake_keys, session_keys

_HELLO_NS = 100_000_000
_PING_NS = 50_000_000
_HOLD_NS = 30_000_000


class Client:
    """Takes datagrams and the time, gives datagrams back.

    Args:
        robot, count: the card's robot, and how many values its action has.
        secret: from ``load_key``; empty on loopback only.
        role: whether to command or only to observe.
        random: source of the nonce (tests).

    Attributes:
        welcome: the companion's rules, once it has answered.
        refusal: why it will not, if it said so with our key.
        state: the newest one. state_ns: when it came.
        counts: frames that did not count, by cause.
        commanded_ns: when the last COMMAND was made, 0 before the first.
        other_version: version of a peer that speaks another one, 0 if none does.
        over: the companion has ended the session.
    """

    def __init__(
        self,
        robot: str,
        count: int,
        secret: bytes = b"",
        role: Role = Role.COMMAND,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.count, self.role = count, role
        self.welcome: Welcome | None = None
        self.refusal: Refusal | None = None
        self.state: State | None = None
        self.state_ns = 0
        self.channel: Channel | None = None
        self.counts: Counter[str] = Counter()
        self.other_version = 0
        self.over = False
        self._secret = secret
        self._own_key, self._companion_key = handshake_keys(secret)
        self._hello = Hello(random(NONCE_BYTES), role, count, robot)
        self._hellos = 0
        self._sent_ns = self._asked_ns = self.commanded_ns = 0
        self._newest_state = self._hold_sequence = 0

    def poll(self, now_ns: int) -> list[bytes]:
        """What is due by itself: HELLO until it is answered, a HOLD until it is confirmed, PING."""
        if self.channel is None:
            if self._hellos and now_ns - self._asked_ns < _HELLO_NS:
                return []
            self._asked_ns = now_ns
            self._hellos += 1
            frame = Frame(Kind.HELLO, 0, self._hellos, now_ns, body=self._hello.pack())
            return [protocol.pack(frame, self._own_key)]
        if not self.held and now_ns - self._sent_ns >= _HOLD_NS:
            return [self.hold(now_ns)]
        if now_ns - self._sent_ns >= _PING_NS:
            return [self._seal(Kind.PING, b"", now_ns)]
        return []

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take one datagram. Never raises, whatever the bytes are."""
        try:
            self._receive(data, protocol.parse(data), now_ns)
        except FrameError as error:
            self.counts[error.cause] += 1
            if error.cause == "version":
                self.other_version = protocol.version_of(data)

    def command(self, values: tuple[float, ...], duration_s: float, now_ns: int) -> bytes:
        """A COMMAND; takes back a HOLD that is not confirmed yet. Needs a welcome."""
        self._hold_sequence, self.commanded_ns = 0, now_ns
        duration_us = min(round(1e6 * duration_s), 0xFFFFFFFF)
        return self._seal(Kind.COMMAND, Command(values, duration_us).pack(), now_ns)

    def may_command(self, now_ns: int) -> bool:
        """False if the last COMMAND is younger than the companion takes them: more would be dropped there."""
        assert self.welcome is not None
        if now_ns - self.commanded_ns >= 1000 * self.welcome.command_us:
            return True
        self.counts["hurried"] += 1
        return False

    def hold(self, now_ns: int) -> bytes:
        """A HOLD, which ``poll`` repeats until the companion says that it has taken one."""
        confirmed = self.held
        data = self._seal(Kind.HOLD, b"", now_ns)
        assert self.channel is not None
        if confirmed:
            self._hold_sequence = self.channel.sent
        return data

    def bye(self, now_ns: int) -> bytes:
        return self._seal(Kind.BYE, b"", now_ns)

    @property
    def held(self) -> bool:
        """Whether no HOLD waits for its confirmation."""
        taken = self.state.taken if self.state else 0
        return taken >= self._hold_sequence

    def stats(self, now_ns: int) -> dict[str, float]:
        """Of the channel (see ``Channel.stats``), ages in ms, and frames that did not count."""
        if self.channel is None:
            return {}
        state = self.state
        nothing = float("nan")
        sampled_ns = self.sampled_ns
        return self.channel.stats(now_ns) | {
            "state_age_ms": (now_ns - sampled_ns) / 1e6 if sampled_ns else nothing,
            "command_age_ms": state.age_ns / 1e6 if state and state.taken else nothing,
            "corrupt": self.counts["corrupt"],
            "foreign": self.counts["foreign"],
            "watchdog": bool(state and state.flags & Flag.WATCHDOG),
        }

    @property
    def sampled_ns(self) -> int:
        """When the newest state was read at the arm, our clock; 0 before the first."""
        if self.state is None or self.channel is None:
            return 0
        if not self.channel.sync.known:
            return self.state_ns
        return min(self.channel.sync.to_ours(self.state.sampled_ns), self.state_ns)

    def _seal(self, kind: Kind, body: bytes, now_ns: int) -> bytes:
        assert self.channel is not None, "no session: wait for the welcome"
        self._sent_ns = now_ns
        return self.channel.seal(kind, body, now_ns)

    def _receive(self, data: bytes, frame: Frame, now_ns: int) -> None:
        if frame.kind in (Kind.WELCOME, Kind.REFUSE):
            self._answer(data, frame)
        elif self.channel is None or frame.session != self.channel.session:
            self.counts["foreign"] += 1
        elif not self.channel.admit(data, frame, now_ns):
            pass  # the channel has counted why
        elif frame.kind == Kind.BYE:
            self.over = True
        elif frame.kind == Kind.STATE:
            state = State.unpack(frame.body)
            if len(state.values) != self.count:
                raise FrameError("body")
            # The newest wins; an older one that was overtaken has nothing to say any more.
            if frame.sequence > self._newest_state:
                self._newest_state = frame.sequence
                self.state, self.state_ns = state, now_ns

    def _answer(self, data: bytes, frame: Frame) -> None:
        if not protocol.authentic(data, self._companion_key):
            self.counts["other key"] += 1
        elif frame.kind == Kind.REFUSE:
            refusal = Refusal.unpack(frame.body)
            if refusal.nonce == self._hello.nonce and self.state is None:
                self.refusal = refusal
        elif self.channel is None:
            welcome = Welcome.unpack(frame.body)
            if welcome.nonce == self._hello.nonce and frame.session:
                own, companion = session_keys(self._secret, welcome, frame.session)
                self.welcome, self.refusal = welcome, None
                self.channel = Channel(frame.session, own, companion)
                self._sent_ns = 0
