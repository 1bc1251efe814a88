"""The one thread that computes, and the bounded queue before it.

A connection is asked for one thing at a time, so first come, first served is fair among connections.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from ..errors import UserError

T = TypeVar("T")
_Job = tuple[
    Callable[[], Any], Callable[[], bool], asyncio.AbstractEventLoop, "asyncio.Future[Any]"
]


class Busy(UserError):
    """No room now; the same request may be taken later."""


class Gone(Exception):
    """Whoever asked has left before it was their turn."""


class Worker:
    """Runs jobs of an event loop on a thread of its own.

    The thread is a daemon: a computation that never ends must not keep a server from ending.

    Args:
        waiting: jobs that may wait behind the running one.
    """

    def __init__(self, waiting: int) -> None:
        self._jobs: queue.Queue[_Job | None] = queue.Queue(waiting)
        self._running = False
        self._thread = threading.Thread(target=self._work, name="dreamzero-serve", daemon=True)
        self._thread.start()

    @property
    def length(self) -> int:
        """Jobs that wait or run."""
        return self._jobs.qsize() + self._running

    async def run(self, job: Callable[[], T], wanted: Callable[[], bool] = lambda: True) -> T:
        """What ``job()`` returns or raises.

        Args:
            wanted: asked when its turn has come.

        Raises:
            Busy: the queue is full.
            Gone: it was no longer wanted.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        try:
            self._jobs.put_nowait((job, wanted, loop, future))
        except queue.Full:
            raise Busy(
                f"busy: {self._jobs.maxsize} requests wait already; try again in a moment"
            ) from None
        return await future

    def close(self, timeout_s: float) -> bool:
        """End after the running job; False if that takes longer than ``timeout_s``."""
        with suppress(queue.Full):
            self._jobs.put(None, timeout=timeout_s)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, wanted, loop, future = item
            self._running = True
            result, error = None, None
            try:
                if not wanted():
                    raise Gone
                result = job()
            except Exception as raised:  # noqa: BLE001  raised again where it is awaited
                error = raised
            self._running = False
            with suppress(RuntimeError):  # the loop has been closed: nobody waits
                loop.call_soon_threadsafe(_settle, future, result, error)
            # Nothing of a job may outlive it here: it holds frames, and perhaps a policy.
            del item, job, wanted, future, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
