"""The plain path: what the engine is compared with, in numbers and in time.

Nothing is clever here. Before every evaluation the observed window goes through the model again,
block by block, and so does the prompt; the branches run one after the other; diffusers' scheduler
takes the steps. With ``keep`` the window's and the prompt's keys and values are made once, as in
the release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..flow import SamplerConfig, guide, sampling_sigmas, unipc
from ..model.blocks import ContextKV
from ..model.cache import KVCache
from ..model.transformer import DreamZeroTransformer


@dataclass(frozen=True)
class Seen:
    """Everything a chunk depends on but its noise.

    Attributes:
        latents: observed, ``[1, c, f, h, w]``, a first frame and whole blocks.
        texts: prompt embedding, and the negative prompt's with guidance, ``[1, l, text_dim]``.
        state: normalised, ``[1, 1, s]``.
        image, first: CLIP features, and channels of the whole window, where the model reads them.
    """

    latents: Tensor
    texts: list[Tensor]
    state: Tensor
    image: Tensor | None = None
    first: Tensor | None = None

    def channels(self, start: int, frames: int) -> Tensor | None:
        """First-frame channels of some latent frames."""
        return None if self.first is None else self.first[:, :, start : start + frames]


def newest(transformer: DreamZeroTransformer, latents: Tensor) -> int:
    """Latent frames of the last observation: a block, or the first frame alone."""
    return min(latents.shape[2], transformer.config.frames_per_block if latents.shape[2] > 1 else 1)


@dataclass
class Reference:
    """Computes chunks the plain way.

    Args:
        keep: keep keys and values of window and prompt from one evaluation to the next.
        forward: in place of ``transformer.step`` (a compiled one).
    """

    transformer: DreamZeroTransformer
    sampler: SamplerConfig
    keep: bool = False
    forward: Callable[..., tuple[Tensor, Tensor | None]] | None = None
    _made: dict[int, tuple[list[ContextKV], KVCache]] = field(default_factory=dict, init=False)

    def prepare(self, seen: Seen) -> None:
        """With ``keep``: what does not belong to a chunk's time."""
        if self.keep:
            self._made = {i: self._branch(seen, text) for i, text in enumerate(seen.texts)}

    @torch.inference_mode()
    def renew(self, seen: Seen) -> None:
        """With ``keep``: write the newest observed frames once more, as every chunk has to."""
        frames = newest(self.transformer, seen.latents)
        piece = seen.latents[:, :, -frames:]
        for context, cache in self._made.values():
            cache.rewind(frames)
            first = seen.channels(cache.frames, frames)
            zeros = torch.zeros(1, frames, device=piece.device)
            self.transformer.step(piece, zeros, context, cache, first_frame=first)

    @torch.inference_mode()
    def chunk(self, seen: Seen, video: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Denoise ``video [1, c, f, h, w]`` and ``action [1, k, a]`` from noise."""
        config = self.sampler
        sigmas = sampling_sigmas(config.steps, config.shift, config.video_final_noise)
        solvers = unipc(sigmas), unipc(sampling_sigmas(config.steps, config.shift))
        for i, evaluate in enumerate(config.step_mask or (True,) * config.steps):
            tv, ta = (solver.timesteps[i] for solver in solvers)
            if evaluate:
                velocity = self.velocity(seen, video, action, int(tv), int(ta))
            video = solvers[0].step(velocity[0], tv, video, return_dict=False)[0]
            action = solvers[1].step(velocity[1], ta, action, return_dict=False)[0]
        return video, action

    @torch.inference_mode()
    def velocity(
        self, seen: Seen, video: Tensor, action: Tensor, tv: int, ta: int
    ) -> tuple[Tensor, Tensor]:
        """One guided evaluation, float32."""
        texts = seen.texts if self.sampler.guided(tv) else seen.texts[:1]
        out = []
        for i, text in enumerate(texts):
            context, cache = self._made[i] if self.keep else self._branch(seen, text)
            out.append(self._evaluate(seen, context, cache, video, action, tv, ta))
        conditional, actions = out[0]
        if len(out) == 2:
            conditional = guide(conditional, out[1][0], self.sampler.guidance)
        return conditional, actions

    def _branch(self, seen: Seen, text: Tensor) -> tuple[list[ContextKV], KVCache]:
        model, per_block = self.transformer, self.transformer.config.frames_per_block
        context = model.encode_context(text, seen.image)
        cache = model.new_cache((seen.latents.shape[3], seen.latents.shape[4]))
        blocks = (seen.latents.shape[2] - 1) // per_block
        for piece in seen.latents.split([1] + [per_block] * blocks, dim=2):
            frames = piece.shape[2]
            zeros = torch.zeros(1, frames, device=piece.device)
            first = seen.channels(cache.frames, frames)
            model.step(piece, zeros, context, cache, first_frame=first)
        return context, cache

    def _evaluate(
        self,
        seen: Seen,
        context: list[ContextKV],
        cache: KVCache,
        video: Tensor,
        action: Tensor,
        tv: int,
        ta: int,
    ) -> tuple[Tensor, Tensor]:
        frames, dtype = video.shape[2], seen.latents.dtype
        times = torch.full((1, frames), float(tv), device=video.device)
        action_times = torch.full(action.shape[:2], float(ta), device=video.device)
        run = self.forward or self.transformer.step
        velocity, actions = run(
            video.to(dtype), times, context, cache, action.to(dtype), action_times,
            seen.state, seen.channels(cache.frames, frames),
        )  # fmt: skip
        assert actions is not None
        return velocity.float(), actions.float()
