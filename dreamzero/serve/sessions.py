"""Who may use the device: sessions, and the policies they take turns on.

A policy (an engine session with its window) is made when first needed, kept, and lent to one session
at a time: making one can cost gigabytes, and compiling one seconds. How many there are is bounded by
``limit`` and by the engine, which refuses one more when the memory is used up. When all are lent, one
gives way: a session that has been idle too long; else one of the same long name, whose client has come
back on another connection before the loss of the first was noticed; else the least recently used one that is
not its connection's newest, for clients name a new session for every episode and never end the old.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from ..errors import UserError
from ..types import Policy
from .episode import Episode
from .wire import Wire
from .worker import Busy, Worker

# A name of so many characters, as a UUID is, belongs to one client; two robots may both be "default".
UNIQUE = 16


@dataclass
class Session:
    """One episode after another of one client.

    Attributes:
        owner: the connection; session ids of different connections have nothing in common.
        busy: a request of it waits or runs.
        used_s: monotonic time of its last request.
    """

    owner: Hashable
    id: str
    episode: Episode
    busy: bool = False
    used_s: float = field(default_factory=time.monotonic)


class Sessions:
    """The table of sessions; used on the event loop only, policies are made by the worker.

    Args:
        make: a new policy; UserError when there is no memory for another.
        limit: policies at most.
        idle_s: a session that was not asked for so long has ended.
    """

    def __init__(
        self,
        make: Callable[[], Policy],
        wire: Wire,
        worker: Worker,
        limit: int,
        idle_s: float,
        real_clock: bool = True,
    ) -> None:
        self._make, self._wire, self._worker = make, wire, worker
        self._limit, self._idle_s, self._real_clock = limit, idle_s, real_clock
        self._made = 0
        self._free: list[Policy] = []
        self._sessions: dict[tuple[Hashable, str], Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    async def warm_up(self) -> None:
        """Make the first policy and run it once through its window.

        Raises:
            UserError: it cannot be made.
        """
        policy = await self._another()
        episode = Episode(policy, self._wire)
        await self._worker.run(episode.warm_up)
        self._free.append(policy)

    async def claim(self, owner: Hashable, session_id: str) -> Session:
        """The session of that name, which is then busy; a new one where there was none.

        Raises:
            Busy: every policy is lent to somebody who may still need it.
        """
        session = self._sessions.get((owner, session_id))
        if session is None:
            policy = await self._policy(owner, session_id)
            episode = Episode(policy, self._wire, self._real_clock)
            session = Session(owner, session_id, episode)
            self._sessions[owner, session_id] = session
        session.busy, session.used_s = True, time.monotonic()
        return session

    def release(self, owner: Hashable, session_id: str | None = None) -> None:
        """End one session of a connection, or all."""
        keys = [key for key in self._sessions if key[0] == owner and session_id in (None, key[1])]
        for key in keys:
            self._free.append(self._sessions.pop(key).episode.policy)

    def expire(self) -> None:
        """End what was idle too long."""
        now = time.monotonic()
        for session in list(self._sessions.values()):
            if not session.busy and now - session.used_s > self._idle_s:
                self.release(session.owner, session.id)

    async def _policy(self, owner: Hashable, session_id: str) -> Policy:
        self.expire()
        if not self._free and self._made < self._limit:
            try:
                return await self._another()
            except Busy:
                raise
            except UserError:
                pass  # the memory is used up: those that are there have to do
        if not self._free:
            self._evict(owner, session_id)
        if not self._free:
            raise Busy(
                f"busy: all {self._made} sessions are in use; try again when one has ended, or "
                "raise --max-sessions if the memory allows"
            )
        return self._free.pop()

    async def _another(self) -> Policy:
        self._made += 1
        try:
            return await self._worker.run(self._make)
        except BaseException:
            self._made -= 1
            raise

    def _evict(self, owner: Hashable, session_id: str) -> None:
        idle = [session for session in self._sessions.values() if not session.busy]
        again = [s for s in idle if s.id == session_id and len(session_id) >= UNIQUE]
        victim = min(again or self._replaced(owner, idle), key=lambda s: s.used_s, default=None)
        if victim is not None:
            self.release(victim.owner, victim.id)

    def _replaced(self, owner: Hashable, idle: list[Session]) -> list[Session]:
        """What is idle and not its connection's newest; ``owner`` is about to get a newer one."""
        newest = {session.owner: session.used_s for session in self._sessions.values()}
        for session in self._sessions.values():
            newest[session.owner] = max(newest[session.owner], session.used_s)
        newest[owner] = math.inf
        return [session for session in idle if session.used_s < newest[session.owner]]
