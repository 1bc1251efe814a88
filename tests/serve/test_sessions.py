"""The computing thread and its queue; who gets a policy when there are too few."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dreamzero.errors import UserError
from dreamzero.serve.sessions import Sessions
from dreamzero.serve.wire import wire
from dreamzero.serve.worker import Busy, Gone, Worker

from .spy import DROID, Spies


def run(work: Callable[[Worker], Awaitable[None]], waiting: int = 4) -> None:
    worker = Worker(waiting)
    try:
        asyncio.run(work(worker))  # type: ignore[arg-type]
    finally:
        assert worker.close(10)


def test_jobs_run_in_order_on_one_thread() -> None:
    async def work(worker: Worker) -> None:
        threads: list[str] = []

        def job(i: int) -> int:
            threads.append(threading.current_thread().name)
            return i

        done = await asyncio.gather(*[worker.run(lambda i=i: job(i)) for i in range(4)])
        assert done == [0, 1, 2, 3] and set(threads) == {"dreamzero-serve"}

    run(work)


def test_a_full_queue_is_said_at_once_and_errors_come_back() -> None:
    async def work(worker: Worker) -> None:
        go, inside = threading.Event(), threading.Event()

        def block() -> None:
            inside.set()
            go.wait(10)

        running = asyncio.create_task(worker.run(block))
        await asyncio.to_thread(inside.wait, 10)
        waiting = [asyncio.create_task(worker.run(lambda: 1 / 0)) for _ in range(2)]
        await asyncio.sleep(0)
        assert worker.length == 3
        with pytest.raises(Busy, match="busy: 2 requests wait"):
            await worker.run(lambda: None)
        go.set()
        await running
        for task in waiting:
            with pytest.raises(ZeroDivisionError):
                await task
        assert worker.length == 0

    run(work, waiting=2)


def test_nobody_computes_for_those_who_have_left() -> None:
    async def work(worker: Worker) -> None:
        with pytest.raises(Gone):
            await worker.run(lambda: pytest.fail("it was run"), lambda: False)

    run(work)


def test_a_job_that_never_ends_does_not_keep_the_worker_open() -> None:
    never = threading.Event()
    worker = Worker(1)

    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await worker.run(lambda: never.wait(60))

    asyncio.run(work())
    assert not worker.close(0.05)
    never.set()
    assert worker.close(10)


def table(limit: int, most: int = 99, idle_s: float = 600.0) -> Any:
    """Run a test's body with a table of sessions and the maker of its policies."""

    def decorate(body: Callable[[Sessions, Spies], Awaitable[None]]) -> Callable[[], None]:
        def test() -> None:
            async def work(worker: Worker) -> None:
                spies = Spies(most=most)
                sessions = Sessions(spies, wire(DROID), worker, limit, idle_s)
                await body(sessions, spies)

            run(work)

        test.__name__, test.__doc__ = body.__name__, body.__doc__
        return test

    return decorate


async def asked(sessions: Sessions, owner: str, name: str) -> Any:
    session = await sessions.claim(owner, name)
    session.busy = False
    return session.episode.policy


@table(limit=2)
async def test_sessions_are_kept_apart_and_policies_reused(
    sessions: Sessions, spies: Spies
) -> None:
    await sessions.warm_up()
    one, two = await asked(sessions, "a", "x"), await asked(sessions, "b", "x")
    assert one is not two and await asked(sessions, "a", "x") is one
    assert len(sessions) == 2 and len(spies.made) == 2
    sessions.release("a")
    assert await asked(sessions, "c", "x") is one and len(spies.made) == 2


@table(limit=2)
async def test_when_all_are_in_use_the_next_is_told(sessions: Sessions, spies: Spies) -> None:
    await asked(sessions, "a", "x"), await asked(sessions, "b", "x")
    with pytest.raises(Busy, match="all 2 sessions are in use"):
        await sessions.claim("c", "x")
    sessions.release("b")
    assert await asked(sessions, "c", "x") is spies.made[1]


@table(limit=9, most=2)
async def test_memory_is_a_limit_too(sessions: Sessions, spies: Spies) -> None:
    await asked(sessions, "a", "x"), await asked(sessions, "b", "x")
    with pytest.raises(Busy, match="all 2 sessions are in use"):
        await sessions.claim("c", "x")


@table(limit=9, most=0)
async def test_a_server_without_memory_for_one_does_not_start(
    sessions: Sessions, spies: Spies
) -> None:
    with pytest.raises(UserError, match="no memory"):
        await sessions.warm_up()


@table(limit=2)
async def test_a_new_name_for_every_episode_costs_no_policy(
    sessions: Sessions, spies: Spies
) -> None:
    other = await asked(sessions, "b", "x")
    for episode in range(20):
        assert await asked(sessions, "a", f"episode {episode}") is spies.made[1]
    assert len(sessions) == 2 and await asked(sessions, "b", "x") is other


@table(limit=3)
async def test_the_oldest_that_is_nobodys_newest_gives_way(
    sessions: Sessions, spies: Spies
) -> None:
    old = await asked(sessions, "a", "1")
    await asked(sessions, "b", "1")
    await asked(sessions, "a", "2")
    assert await asked(sessions, "c", "1") is old
    with pytest.raises(Busy):
        await sessions.claim("d", "1")


@table(limit=1)
async def test_who_comes_back_under_its_name_takes_its_place(
    sessions: Sessions, spies: Spies
) -> None:
    ours, other = str(uuid.uuid4()), str(uuid.uuid4())
    await asked(sessions, "lost connection", ours)
    with pytest.raises(Busy):
        await sessions.claim("new connection", other)
    assert await asked(sessions, "new connection", ours) is spies.made[0]
    assert len(sessions) == 1
    # A name that two robots may well share is no sign of being the same.
    sessions.release("new connection")
    await asked(sessions, "a", "default")
    with pytest.raises(Busy):
        await sessions.claim("b", "default")


@table(limit=1)
async def test_what_is_being_computed_is_not_taken_away(sessions: Sessions, spies: Spies) -> None:
    await sessions.claim("a", "1")
    with pytest.raises(Busy):
        await sessions.claim("a", "2")


@table(limit=1, idle_s=0.05)
async def test_idle_sessions_end(sessions: Sessions, spies: Spies) -> None:
    await asked(sessions, "a", "1")
    await asyncio.sleep(0.1)
    sessions.expire()
    assert len(sessions) == 0
    assert await asked(sessions, "b", "1") is spies.made[0]
    busy = await sessions.claim("b", "1")
    await asyncio.sleep(0.1)
    sessions.expire()
    assert len(sessions) == 1 and busy.busy
