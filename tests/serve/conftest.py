"""Servers on 127.0.0.1, port 0, that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from dreamzero.serve import ServeConfig, Source, serving
from dreamzero.serve.config import Address

from .spy import Spies

Start = Callable[..., Address]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(source: Source, **config: Any) -> Address:
            return stack.enter_context(serving(source, ServeConfig(port=0, **config)))

        yield begin


@pytest.fixture
def spies() -> Spies:
    return Spies()
