"""The world action model as a policy: observe, dream and act, write back what really happened.

Order of one episode (MODEL.md 5):

    reset(prompt)              the prompt's embedding, empty cache
    observe(first frame)       what the window's first frame tells (see ``conditioning``); its latent
                               is written to the cache at timestep 0
    act()                      noise -> video and actions of the next block
    observe(8 frames)          the *observed* frames take the place of the dreamed ones
    ...                        after the last block of the window the cache starts again from the
                               newest frame
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.canvas import compose
from ..errors import UserError
from ..flow import SamplerConfig, guide, sample
from ..model import conditioning
from ..model.blocks import ContextKV
from ..model.bundle import WorldActionModel
from ..model.cache import KVCache
from ..model.codecs import to_float, to_uint8
from ..shipped import find
from ..types import ActionChunk

# Four steps and no guidance: what the small models need, at a few milliseconds a step.
FAST = SamplerConfig(steps=4, guidance=1.0)


@dataclass
class _Branch:
    """One guidance branch: what it reads and what it remembers.

    Attributes:
        text: embedding of its prompt, ``[1, l, text_dim]``.
        context: cross-attention keys and values; empty until the first frame they depend on is seen.
    """

    text: Tensor
    context: list[ContextKV]
    cache: KVCache


@dataclass
class WorldActionPolicy:
    """Runs a model closed loop on one robot.

    Args:
        model: what ``WorldActionModel.load`` returns.
        embodiment: name of the robot's card; None if the model knows just one robot.
        sampler: steps, guidance, step mask, decoupled schedule.
        seed: of the initial noise; an episode repeats exactly after ``reset``.
        dream: decode the predicted video into ``ActionChunk.video`` (costs a decode a chunk).
        negative_prompt: of the other branch of guidance; None takes the model's.
        memory_blocks: observed blocks kept in the window; None takes the card's.
    """

    model: WorldActionModel
    embodiment: str | None = None
    sampler: SamplerConfig = FAST
    seed: int = 0
    dream: bool = False
    negative_prompt: str | None = None
    memory_blocks: int | None = None
    _branches: list[_Branch] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.card = self.model.card(self.embodiment)
        if not self.card.has_action:
            raise UserError(f"{self.card.name} has no actions: it was seen on video only")
        conditioning.check(self.model)
        # With more blocks observed there would be no room to predict another one.
        most = self.card.blocks - 1
        wanted = self.card.memory_blocks if self.memory_blocks is None else self.memory_blocks
        self._memory = most if wanted is None else wanted
        if not 0 <= self._memory <= most:
            raise UserError(f"memory_blocks is {self._memory}; the window has room for 0 to {most}")
        self.normalizer = self.model.normalizer(self.embodiment)
        config, weight = self.model.transformer.config, self.model.transformer.proj_out.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.frames_per_block = config.frames_per_block
        self._reads_image = config.image_dim is not None
        self._reads_first = config.in_channels > config.out_channels
        self._first: Tensor | None = None
        self._size = self.model.latent_size(self.embodiment)
        self._codec_cache: Any = None
        self._decoder_cache: Any = None
        self._state: np.ndarray | None = None
        self._generator = torch.Generator()

    @torch.inference_mode()
    def reset(self, prompt: str) -> None:
        """Start an episode: an empty cache, and the instruction in the card's template."""
        transformer = self.model.transformer
        prompts = [self.card.render_prompt(prompt)]
        if self.sampler.guidance != 1.0:
            negative = self.negative_prompt
            prompts.append(self.model.negative_prompt if negative is None else negative)
        self._branches = []
        for words in prompts:
            text = self._cast(self.model.text_encoder.encode([words]))
            context = [] if self._reads_image else transformer.encode_context(text)
            self._branches.append(_Branch(text, context, transformer.new_cache(self._size)))
        self._codec_cache, self._state, self._first = None, None, None
        self._generator.manual_seed(self.seed)

    @torch.inference_mode()
    def observe(self, frames: Mapping[str, np.ndarray], state: np.ndarray) -> None:
        """Write what was seen since the last call into the cache.

        Args:
            frames: view name -> uint8 ``[t, h, w, 3]``; one frame (the newest counts) starts the
                window, later calls bring the ``card.frames_per_block`` frames of the last chunk.
            state: float32 ``[s]``, SI units, now.

        Raises:
            UserError: missing view, wrong number of frames, not finite.
        """
        if not self._branches:
            raise UserError("observe before reset: call policy.reset(instruction) first")
        canvas = self._canvas(frames)
        cache = self._branches[0].cache
        full = cache.frames > self._memory * self.frames_per_block
        begin = self._codec_cache is None or full or len(canvas) == 1
        if begin:
            canvas = canvas[-1:]
        elif len(canvas) != self.card.frames_per_block:
            raise UserError(
                f"observe got {len(canvas)} frames; after the first it takes the "
                f"{self.card.frames_per_block} frames of one chunk (at {self.card.video_hz} fps)"
            )
        video = to_float(canvas).unsqueeze(0).to(self.device)
        if begin:
            self._begin_window(video)
        latents, self._codec_cache = self.model.codec.encode_next(video, self._codec_cache)
        if self.dream:
            _, self._decoder_cache = self.model.codec.decode_next(latents, self._decoder_cache)
        zeros = torch.zeros(1, latents.shape[2], device=self.device)
        latents, first = self._cast(latents), self._first_channels(latents.shape[2])
        for branch in self._branches:
            self.model.transformer.step(
                latents, zeros, branch.context, branch.cache, first_frame=first
            )
        state = np.asarray(state, dtype=np.float32)
        if state.shape != (self.card.state_dim,) or not np.isfinite(state).all():
            raise UserError(
                f"state must be {self.card.state_dim} finite numbers for {self.card.name}, "
                f"got shape {state.shape}"
            )
        self._state = state

    def _begin_window(self, frame: Tensor) -> None:
        """Empty caches, and what depends on the window's first frame ``[1, 3, 1, h, w]``."""
        self._codec_cache = self._decoder_cache = None
        features = conditioning.image_features(self.model, frame)
        for branch in self._branches:
            branch.cache.reset()
            if features is not None:
                branch.context = self.model.transformer.encode_context(
                    branch.text, self._cast(features)
                )
        if self._reads_first:
            window = 1 + self.card.blocks * self.frames_per_block
            channels = conditioning.first_frame_channels(self.model.codec, frame, window)
            self._first = self._cast(channels)

    def _first_channels(self, frames: int) -> Tensor | None:
        """First-frame channels ``[1, 4 + c, f, h', w']`` of the f frames after the cached ones."""
        if self._first is None:
            return None
        start = self._branches[0].cache.frames
        return self._first[:, :, start : start + frames]

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(self.device, self.dtype)

    @torch.inference_mode()
    def act(self) -> ActionChunk:
        """Predict the next chunk from what was observed: ``card.horizon`` absolute actions."""
        if self._state is None:
            raise UserError("act before observe: the model has not seen anything yet")
        started = time.perf_counter()
        config, per_block = self.model.transformer.config, self.frames_per_block
        video = self._noise(1, config.out_channels, per_block, *self._size)
        action = self._noise(1, self.card.horizon, config.action_dim)
        normal = self.normalizer.state(self._state)
        state = torch.zeros(1, 1, config.state_dim, device=self.device, dtype=self.dtype)
        state[0, 0, : len(normal)] = torch.from_numpy(normal)

        first = self._first_channels(per_block)

        def velocity(video: Tensor, action: Tensor, tv: int, ta: int) -> tuple[Tensor, Tensor]:
            times = torch.full((1, per_block), float(tv), device=self.device)
            action_times = torch.full((1, action.shape[1]), float(ta), device=self.device)
            # The solver works in float32 whatever the model computes in.
            video, action = self._cast(video), self._cast(action)
            out = [
                self.model.transformer.step(
                    video, times, b.context, b.cache, action, action_times, state, first
                )
                for b in self._branches
            ]
            conditional = out[0][0].float()
            if len(out) == 2:
                conditional = guide(conditional, out[1][0].float(), self.sampler.guidance)
            assert out[0][1] is not None
            return conditional, out[0][1].float()

        latents, predicted = sample(velocity, video, action, self.sampler)
        normalised = predicted[0, :, : self.card.action_dim].float().cpu().numpy()
        info: dict[str, Any] = {
            "evaluations": self.sampler.evaluations,
            "branches": len(self._branches),
            "cached_frames": self._branches[0].cache.frames,
            "seconds": time.perf_counter() - started,
        }
        return ActionChunk(
            actions=self.normalizer.unaction(normalised, self._state),
            rate_hz=self.card.action_hz,
            video=self._decode(latents) if self.dream else None,
            info=info,
        )

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self.device)

    def _decode(self, latents: Tensor) -> np.ndarray:
        """The dreamed frames alone, decoded as a continuation of what was observed."""
        video, _ = self.model.codec.decode_next(latents, self._decoder_cache)
        return to_uint8(video[0])

    def _canvas(self, frames: Mapping[str, np.ndarray]) -> np.ndarray:
        views = []
        for key in self.card.views:
            name = key if key in frames else key.rsplit(".", 1)[-1]
            if name not in frames:
                raise UserError(f"observation lacks view {key!r}; it has {', '.join(frames)}")
            view = np.asarray(frames[name])
            views.append(view[None] if view.ndim == 3 else view)
        return compose(views, self.card.layout, self.card.canvas_px)


def load_policy(
    path: Path | str, device: str = "cpu", dtype: torch.dtype | None = None, **options: Any
) -> WorldActionPolicy:
    """A policy from a model folder or a shipped model ("tiny_so101"), on ``device``.

    Args:
        path: of ``dreamzero train``, or an imported checkpoint.
        dtype: as in ``WorldActionModel.load``.
        options: as in ``WorldActionPolicy``: embodiment, sampler, seed, dream, negative_prompt.

    Raises:
        UserError: no such model, or not one of this project.
    """
    return WorldActionPolicy(WorldActionModel.load(find(path), device, dtype), **options)
