"""Scheduling of punctual threads."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from dreamzero.robots.clock import punctual


def test_the_switch_interval_comes_back_whoever_ends_first() -> None:
    before = sys.getswitchinterval()
    first, second = ExitStack(), ExitStack()
    first.enter_context(punctual())
    assert sys.getswitchinterval() < before
    second.enter_context(punctual())
    first.close()
    assert sys.getswitchinterval() < before
    second.close()
    assert sys.getswitchinterval() == before
