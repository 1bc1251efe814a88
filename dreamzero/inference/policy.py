"""The world action model as a policy: observe, dream and act, write back what really happened.

Order of one episode (MODEL.md 5):

    reset(prompt)              the prompt's embedding, empty cache
    observe(first frame)       what the window's first frame tells (see ``model.conditioning``); its
                               latent is written to the cache at timestep 0
    act()                      noise -> video and actions of the next block
    observe(8 frames)          the *observed* frames take the place of the dreamed ones
    ...                        after the last block of the window the cache starts again from the
                               newest frame

The policy turns robots' arrays into the model's and back; ``session`` computes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.canvas import compose
from ..embodiments import Embodiment
from ..errors import UserError
from ..flow import SamplerConfig, sample_block
from ..model import conditioning
from ..model.bundle import WorldActionModel
from ..model.codecs import to_float, to_uint8
from ..shipped import find
from ..types import ActionChunk
from .config import FAST, STORED, EngineConfig
from .engine import Engine
from .session import Branch


@dataclass
class WorldActionPolicy:
    """Runs a model closed loop on one robot.

    Args:
        model: what ``WorldActionModel.load`` returns.
        embodiment: name of the robot's card; None if the model knows just one robot.
        sampler: steps, guidance, step cache, decoupled schedule.
        seed: of the initial noise; an episode repeats exactly after ``reset``.
        dream: decode the predicted video into ``ActionChunk.video`` (costs a decode a chunk).
        negative_prompt: of the other branch of guidance; None takes the model's.
        memory_blocks: observed blocks kept in the window; None takes the card's.
        engine: how to compute; or an engine made for this model, which several policies may share.
    """

    model: WorldActionModel
    embodiment: str | None = None
    sampler: SamplerConfig = FAST
    seed: int = 0
    dream: bool = False
    negative_prompt: str | None = None
    memory_blocks: int | None = None
    engine: Engine | EngineConfig = STORED

    def __post_init__(self) -> None:
        self.card, self._memory = able(self.model, self.embodiment, self.dream, self.memory_blocks)
        conditioning.check(self.model)
        self.normalizer = self.model.normalizer(self.embodiment)
        engine = self.engine
        if isinstance(engine, EngineConfig):
            engine = Engine(self.model.transformer, engine)
        elif engine.transformer is not self.model.transformer:
            raise UserError("this engine was made for another model: give it that model's own")
        config = self.model.transformer.config
        self.device, self.dtype = engine.device, engine.dtype
        self.frames_per_block = config.frames_per_block
        self._reads_first = config.in_channels > config.out_channels
        self.session = engine.open(
            self.model.latent_size(self.embodiment), self.sampler, self.card.horizon
        )
        self._leaves = engine.config.encoders == "leave"
        self._codec_cache: Any = None
        self._decoder_cache: Any = None
        self._pieces: list[Tensor] = []
        self._awaited = 0
        self._state: np.ndarray | None = None
        self._generator = torch.Generator()

    @torch.inference_mode()
    def reset(self, prompt: str) -> None:
        """Start an episode: an empty cache, and the instruction in the card's template."""
        prompts = [self.card.render_prompt(prompt)]
        if self.sampler.guidance != 1.0:
            negative = self.negative_prompt
            prompts.append(self.model.negative_prompt if negative is None else negative)
        encoder = self.model.text_encoder
        if self._leaves:
            encoder.to(self.device)
        texts = [encoder.encode([words]) for words in prompts]
        if self._leaves:
            encoder.to("cpu")
        self.session.reset(texts)
        self._codec_cache, self._state = None, None
        self._pieces, self._awaited = [], 0
        self._generator.manual_seed(self.seed)

    @torch.inference_mode()
    def observe(self, frames: Mapping[str, np.ndarray], state: np.ndarray) -> None:
        """Write what was seen since the last call into the cache.

        Args:
            frames: view name -> uint8 ``[t, h, w, 3]``; one frame (the newest counts) starts the
                window, later calls bring the ``card.frames_per_block`` frames of the last chunk:
                all at once, or as they come in pieces of the codec's 4. Pieces are encoded at once,
                and the last one's call writes the block, so that the next chunk need not wait.
            state: float32 ``[s]``, SI units, now.

        Raises:
            UserError: missing view, wrong number of frames, not finite.
        """
        if not self.session.branches:
            raise UserError("observe before reset: call policy.reset(instruction) first")
        state = self._checked(state)
        canvas = self._canvas(frames)
        count, whole = len(canvas), self.card.frames_per_block
        full = self.session.cache.frames > self._memory * self.frames_per_block
        # A window that began with a piece of a block begins again with the block's next piece.
        again = 1 < count <= self._awaited
        if self._codec_cache is None or count == 1 or again or (full and not self._pieces):
            left = self._awaited if again else whole
            piece = self.model.codec.temporal_factor
            self._awaited = 0 if count == 1 or count % piece else max(left - count, 0)
            canvas, done = canvas[-1:], True
        else:
            done = self._continues(count)
        video = to_float(canvas).unsqueeze(0).to(self.device)
        if len(canvas) == 1:
            self._begin_window(video)
        latents, self._codec_cache = self.model.codec.encode_next(video, self._codec_cache)
        self._pieces.append(latents)
        self._state = state
        if not done:
            return
        latents = torch.cat(self._pieces, dim=2)
        self._pieces = []
        if self.dream:
            _, self._decoder_cache = self.model.codec.decode_next(latents, self._decoder_cache)
        self.session.write(self.session.cast(latents))

    def _continues(self, count: int) -> bool:
        """Whether ``count`` frames complete the block; refuses what is no piece of it."""
        whole, piece = self.card.frames_per_block, self.model.codec.temporal_factor
        left = whole - piece * sum(latents.shape[2] for latents in self._pieces)
        if count > left or count % piece:
            raise UserError(
                f"observe got {count} frames; after the first it takes the {whole} frames of one "
                f"chunk (at {self.card.video_hz} fps), whole or in pieces of {piece}"
                + (f"; {whole - left} of them are here" if left < whole else "")
            )
        return count == left

    def _checked(self, state: np.ndarray) -> np.ndarray:
        state = np.asarray(state, dtype=np.float32)
        if state.shape != (self.card.state_dim,) or not np.isfinite(state).all():
            raise UserError(
                f"state must be {self.card.state_dim} finite numbers for {self.card.name}, "
                f"got shape {state.shape}"
            )
        return state

    def _begin_window(self, frame: Tensor) -> None:
        """Empty caches, and what depends on the window's first frame ``[1, 3, 1, h, w]``."""
        self._codec_cache = self._decoder_cache = None
        self._pieces = []
        encoder = self.model.image_encoder
        if self._leaves and encoder is not None:
            encoder.to(self.device)
        features = conditioning.image_features(self.model, frame)
        if self._leaves and encoder is not None:
            encoder.to("cpu")
        channels = None
        if self._reads_first:
            window = 1 + self.card.blocks * self.frames_per_block
            channels = conditioning.first_frame_channels(self.model.codec, frame, window)
        self.session.begin(features, channels)

    @property
    def _branches(self) -> list[Branch]:
        return self.session.branches

    @property
    def _first(self) -> Tensor | None:
        return self.session.first

    @torch.inference_mode()
    def act(self) -> ActionChunk:
        """Predict the next chunk from what was observed: ``card.horizon`` absolute actions.

        ``info`` tells what it is worth: ``tier`` (see ``EngineConfig.tier``), evaluations and
        branches, cached latent frames, seconds, and measured errors of an engine that rounds.
        """
        if self._state is None:
            raise UserError("act before observe: the model has not seen anything yet")
        if self._pieces:
            raise UserError(
                "act in the middle of a block: observe the rest of its "
                f"{self.card.frames_per_block} frames first"
            )
        started = time.perf_counter()
        self._awaited = 0
        config = self.model.transformer.config
        frames = self.model.transformer.dream_frames
        video = self._noise(1, config.out_channels, frames, *self.session.size)
        action = self._noise(1, self.card.horizon, config.action_dim)
        normal = self.normalizer.state(self._state)
        state = torch.zeros(1, 1, config.state_dim)
        state[0, 0, : len(normal)] = torch.from_numpy(normal)
        chunk = self.session.chunk(self._sent(state))
        latents, predicted = sample_block(config.objective, chunk, video, action, self.sampler)
        normalised = predicted[0, :, : self.card.action_dim].float().cpu().numpy()
        return ActionChunk(
            actions=self.normalizer.unaction(normalised, self._state),
            rate_hz=self.card.action_hz,
            video=self._decode(latents) if self.dream else None,
            info=self.session.info() | {"seconds": time.perf_counter() - started},
        )

    def _noise(self, *shape: int) -> Tensor:
        return self._sent(torch.randn(shape, generator=self._generator))

    def _sent(self, x: Tensor) -> Tensor:
        """On the device. From pinned memory: a plain copy would wait for the write of the window."""
        if self.device.type == "cuda":
            return x.pin_memory().to(self.device, non_blocking=True)
        return x

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
            view = view[None] if view.ndim == 3 else view
            if view.dtype != np.uint8 or view.ndim != 4 or view.shape[-1] != 3 or not view.size:
                raise UserError(
                    f"view {key!r} is {view.dtype} {list(view.shape)}; frames are uint8 "
                    "[t, h, w, 3]"
                )
            views.append(view)
        return compose(views, self.card.layout, self.card.canvas_px)


