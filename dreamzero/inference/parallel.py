"""One engine over several GPUs: first a guidance branch each, then each branch's tokens divided.

Every process runs the same program on the same observations (``torchrun``); all of them end up with
the same chunk. With branches apart, a velocity crosses once an evaluation. With tokens apart
(Jacobs et al. 2023, "DeepSpeed Ulysses"), every process keeps the window of its share of the heads:
queries, keys and values change hands before attention and its output after, all else is local.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import UserError
from .ops import Layout


@dataclass(frozen=True)
class Tokens:
    """The processes among which one branch's tokens, and its heads, are divided."""

    group: dist.ProcessGroup
    rank: int
    size: int

    def counts(self, tokens: int) -> list[int]:
        """Tokens of each process; they differ by one at most."""
        return [len(range(i, tokens, self.size)) for i in range(self.size)]

    def mine(self, tokens: int) -> slice:
        """This process's tokens, consecutive."""
        counts = self.counts(tokens)
        start = sum(counts[: self.rank])
        return slice(start, start + counts[self.rank])

    def layout(self, at: Layout) -> Layout:
        """The same for this process's tokens alone, at the front of a buffer of their own."""
        own = self.mine(at.tokens)
        zero = torch.zeros_like(at.offset)
        return replace(at, cached=0, offset=zero, rope=at.rope[own], groups=at.groups[own])

    def to_heads(self, x: Tensor, tokens: int) -> Tensor:
        """``[b, own tokens, heads, d]`` -> ``[b, all tokens, own heads, d]``."""
        parts = x.unflatten(2, (self.size, -1)).permute(2, 1, 0, 3, 4)
        out = self._exchange(parts.flatten(0, 1), [x.shape[1]] * self.size, self.counts(tokens))
        return out.transpose(0, 1)

    def to_tokens(self, x: Tensor) -> Tensor:
        """``[b, all tokens, own heads, d]`` -> ``[b, own tokens, heads, d]``."""
        counts = self.counts(x.shape[1])
        own = counts[self.rank]
        out = self._exchange(x.transpose(0, 1), counts, [own] * self.size)
        return out.unflatten(0, (self.size, own)).permute(2, 1, 0, 3, 4).flatten(2, 3)

    def gather(self, x: Tensor, tokens: int) -> Tensor:
        """``[b, own tokens, d]`` -> ``[b, all tokens, d]``."""
        parts = x.transpose(0, 1).repeat(self.size, 1, 1)
        out = self._exchange(parts, [x.shape[1]] * self.size, self.counts(tokens))
        return out.transpose(0, 1).contiguous()

    def _exchange(self, x: Tensor, given: list[int], taken: list[int]) -> Tensor:
        out = x.new_empty(sum(taken), *x.shape[1:])
        dist.all_to_all_single(out, x.contiguous(), taken, given, group=self.group)
        return out


@dataclass(frozen=True)
class Share:
    """What one process computes of a session.

    Attributes:
        branch: the guidance branch that it runs, None: all there are.
        peers: one process a branch, among which velocities cross, conditional first.
        tokens: how its branch's tokens are divided, None: not at all.
    """

    branch: int | None = None
    peers: dist.ProcessGroup | None = None
    tokens: Tokens | None = None

    def velocities(self, video: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """This branch's ``[1, ...]`` -> the video of both, conditional first, and its action."""
        if self.peers is None:
            return video, action
        videos = [torch.empty_like(video) for _ in range(2)]
        actions = [torch.empty_like(action) for _ in range(2)]
        dist.all_gather(videos, video.contiguous(), group=self.peers)
        dist.all_gather(actions, action.contiguous(), group=self.peers)
        return torch.cat(videos), actions[0]


class Parallel:
    """All processes of ``torch.distributed``'s default group; made in all of them, in one order."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        half = self.world // 2
        self._half = half
        # Every process has to take part in making every group.
        everyone = dist.new_group(list(range(self.world)))
        self._all = Tokens(everyone, self.rank, self.world)
        self._branch: Tokens | None = None
        self._peers: dist.ProcessGroup | None = None
        if self.world % 2:
            return
        for first in (0, half):
            members = list(range(first, first + half))
            group = dist.new_group(members)
            if self.rank in members and half > 1:
                self._branch = Tokens(group, self.rank - first, half)
        for i in range(half):
            group = dist.new_group([i, i + half])
            if self.rank in (i, i + half):
                self._peers = group

    @cached_property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def share(self, branches: int, heads: int) -> Share:
        """What this process computes of a session with so many branches.

        Raises:
            UserError: the processes, or the heads, do not divide.
        """
        if branches == 2 and self.world % 2:
            raise UserError(
                f"{self.world} processes cannot divide the two branches of guidance: start an even "
                "number, or switch guidance off"
            )
        tokens = self._branch if branches == 2 else self._all
        if tokens is not None and heads % tokens.size:
            raise UserError(
                f"{heads} attention heads do not divide among {tokens.size} processes: start fewer"
            )
        if branches == 1:
            return Share(tokens=tokens)
        return Share(self.rank // self._half, self._peers, tokens)


def start() -> Parallel | None:
    """Join the processes that ``torchrun`` started (NCCL on GPUs, else gloo); None when alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    if not dist.is_initialized():
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if cuda else "gloo")
    return Parallel()
