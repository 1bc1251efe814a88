"""Where the runs of a sweep are executed: threads of this machine, or the workers of a cluster.

Both are `concurrent.futures` executors, so that the sweep itself does not know which it has. The
cluster is Dask's: schedulers that laboratories have (Slurm, Kubernetes, plain ssh) start its workers
with one command each, it is pure Python, and its executor speaks the same protocol as a thread pool.
Ray does the same for ten times the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...errors import UserError
from ..machine import cores
from .job import Job, Outcome, run_job

_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://.+")
_FIND_S = 10  # a scheduler that does not answer by then is not there


@dataclass(frozen=True)
class Engine:
    """An executor, what it calls with a job, how many it takes at a time, and its description."""

    executor: Executor
    call: Callable[[Job], Outcome]
    slots: int
    words: str


@contextmanager
def local(jobs: int = 1) -> Iterator[Engine]:
    """``jobs`` runs at a time here, each with its share of the cores.

    Raises:
        UserError: fewer than one job.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: must be at least 1")
    threads = max(1, cores() // jobs)
    with ThreadPoolExecutor(jobs, thread_name_prefix="sweep") as executor:
        call = _Call(jobs)
        yield Engine(executor, call, jobs, f"{jobs} at a time, {threads} threads each")


@contextmanager
def cluster(address: str) -> Iterator[Engine]:
    """Workers of a Dask cluster: ``local:2`` starts two here, ``tcp://host:8786`` is a scheduler.

    The workers need this package and must see the folders of the notebook and of ``--out`` under
    the same paths.

    Raises:
        UserError: no such address, no answer, no workers, or Dask is not installed.
    """
    try:
        import distributed
    except ImportError:
        raise UserError(
            "--cluster needs Dask: pip install 'dreamzero[cluster]' -c constraints.txt"
        ) from None
    started = re.fullmatch(r"local:([1-9]\d*)", address)
    if started is None and not _ADDRESS.fullmatch(address):
        raise UserError(
            f"--cluster {address}: must be local:N or a scheduler's address such as tcp://10.0.0.2:8786"
        )
    own: Any = None
    if started is not None:
        own = distributed.LocalCluster(
            n_workers=int(started.group(1)),
            threads_per_worker=1,
            memory_limit=None,  # the notebook is a process of its own; Dask would count nothing
            dashboard_address=None,
            host="127.0.0.1",
        )
    try:
        try:
            client = distributed.Client(own or address, timeout=_FIND_S, set_as_default=False)
        except OSError as error:
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"--cluster {address}: no scheduler answers there ({what})") from None
        with client:
            counts = client.nthreads()
            if not counts:
                raise UserError(f"--cluster {address}: the scheduler has no workers yet")
            slots = sum(counts.values())
            # pure=False: asked again is run again; a worker that dies is replaced once.
            with client.get_executor(pure=False, retries=1) as executor:
                call = _Call(int(started.group(1)) if started else 0)
                yield Engine(executor, call, slots, f"{slots} at a time on {len(counts)} workers")
    finally:
        if own is not None:
            own.close()


class _Call:
    """`run_job` with the number of runs its machine takes at a time; 0: ask the Dask worker."""

    def __init__(self, share: int) -> None:
        self.share = share

    def __call__(self, job: Job) -> Outcome:
        share = self.share
        if not share:
            from distributed import get_worker

            share = get_worker().state.nthreads
        return run_job(job, share)
