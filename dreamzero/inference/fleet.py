"""One model in many places at once: one forward pass for all, for closed-loop evaluation and training.

A robot has one policy and cares about the time of a chunk; a thousand simulated scenes care about chunks
a second. Rows do not see each other: each acts as ``WorldActionPolicy`` of its own seed would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..data.canvas import compose
from ..errors import UserError
from ..flow import Guided, SamplerConfig, sample_block
from ..model import conditioning
from ..model.blocks import ContextKV
from ..model.bundle import WorldActionModel
from ..model.cache import KVCache
from ..model.codecs import CodecCache, to_float, to_uint8
from .config import FAST
from .policy import able


@dataclass
class Fleet:
    """Acts in n places that are in step: all have executed equally many chunks.

    Args:
        model: as for ``WorldActionPolicy``, of one view; so are embodiment, sampler, dream,
            negative_prompt and memory_blocks.

    Raises:
        UserError: a robot without actions; a sampler that decides by the velocities of a single chunk
            (``reuse``), which rows would have to agree on; a model that reads its first frame twice.
    """

    model: WorldActionModel
    embodiment: str | None = None
    sampler: SamplerConfig = FAST
    dream: bool = False
    negative_prompt: str | None = None
    memory_blocks: int | None = None
    _rows: list[torch.Generator] = field(default_factory=list, init=False)
    _context: list[ContextKV] = field(default_factory=list, init=False)
    _state: np.ndarray = field(init=False)  # [n, s], measured
    _sent: Tensor = field(init=False)  # [b, 1, s], normalised, of all branches

    def __post_init__(self) -> None:
        self.card, self._memory = able(self.model, self.embodiment, self.dream, self.memory_blocks)
        transformer = self.model.transformer
        if not self.suits(self.model, self.sampler):
            raise UserError(
                "a fleet takes no sampler with dynamic reuse, and no model that reads its first frame "
                "beside every latent: run one policy at a time"
            )
        self.normalizer = self.model.normalizer(self.embodiment)
        weight = transformer.proj_out.weight
        self.device, self.dtype = weight.device, weight.dtype

    @staticmethod
    def suits(model: WorldActionModel, sampler: SamplerConfig) -> bool:
        """Whether a fleet can do what a policy of this model and sampler does."""
        network = model.transformer
        twice = conditioning.reads_first_frame(network) or conditioning.reads_image(network)
        return sampler.reuse is None and not twice

    @torch.inference_mode()
    def reset(self, prompts: Sequence[str], seeds: Sequence[int]) -> None:
        """Start one episode a row: its instruction, and the seed of its noise."""
        words = [self.card.render_prompt(p) for p in prompts]
        if self.sampler.branches == 2:
            negative = self.negative_prompt
            words += [self.model.negative_prompt if negative is None else negative] * len(prompts)
        text = self.model.text_encoder.encode(words).to(self.device, self.dtype)
        self._context = self.model.transformer.encode_context(text)
        self._rows = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._codec: CodecCache | None = None
        self._decoder: CodecCache | None = None
        self._cache = self._new_cache()

    @property
    def frames_needed(self) -> int:
        """Newest frames that ``observe`` wants next: 1 where a window starts, else a whole block."""
        per_block = self.model.transformer.config.frames_per_block
        full = self._cache.frames > self._memory * per_block
        return 1 if self._codec is None or full else self.card.frames_per_block

    @torch.inference_mode()
    def observe(self, frames: np.ndarray, state: np.ndarray) -> None:
        """Write what was seen into the windows.

        Args:
            frames: uint8 ``[n, t, h, w, 3]`` of the card's view, t at least ``frames_needed``;
                one frame starts the window anew.
            state: float32 ``[n, s]``, SI, now.
        """
        count = min(self.frames_needed, frames.shape[1])
        canvas = [compose([f[-count:]], self.card.layout, self.card.canvas_px) for f in frames]
        video = torch.cat([to_float(c).unsqueeze(0) for c in canvas]).to(self.device)
        if count == 1:
            self._codec = self._decoder = None
            self._cache.reset()
        latents, self._codec = self.model.codec.encode_next(video, self._codec)
        if self.dream:
            _, self._decoder = self.model.codec.decode_next(latents, self._decoder)
        self._state = state
        times = torch.zeros(self._batch, latents.shape[2], device=self.device)
        self.model.transformer.step(
            self._branches(latents.to(self.dtype)), times, self._context, self._cache
        )

    @torch.inference_mode()
    def act(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Absolute actions ``[n, k, a]`` of the next chunk, SI; and with ``dream`` its video, uint8
        ``[n, t, h, w, 3]``."""
        transformer, config = self.model.transformer, self.model.transformer.config
        size = self.model.latent_size(self.embodiment)
        shape = (config.out_channels, transformer.dream_frames, *size)
        noise = [
            (torch.randn(1, *shape, generator=g),
             torch.randn(1, self.card.horizon, config.action_dim, generator=g))
            for g in self._rows
        ]  # fmt: skip
        video, action = (torch.cat(part).to(self.device) for part in zip(*noise, strict=True))
        normal = np.stack([self.normalizer.state(s) for s in self._state])
        state = torch.zeros(len(normal), 1, config.state_dim)
        state[:, 0, : normal.shape[1]] = torch.from_numpy(normal)
        self._sent = self._branches(state.to(self.device, self.dtype))
        latents, found = sample_block(config.objective, self._evaluate, video, action, self.sampler)
        found = found[:, :, : self.card.action_dim].float().cpu()
        actions = [
            self.normalizer.unaction(row, s)
            for row, s in zip(found.numpy(), self._state, strict=True)
        ]
        dreamed = None
        if self.dream:
            decoded, _ = self.model.codec.decode_next(latents, self._decoder)
            dreamed = np.stack([to_uint8(row) for row in decoded])
        return np.stack(actions), dreamed

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, before the next ``observe``."""
        n = len(self._rows)
        index = torch.tensor([b * n + r for b in range(self.sampler.branches) for r in rows])
        index = index.to(self.device)
        self._context = [
            ContextKV((kv.text[0][index], kv.text[1][index]), None) for kv in self._context
        ]
        self._rows = [self._rows[r] for r in rows]
        old, self._cache = self._cache, self._new_cache()
        self._cache.buffer.copy_(old.buffer[:, :, index])
        self._cache.frames, self._cache.length = old.frames, old.length
        own = torch.tensor(list(rows), device=self.device)
        self._codec, self._decoder = _pick(self._codec, own), _pick(self._decoder, own)

    @property
    def _batch(self) -> int:
        return len(self._rows) * self.sampler.branches

    def _new_cache(self) -> KVCache:
        size = self.model.latent_size(self.embodiment)
        return self.model.transformer.new_cache(size, self._batch)

    def _branches(self, x: Tensor) -> Tensor:
        """Rows once for each branch of guidance."""
        return torch.cat([x] * self.sampler.branches) if self.sampler.branches > 1 else x

    def _evaluate(
        self, video: Tensor, action: Tensor, tv: int, ta: int
    ) -> tuple[Tensor | Guided, Tensor]:
        rows = len(video)
        video, action = (self._branches(x.to(self.dtype)) for x in (video, action))
        velocity, actions = self.model.transformer.step(
            video,
            torch.full((len(video), video.shape[2]), float(tv), device=self.device),
            self._context,
            self._cache,
            action,
            torch.full(action.shape[:2], float(ta), device=self.device),
            self._sent,
        )
        assert actions is not None
        velocity, actions = velocity.float(), actions[:rows].float()
        if self.sampler.guided(tv):
            return Guided(velocity[:rows], velocity[rows:], self.sampler.guidance), actions
        return velocity[:rows], actions


def _pick(kept: CodecCache | None, rows: Tensor) -> CodecCache | None:
    """Some rows of what a codec remembers: tensors, whose first axis is the batch, and nothings."""
    if kept is None:
        return None
    state = (x[rows] if isinstance(x, Tensor) else x for x in kept.state)
    return replace(kept, state=tuple(state))
