"""A kernel as front ends start one, for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def started_kernel(**options: Any) -> Iterator[Any]:
    """A blocking client of a new ipykernel; ``options`` (cwd, env) are those of its process."""
    from jupyter_client import KernelManager

    with tempfile.TemporaryDirectory(prefix="dreamzero-") as sockets:
        manager = KernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        manager.start_kernel(**options)
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        yield client
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