def able(
    model: WorldActionModel, embodiment: str | None, dream: bool, memory_blocks: int | None
) -> tuple[Embodiment, int]:
    """The card that a model acts with, and how many observed blocks stay in its window.

    Args:
        embodiment, dream, memory_blocks: as in ``WorldActionPolicy``.

    Raises:
        UserError: a robot without actions, a dream of a model that has none, no room for the blocks.
    """
    card = model.card(embodiment)
    if not card.has_action:
        raise UserError(f"{card.name} has no actions: it was seen on video only")
    if dream and not model.transformer.dream_frames:
        raise UserError("dream=True: this policy acts without dreaming, there is no video")
    # With more blocks observed there would be no room to predict another one.
    most = card.blocks - 1
    wanted = card.memory_blocks if memory_blocks is None else memory_blocks
    kept = most if wanted is None else wanted
    if not 0 <= kept <= most:
        raise UserError(f"memory_blocks is {kept}; the window has room for 0 to {most}")
    return card, kept


def load_policy(
    path: Path | str, device: str = "cpu", dtype: torch.dtype | None = None, **options: Any
) -> WorldActionPolicy:
    """A policy from a model folder or a shipped model ("tiny_so101"), on ``device``.

    Args:
        path: of ``dreamzero train``, or an imported checkpoint.
        dtype: as in ``WorldActionModel.load``.
        options: as in ``WorldActionPolicy``: embodiment, sampler, seed, dream, engine ...

    Raises:
        UserError: no such model, or not one of this project.
    """
    return WorldActionPolicy(WorldActionModel.load(find(path), device, dtype), **options)
