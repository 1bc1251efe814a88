"""The peer's clock in terms of ours, from the four times that every frame carries.

A frame sent at t1 (ours), received at t2, answered at t3 (peer's) and back at t4 (ours) gives the offset
``((t2 - t1) + (t3 - t4)) / 2`` with an error of at most half the delay ``(t4 - t1) - (t3 - t2)``, whatever
each way took (RFC 5905, 8). Queues only ever add delay, so the exchange with the least delay is the most
exact one: NTP's clock filter (RFC 5905, 10; Mills 1991, "Internet Time Synchronization: the Network Time
Protocol"). Here the best of every half second is kept, and of those the one counts whose error bound, grown
with its age, is smallest. Two of them, far apart, bound how fast the clocks drift; the drift is used once that
bound is tighter than what is known of crystals anyway.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_BUCKET_NS = 500_000_000
_BUCKETS = 64
# Two crystals of +-50 ppm run apart by no more than this.
_CRYSTALS = 100e-6


@dataclass(frozen=True)
class _Sample:
    """One exchange: our time of it, offset (peer - ours) and half the delay, ns."""

    at_ns: int
    offset_ns: float
    half_ns: float


class ClockSync:
    """Offset and drift of a peer's clock. All times are ns.

    The bounds hold for constant drift of at most 100 ppm and any delays, equal or not.
    """

    def __init__(self) -> None:
        self._best: deque[_Sample] = deque(maxlen=_BUCKETS)
        self._drift, self._drift_error = 0.0, _CRYSTALS
        # Offsets are kept relative to the first: machines that started months apart fit a float.
        self._base = 0
        self.rtt_ns = 0
        self.least_rtt_ns = 0

    def add(self, t1: int, t2: int, t3: int, t4: int) -> None:
        """One exchange; see the module. An impossible one (negative delay) is ignored."""
        delay = (t4 - t1) - (t3 - t2)
        if delay < 0 or t4 < t1:
            return
        if not self._best:
            self._base = t2 - t1
            self.least_rtt_ns = delay
        self.rtt_ns = delay
        self.least_rtt_ns = min(self.least_rtt_ns, delay)
        offset = ((t2 - t1 - self._base) + (t3 - t4 - self._base)) / 2
        # While the peer held the frame the clocks drifted: part of the error.
        sample = _Sample((t1 + t4) // 2, offset, delay / 2 + _CRYSTALS * (t4 - t1))
        bucket = sample.at_ns // _BUCKET_NS
        for i, old in enumerate(reversed(self._best)):
            if old.at_ns // _BUCKET_NS == bucket:
                if sample.half_ns < old.half_ns:
                    self._best[len(self._best) - 1 - i] = sample
                return
            if i > 2:
                break
        self._best.append(sample)
        self._estimate_drift()

    @property
    def known(self) -> bool:
        """Whether there was an exchange yet; everything below needs one."""
        return bool(self._best)

    @property
    def drift_ppm(self) -> float:
        """How much faster the peer's clock runs, 0 until two exchanges bound it tightly."""
        return self._drift * 1e6

    def offset_ns(self, at_ns: int) -> float:
        """Peer's clock minus ours at our time ``at_ns``."""
        best, age = self._nearest(at_ns)
        return self._base + best.offset_ns + self._drift * age

    def error_ns(self, at_ns: int) -> float:
        """The most that ``offset_ns`` can be wrong."""
        best, age = self._nearest(at_ns)
        return best.half_ns + self._drift_error * abs(age)

    def to_ours(self, peer_ns: int) -> int:
        """Our time at which the peer's clock showed ``peer_ns``."""
        ours = peer_ns - self._base
        best, age = self._nearest(ours)
        return ours - round(best.offset_ns + self._drift * age)

    def oldest_ns(self, peer_ns: int, now_ns: int) -> int:
        """The most time that can have passed since the peer's clock showed ``peer_ns``."""
        return max(0, now_ns - self.to_ours(peer_ns) + round(self.error_ns(now_ns)))

    def _nearest(self, at_ns: int) -> tuple[_Sample, int]:
        best = min(self._best, key=lambda s: s.half_ns + self._drift_error * abs(at_ns - s.at_ns))
        return best, at_ns - best.at_ns

    def _estimate_drift(self) -> None:
        """From the best exchanges of the older and of the newer half."""
        samples = list(self._best)
        middle = len(samples) // 2
        if middle == 0:
            return
        old = min(samples[:middle], key=lambda s: s.half_ns)
        new = min(samples[middle:], key=lambda s: s.half_ns)
        apart = new.at_ns - old.at_ns
        error = (old.half_ns + new.half_ns) / apart if apart > 0 else 1.0
        if error < _CRYSTALS / 2:
            self._drift, self._drift_error = (new.offset_ns - old.offset_ns) / apart, error
        else:
            self._drift, self._drift_error = 0.0, _CRYSTALS
