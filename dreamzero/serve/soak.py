"""A server under load for as long as wanted: does it stay quick, does it leak, does it outlive its guests?

    report = soak(600)  # ten minutes, eight clients against a server process of its own
    assert report.exit_status == 0 and not report.errors

Of the clients most drive episode after episode as robots do, one sends and reads at a crawl, and every
fourth breaks the protocol in a new way each time. Latencies are those of the first kind.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import embodiments
from ..errors import UserError
from .guests import Book, Guest


@dataclass(frozen=True)
class Sample:
    """The server process at one instant."""

    time_s: float
    rss_mib: float
    fds: int
    threads: int
    tasks: int
    sessions: int
    connections: int


@dataclass
class Report(Book):
    """What a soak found; all is well if ``errors`` is empty and nothing grows.

    Attributes:
        samples: of the server process, from the first second to the last.
        exit_status: of the server after SIGTERM; 0 is a graceful end.
        log: the server's, its last lines.
    """

    seconds: float = 0.0
    clients: int = 0
    samples: list[Sample] = field(default_factory=list)
    exit_status: int | None = None
    log: str = ""

    def percentile_ms(self, percent: float) -> float:
        """Of the latencies; NaN if there are none."""
        return float(np.percentile(self.latency_ms, percent)) if self.latency_ms else float("nan")

    def grown(self, what: str = "rss_mib") -> float:
        """Median of a figure in the last fifth of the samples, less that in the second fifth: the first
        one fills pools and caches. NaN of fewer than ten samples."""
        fifth = len(self.samples) // 5
        if fifth < 2:
            return float("nan")
        values = [getattr(sample, what) for sample in self.samples]
        return float(np.median(values[-fifth:]) - np.median(values[fifth : 2 * fifth]))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; latencies as percentiles."""
        shown = {f"p{p}_ms": self.percentile_ms(p) for p in (50, 90, 99, 100)}
        counted = {"errors": dict(self.errors), "mischief": dict(self.mischief)}
        kept = ("seconds", "clients", "slow", "exit_status", "log")
        return {
            "chunks": len(self.latency_ms),
            **shown,
            **{name: getattr(self, name) for name in kept},
            **counted,
            "grown": {name: self.grown(name) for name in ("rss_mib", "fds", "threads", "tasks")},
            "samples": [asdict(sample) for sample in self.samples],
        }


def soak(
    seconds: float,
    clients: int = 8,
    policy: str = "hold",
    embodiment: str = "droid",
    interval_s: float = 1.0,
    pause_s: float = 0.02,
) -> Report:
    """Run a server process and its clients, and look at it every ``interval_s``.

    Args:
        policy, embodiment: what the server is started with.
        pause_s: what a robot does between two chunks.

    Raises:
        UserError: the server does not start.
    """
    card = embodiments.get(embodiment)
    report, stop, lock = (
        Report(seconds=seconds, clients=clients),
        threading.Event(),
        threading.Lock(),
    )
    with _server(policy, embodiment, clients, report) as (process, uri):
        guests = [Guest(n, uri, card, pause_s, report, lock, stop) for n in range(clients)]
        for guest in guests:
            guest.start()
        try:
            _watch(process, uri, seconds, interval_s, report)
        finally:
            stop.set()
            for guest in guests:
                guest.join()
    return report


@contextmanager
def _server(
    policy: str, embodiment: str, clients: int, report: Report
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "dreamzero", "serve", "--policy", policy, "--port", "0"]
    # Twice as many: one that has vanished is in the server's books until its chunk is done.
    command += ["--embodiment", embodiment, "--max-sessions", str(2 * clients), "--json"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        with path.open("w") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise UserError(f"the server did not start: {path.read_text()[-300:]}")
            yield process, json.loads(line)["uri"]
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                report.exit_status = process.wait(60)
            finally:
                process.kill()
                process.stdout.close()
                report.log = path.read_text()[-2000:]


def _watch(
    process: subprocess.Popen[str], uri: str, seconds: float, interval_s: float, report: Report
) -> None:
    import psutil

    seen, began_s = psutil.Process(process.pid), time.monotonic()
    while (now_s := time.monotonic() - began_s) < seconds:
        gauges = _gauges(uri)
        with seen.oneshot():
            rss, fds, threads = seen.memory_info().rss, seen.num_fds(), seen.num_threads()
        named = (gauges.get(f"dreamzero_{n}", -1) for n in ("tasks", "sessions", "connections"))
        report.samples.append(Sample(now_s, rss / 2**20, fds, threads, *map(int, named)))
        time.sleep(min(interval_s, max(0.0, seconds - now_s)))


def _gauges(uri: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http{uri.removeprefix('ws')}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {k: float(v) for k, v in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}
