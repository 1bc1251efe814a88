"""Which windows come next: shuffled by shard, mixed by weight, and resumable at any step.

Windows of one episode lie together on disk and share frames. So a few episodes are open at a time
and windows are drawn from those at random; when one is used up the next episode is opened. Every
window comes once an epoch. All of this exists ``lanes`` times over, each lane with episodes of its
own, and step g is lane g modulo lanes: a loader that gives each worker its lanes decodes every episode in
one worker only, and what is drawn does not depend on how many workers or ranks there are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from ..errors import UserError


class Sharded(Protocol):
    """Windows by number, and which of them lie together."""

    def __len__(self) -> int: ...
    def shard(self, index: int) -> Hashable: ...


class Draw(NamedTuple):
    """One batch.

    Attributes:
        part: number of the mixture's part it comes from.
        indices: its windows.
        epochs: how often the part had been gone through when each window's episode was opened.
        opened: shards opened for it, each with the windows that are yet to be drawn of it.
    """

    part: int
    indices: list[int]
    epochs: list[int]
    opened: list[list[int]]


@dataclass(frozen=True)
class Part:
    """One kind of batch in a mixture.

    Attributes:
        shards: window numbers, those of one shard together.
        batch: windows a batch.
        weight: how often its turn comes, against the other parts'.
        begins: windows that begin an episode.
        begin: share of each batch that is drawn from ``begins`` (with replacement).
    """

    shards: Sequence[Sequence[int]]
    batch: int
    weight: float = 1.0
    begins: Sequence[int] = ()
    begin: float = 0.0

    @classmethod
    def of(
        cls,
        windows: Sharded,
        batch: int,
        weight: float = 1.0,
        keep: Sequence[int] | None = None,
        begin: float = 0.0,
    ) -> Self:
        """From a set of windows; ``keep`` says which of them (all by default)."""
        numbers = range(len(windows)) if keep is None else keep
        shards: dict[Hashable, list[int]] = {}
        for i in numbers:
            shards.setdefault(windows.shard(i), []).append(int(i))
        if not shards:
            raise UserError("a part of a mixture holds no windows")
        if batch < 1 or not weight > 0 or not 0 <= begin <= 1:
            raise UserError(
                f"a part of a mixture needs batch >= 1, weight > 0 and 0 <= begin <= 1; got {batch}, "
                f"{weight:g}, {begin:g}"
            )
        grouped = list(shards.values())
        return cls(grouped, batch, weight, [own[0] for own in grouped], begin)

    def describe(self) -> list[float]:
        """What must be the same for a state to fit."""
        windows = sum(len(own) for own in self.shards)
        return [len(self.shards), windows, self.batch, self.weight, self.begin]


def split(windows: Sharded, share: float) -> tuple[list[int], list[int]]:
    """(windows to train on, windows held out): the last shards of every recording are held out.

    Args:
        windows: their shards are (recording, episode).
        share: of each recording's episodes, at least one where there are two.
    """
    episodes: dict[Any, list[Any]] = {}
    for i in range(len(windows)):
        shard: Any = windows.shard(i)
        recording, episode = shard
        own = episodes.setdefault(recording, [])
        if not own or own[-1] != episode:
            own.append(episode)
    held: set[Any] = set()
    for recording, own in episodes.items():
        count = max(1, round(share * len(own))) if len(own) > 1 else 0
        held |= {(recording, e) for e in own[len(own) - count :]}
    train = [i for i in range(len(windows)) if windows.shard(i) not in held]
    return train, [i for i in range(len(windows)) if windows.shard(i) in held]


@dataclass
class _Lane:
    """A part as one lane sees it: the shards open now, and how many it has opened."""

    opened: int = 0
    drawn: int = 0
    pool: list[tuple[int, list[int]]] = field(default_factory=list)


class Mixture:
    """An endless, deterministic order of batches over several parts.

    Args:
        parts: kinds of batches; which comes next follows from their weights alone.
        seed: of every shuffle.
        lanes: independent streams; a multiple of the number of workers times that of ranks.
        open_shards: episodes that each lane draws from at a time; more mix better and need more memory.
        rank, world: of a distributed training: each rank gets every ``world``-th batch.

    Raises:
        UserError: no part, or lanes that do not divide among the ranks.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        seed: int = 0,
        lanes: int = 4,
        open_shards: int = 4,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not parts:
            raise UserError("a mixture needs at least one part")
        if lanes < 1 or lanes % world:
            raise UserError(f"{lanes} lanes do not divide among {world} ranks")
        self.parts, self.seed = list(parts), seed
        self.lanes, self.open_shards, self.rank, self.world = lanes, open_shards, rank, world
        self.step = 0
        self._turns = [[0] * len(parts) for _ in range(lanes)]
        self._state = [[_Lane() for _ in parts] for _ in range(lanes)]
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        self._resumed: set[tuple[int, int]] = set()

    def copy(self) -> Mixture:
        """Another one at the same place, over the same parts."""
        other = Mixture(self.parts, self.seed, self.lanes, self.open_shards, self.rank, self.world)
        other.load_state_dict(self.state_dict())
        other._resumed = set(self._resumed)
        return other

    def __iter__(self) -> Iterator[Draw]:
        return self

    def __next__(self) -> Draw:
        """This rank's next batch; the others' are drawn along, so that every rank's state is whole."""
        mine = None
        for rank in range(self.world):
            draw = self._draw(self.step % self.lanes)
            self.step += 1
            mine = draw if rank == self.rank else mine
        assert mine is not None
        return mine

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as plain numbers and lists; the same on every rank."""
        lanes = [
            [{"opened": x.opened, "drawn": x.drawn, "pool": x.pool} for x in lane]
            for lane in self._state
        ]
        state = {"step": self.step, "turns": self._turns, "lanes": lanes, "of": self._describe()}
        copied: dict[str, Any] = json.loads(json.dumps(state))
        return copied

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; UserError if the state is one of another mixture."""
        if state["of"] != self._describe():
            raise UserError(
                "the data differ from those of the saved run (windows, batches, weights, seed or "
                "lanes): resume with the same, or start anew"
            )
        self.step = int(state["step"])
        self._turns = [list(turns) for turns in state["turns"]]
        self._state = [
            [
                _Lane(x["opened"], x["drawn"], [(q, list(left)) for q, left in x["pool"]])
                for x in lane
            ]
            for lane in state["lanes"]
        ]
        self._resumed = {(i, j) for i, lane in enumerate(self._state) for j in range(len(lane))}

    def _describe(self) -> list[Any]:
        described: list[Any] = [part.describe() for part in self.parts]
        return [self.seed, self.lanes, self.open_shards, described]

    def _draw(self, lane: int) -> Draw:
        turns = self._turns[lane]
        part = min(range(len(self.parts)), key=lambda i: ((turns[i] + 1) / self.parts[i].weight, i))
        turns[part] += 1
        own, stream = self.parts[part], self._state[lane][part]
        at_begins = round(own.begin * own.batch)
        # After a resume the shards that were open are so again.
        again = (lane, part) in self._resumed
        self._resumed.discard((lane, part))
        draw = Draw(part, [], [], [list(left) for _, left in stream.pool] if again else [])
        for _ in range(own.batch - at_begins):
            self._draw_window(part, lane, stream, draw)
        chance = random.Random(f"{self.seed} begins {part} {lane} {turns[part]}")
        draw.indices.extend(chance.choice(own.begins) for _ in range(at_begins))
        draw.epochs.extend([self._epoch(part, lane, stream.opened)] * at_begins)
        return draw

    def _draw_window(self, part: int, lane: int, stream: _Lane, draw: Draw) -> None:
        own = self.parts[part]
        while len(stream.pool) < self.open_shards:
            place = stream.opened * self.lanes + lane
            windows = list(own.shards[self._shard(part, place)])
            stream.pool.append((place, windows))
            stream.opened += 1
            draw.opened.append(list(windows))
        chance = random.Random(f"{self.seed} {part} {lane} {stream.drawn}")
        stream.drawn += 1
        number = chance.randrange(sum(len(left) for _, left in stream.pool))
        for slot, (place, left) in enumerate(stream.pool):
            if number < len(left):
                left[number], left[-1] = left[-1], left[number]
                draw.indices.append(left.pop())
                draw.epochs.append(place // len(own.shards))
                if not left:
                    del stream.pool[slot]
                return
            number -= len(left)

    def _epoch(self, part: int, lane: int, opened: int) -> int:
        return (max(opened - 1, 0) * self.lanes + lane) // len(self.parts[part].shards)

    def _shard(self, part: int, place: int) -> int:
        """The shard at a place of the endless sequence of shuffled epochs."""
        count = len(self.parts[part].shards)
        epoch = place // count
        if (part, epoch) not in self._orders:
            stale = [k for k in self._orders if k[0] == part and k[1] < epoch - self.lanes]
            for key in stale:
                del self._orders[key]
            rng = np.random.default_rng([self.seed, part, epoch])
            self._orders[part, epoch] = rng.permutation(count)
        return int(self._orders[part, epoch][place % count])
