"""Several processes on one machine without a launcher: this one is the first and starts the others.

On two cores of an AMD EPYC a step of ``tiny`` took longer with two threads than with one, while two
trainings beside each other kept their pace: so it is processes that share a step. For GPUs and several
machines there are torchrun and accelerate.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import UserError
from .config import TrainSettings

MOST = 4  # processes that are started unasked
SHORT = 200  # steps below which starting them costs more than they gain


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launched() -> bool:
    """Whether this process is one of several already (torchrun, accelerate, or ``together``)."""
    return "RANK" in os.environ


def choose(wanted: int | None, settings: TrainSettings, device: str) -> int:
    """How many processes this one should be the first of.

    Args:
        wanted: None: one a core on a CPU, up to ``MOST`` and to what the batches can be cut into.

    Raises:
        UserError: fewer than one, or several for GPUs.
    """
    if wanted is not None and wanted < 1:
        raise UserError(f"--processes {wanted}: must be at least 1")
    if launched():
        if wanted not in (None, int(os.environ.get("WORLD_SIZE", "1"))):
            raise UserError("--processes: a launcher has started them; leave it out")
        return 1
    if device != "cpu":
        if wanted not in (None, 1):
            raise UserError(
                f"--processes {wanted} --device {device}: start GPUs with "
                f"`torchrun --nproc_per_node {wanted} -m dreamzero train ...`"
            )
        return 1
    if wanted is not None:
        return wanted
    if settings.steps < SHORT:
        return 1
    batches = [s.batch for s in (settings.full, settings.first) if s.batch]
    return max(1, min(cores(), MOST, *(b // settings.accumulate for b in batches)))


@contextmanager
def together(count: int, arguments: Sequence[str], threads: int) -> Iterator[None]:
    """While the block runs, ``count - 1`` more processes run ``dreamzero`` with these arguments.

    Args:
        threads: of each.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(threads),
    }
    others = []
    before = dict(os.environ)
    try:
        for rank in range(1, count):
            own = {**before, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", "dreamzero", *arguments]
            others.append(subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL))
        os.environ.update(shared, RANK="0", LOCAL_RANK="0")
        yield
        for other in others:
            other.wait(60)
    finally:
        os.environ.clear()
        os.environ.update(before)
        for other in others:
            if other.poll() is None:
                other.kill()
            other.wait()
        _forget()


def _forget() -> None:
    """Leave no process group and no accelerate state behind: a next training may be alone."""
    import torch.distributed
    from accelerate.state import AcceleratorState

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)
