"""One episode on an engine: prompts, the window of what was observed, and evaluations against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import UserError
from ..flow import Guided, SamplerConfig
from ..model.blocks import ContextKV
from ..model.cache import KVCache
from .graphs import Graphs
from .network import Inputs
from .ops import Context

if TYPE_CHECKING:
    from .engine import Engine


@dataclass
class Branch:
    """One guidance branch: its prompt, and what cross-attention reads of it.

    Attributes:
        text: embedding of its prompt, ``[1, l, text_dim]``.
        context: keys and values of every block; empty until the first frame they depend on is seen.
    """

    text: Tensor
    context: list[ContextKV]


class Session:
    """Made by ``Engine.open``. Both guidance branches run in one batch and share one buffer.

    Attributes:
        texts: prompt embeddings ``[1, l, text_dim]`` of all branches, conditional first.
        branches: those that this process runs, conditional first.
        cache: window of all branches, ``[layers, 2, branches, capacity, heads, head_dim]``.
        first: first-frame channels of the window ``[1, c', f, h, w]``, for models that read them.
        evaluations: so far in this chunk.
    """

    def __init__(
        self,
        engine: Engine,
        size: tuple[int, int],
        sampler: SamplerConfig,
        horizon: int,
        size_bytes: int,
    ) -> None:
        self.engine, self.size, self.sampler = engine, size, sampler
        self.horizon, self.bytes = horizon, size_bytes
        self.share = engine.share(sampler.branches)
        self.branches: list[Branch] = []
        self.texts: list[Tensor] = []
        self.cache = self._window()
        self.first: Tensor | None = None
        self.evaluations = 0
        self._contexts: dict[int, list[Context]] = {}
        self._graphs = Graphs() if engine.graphs else None

    def _window(self) -> KVCache:
        model = self.engine.network.model
        both = self.share.branch is None
        cache: KVCache = model.new_cache(self.size, self.sampler.branches if both else 1)
        if self.share.tokens is not None:
            heads = model.config.num_heads // self.share.tokens.size
            cache.buffer = cache.buffer[..., :heads, :].clone()
        return cache

    def close(self) -> None:
        """Give the memory back; the session is over."""
        self.branches, self._contexts, self._graphs = [], {}, None
        self.cache.buffer = self.cache.buffer.new_empty(0)
        self.engine.sessions.discard(self)

    def reset(self, texts: list[Tensor]) -> None:
        """Start an episode: embeddings ``[1, l, text_dim]`` of the prompt (and negative prompt)."""
        before = self.engine.network
        self.engine.refresh()
        if self._graphs is not None and self.engine.network is not before:
            self._graphs = Graphs()
        self.texts = [self.cast(text) for text in texts]
        self.branches = [Branch(text, []) for text in self.texts]
        if self.share.branch is not None:
            self.branches = self.branches[self.share.branch :][:1]
        self.cache.reset()
        self.first = None
        if self.engine.transformer.config.image_dim is None:
            self._read(None)

    def begin(self, features: Tensor | None, first: Tensor | None) -> None:
        """Start a window: CLIP features and channels of its first frame, where the model reads them."""
        self.cache.reset()
        if features is not None:
            self._read(self.cast(features))
        self.first = None if first is None else self.cast(first)

    def _read(self, image: Tensor | None) -> None:
        """Cross-attention's keys and values, once a prompt (and first frame)."""
        text = torch.cat([branch.text for branch in self.branches])
        if image is not None:
            image = image.expand(len(text), -1, -1)
        network = self.engine.network
        context = network.context(text, image)
        if self._graphs is not None:
            context = self._graphs.keep(context)
        count = len(self.branches)
        self._contexts = {
            n: network.prepare([_rows(kv, slice(0, n)) for kv in context])
            for n in range(1, count + 1)
        }
        for i, branch in enumerate(self.branches):
            branch.context = [_rows(kv, slice(i, i + 1)) for kv in context]

    def write(self, latents: Tensor) -> None:
        """Observed latents ``[1, c, f, h, w]`` join the window at timestep 0.

        Raises:
            UserError: of another canvas than the session was opened for.
        """
        network, frames = self.engine.network, latents.shape[2]
        wanted = (1, network.config.out_channels, frames, *self.size)
        if tuple(latents.shape) != wanted:
            raise UserError(
                f"session: latents of shape {list(latents.shape)}; it was opened for {list(wanted)}"
            )
        at = network.layout(self.cache.frames, frames, self.size, 0, 1)
        base = network.base(at, self._channels(frames))
        context = self._contexts[len(self.branches)]
        network.write(latents, base, at, self.cache, context, self.share.tokens)

    def chunk(self, state: Tensor) -> Chunk:
        """Velocities of the next block for ``flow.sample``; ``state [1, 1, s]`` normalised."""
        self.evaluations = 0
        return Chunk(self, state)

    def evaluate(self, given: Inputs, branches: int) -> tuple[Tensor, Tensor]:
        """One evaluation: video ``[branches, c, f, h, w]`` and conditional action ``[1, k, a]``."""
        network = self.engine.network
        self.evaluations += 1
        at = network.layout(
            self.cache.frames, given.video.shape[2], self.size, self.horizon, given.modulation.rows
        )
        if self.share.branch is not None:
            out = network.evaluate(
                given, at, self.cache, self._contexts[1], split=self.share.tokens
            )
            video, action = self.share.velocities(*out)
            return video[:branches], action
        context = self._contexts[branches]
        if self._graphs is None:
            return network.evaluate(given, at, self.cache, context, split=self.share.tokens)
        return self._graphs.evaluate(network, given, at, self.cache, context)

    def info(self) -> dict[str, Any]:
        """What a chunk of this session is worth: tier, and measured errors where it rounds."""
        errors = self.engine.errors
        found: dict[str, Any] = {
            "tier": self.engine.tier(self.sampler),
            "evaluations": self.evaluations,
            "branches": self.sampler.branches,
            "cached_frames": self.cache.frames,
        }
        return found | ({} if errors is None else {"relative_errors": vars(errors)})

    def cast(self, x: Tensor) -> Tensor:
        """To the engine's device and dtype."""
        return x.to(self.engine.device, self.engine.dtype)

    def _channels(self, frames: int) -> Tensor | None:
        """First-frame channels of the ``frames`` behind the cached ones."""
        if self.first is None:
            return None
        return self.first[:, :, self.cache.frames : self.cache.frames + frames]


class Chunk:
    """The guided velocity of one block: what ``flow.sample`` calls.

    What does not change between its evaluations (state, places, first-frame channels) is made once.
    """

    def __init__(self, session: Session, state: Tensor) -> None:
        network = session.engine.network
        self._session, self._network = session, network
        self.fused = session.engine.config.uses("kernels", network.device)
        frames = network.model.dream_frames
        at = network.layout(session.cache.frames, frames, session.size, session.horizon, 1)
        self._base = network.base(at, session._channels(frames))
        self._state = network.state(session.cast(state))

    def inputs(self, video: Tensor, action: Tensor, tv: int, ta: int) -> Inputs:
        """Of one evaluation at integer timesteps."""
        modulation = self._network.modulation(tv, ta)
        return Inputs(video, action, self._base, self._state, modulation, tv)

    def __call__(
        self, video: Tensor, action: Tensor, tv: int, ta: int
    ) -> tuple[Tensor | Guided, Tensor]:
        session, sampler = self._session, self._session.sampler
        guided = sampler.guided(tv)
        given = self.inputs(video, action, tv, ta)
        velocity, actions = session.evaluate(given, 2 if guided else 1)
        if guided:
            return Guided(velocity[:1], velocity[1:], sampler.guidance), actions
        return velocity, actions


def _rows(kv: ContextKV, rows: slice) -> ContextKV:
    text = kv.text[0][rows], kv.text[1][rows]
    return ContextKV(text, None if kv.image is None else (kv.image[0][rows], kv.image[1][rows]))
