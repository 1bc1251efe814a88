"""Scheduling of punctual threads."""

from __future__ import annotations

import sys
import threading

from dreamzero.robots.clock import punctual


def test_the_switch_interval_comes_back_whoever_ends_first() -> None:
    before = sys.getswitchinterval()
    inside, leave = threading.Barrier(3), [threading.Event(), threading.Event()]

    def run(own: threading.Event) -> None:
        with punctual():
            inside.wait(5.0)
            own.wait(5.0)

    threads = [threading.Thread(target=run, args=(event,)) for event in leave]
    for thread in threads:
        thread.start()
    inside.wait(5.0)
    for event, thread in zip(leave, threads, strict=True):
        assert sys.getswitchinterval() < before
        event.set()
        thread.join(5.0)
    assert sys.getswitchinterval() == before
