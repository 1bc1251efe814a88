"""What a server counts, in Prometheus' text format (``GET /metrics``)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# From the quick policies of tests to a first chunk that compiles.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one server, in a registry of their own.

    Args:
        gauges: name -> what it is now, asked when somebody reads: (help text, function).
    """

    def __init__(self, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "dreamzero_requests", "Requests answered", ["endpoint"], registry=self._registry
        )
        self.errors = Counter(
            "dreamzero_errors",
            "Requests and connections refused: auth, busy, protocol, request, internal, slow, full",
            ["kind"],
            registry=self._registry,
        )
        self.contexts = Counter(
            "dreamzero_contexts",
            "Chunks by what became of the context: begun, continued, restarted",
            ["context"],
            registry=self._registry,
        )
        self.evaluations = Counter(
            "dreamzero_evaluations", "Model evaluations of all chunks", registry=self._registry
        )
        self.request_s = Histogram(
            "dreamzero_request_seconds",
            "From a request's last byte to the answer's first",
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self.infer_s = Histogram(
            "dreamzero_infer_seconds",
            "Observing and acting alone",
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        ours: dict[str, tuple[str, Callable[[], float]]] = {
            "tasks": ("asyncio tasks", lambda: len(asyncio.all_tasks())),
            "threads": ("Threads of Python", threading.active_count),
        }
        for name, (text, function) in {**gauges, **ours}.items():
            gauge = Gauge(f"dreamzero_{name}", text, registry=self._registry)
            gauge.set_function(function)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Everything, now; call it on the event loop."""
        return generate_latest(self._registry)
