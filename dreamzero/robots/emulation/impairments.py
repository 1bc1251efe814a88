"""A network that behaves badly on purpose, between a driver and an emulated arm.

The parameters are those of Linux's netem (tc-netem(8)), which needs rights and a kernel module that not every
machine has. A proxy on this machine does the same to the datagrams of UDP and to the bytes of TCP, and
``impaired`` to those of a pseudo-terminal.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields

from ...errors import UserError

# What a lost segment costs a TCP connection at least (Linux' least retransmission timeout).
RETRANSMIT_S = 0.2


@dataclass(frozen=True)
class Impairments:
    """What happens to what is sent, the same in both directions.

    Attributes:
        delay_s: every datagram is under way for so long,
        jitter_s: and up to so much longer, each for itself (they overtake each other).
        loss, duplicate, corrupt: share of datagrams that are lost, come twice, or have one bit flipped.
        reorder: share that is not delayed at all and so overtakes the others.
        seed: of the dice.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, share = (
                getattr(self, field.name),
                field.name not in ("delay_s", "jitter_s", "seed"),
            )
            if value < 0 or (share and value > 1):
                right = "a share, 0 to 1" if share else "0 or more"
                raise UserError(f"impairments: {field.name}={value} must be {right}")

    @property
    def any(self) -> bool:
        """Whether anything is impaired at all."""
        return any(getattr(self, f.name) for f in fields(self) if f.name != "seed")


class Dice:
    """Decides what becomes of each datagram or chunk of bytes, and keeps count.

    Attributes:
        counts: "passed", "lost", "duplicated", "reordered", "corrupted", "blackout".
    """

    def __init__(self, impairments: Impairments) -> None:
        self.impairments = impairments
        self.counts: Counter[str] = Counter()
        self._random = random.Random(impairments.seed)
        self._dark_until = 0.0

    def blackout(self, seconds: float) -> None:
        """Nothing passes for so long from now."""
        self._dark_until = time.monotonic() + seconds

    @property
    def dark_s(self) -> float:
        """How long the blackout still lasts, 0 when there is none."""
        return max(0.0, self._dark_until - time.monotonic())

    def datagram(self, data: bytes) -> list[tuple[float, bytes]]:
        """(seconds until it arrives, bytes) of each copy that arrives."""
        rules, dice = self.impairments, self._random
        if self.dark_s:
            self.counts["blackout"] += 1
            return []
        if dice.random() < rules.loss:
            self.counts["lost"] += 1
            return []
        copies = 1
        if dice.random() < rules.duplicate:
            self.counts["duplicated"] += 1
            copies = 2
        return [(self._delay(), self._corrupted(data)) for _ in range(copies)]

    def chunk(self, data: bytes) -> tuple[float, bytes]:
        """(seconds until it arrives, bytes) of a part of a stream, which loses nothing but time."""
        delay = self._delay() + self.dark_s
        while self._random.random() < self.impairments.loss < 1:
            self.counts["lost"] += 1
            delay += RETRANSMIT_S
        return delay, self._corrupted(data)

    def serial(self, data: bytes) -> bytes:
        """Bytes that arrive of what went over a serial line, where nothing is sent again; waits their delay."""
        if self.dark_s or self._random.random() < self.impairments.loss:
            self.counts["blackout" if self.dark_s else "lost"] += 1
            return b""
        time.sleep(self._delay())
        return self._corrupted(data)

    def _delay(self) -> float:
        rules = self.impairments
        self.counts["passed"] += 1
        if self._random.random() < rules.reorder:
            self.counts["reordered"] += 1
            return 0.0
        return rules.delay_s + self._random.uniform(0.0, rules.jitter_s)

    def _corrupted(self, data: bytes) -> bytes:
        if not data or self._random.random() >= self.impairments.corrupt:
            return data
        self.counts["corrupted"] += 1
        flipped = bytearray(data)
        flipped[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        return bytes(flipped)


def impaired(feed: Callable[[bytes], bytes], dice: Dice) -> Callable[[bytes], bytes]:
    """The electronics behind a serial line (bytes in, bytes out) with impairments both ways."""

    def worse(data: bytes) -> bytes:
        request = dice.serial(data)
        answer = feed(request) if request else b""
        return dice.serial(answer) if answer else b""

    return worse
