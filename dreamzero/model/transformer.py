"""The diffusion transformer that denoises video and actions together (MODEL.md 2 and 3)."""

from __future__ import annotations

import math
from functools import partial
from typing import cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import PixArtAlphaTextProjection, TimestepEmbedding
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_wan import WanImageEmbedding
from torch import Tensor, nn

from ..flow.objectives import ActionObjective
from .attention import Dream, TeacherForcing, attend, teacher_forcing_attention
from .blocks import Block, Context, ContextKV, Groups, layer_norm
from .cache import KVCache
from .coders import AbsolutePositions, ActionEncoder, SlotMLP, init_weights, sinusoid
from .positions import sequence_rope, video_rope


class ConditionEmbedder(nn.Module):
    """Timesteps, text and image features to the model's width."""

    def __init__(self, dim: int, freq_dim: int, text_dim: int, image_dim: int | None) -> None:
        super().__init__()
        self.freq_dim = freq_dim
        self.time_embedder = TimestepEmbedding(freq_dim, dim)
        self.time_proj = nn.Linear(dim, 6 * dim)
        self.text_embedder = PixArtAlphaTextProjection(text_dim, dim, act_fn="gelu_tanh")
        self.image_embedder = None if image_dim is None else WanImageEmbedding(image_dim, dim)

    def time(self, timestep: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``timestep [b, g]`` -> embedding ``[b, g, d]`` and modulation ``[b, g, 6, d]``."""
        embedding = self.time_embedder(sinusoid(timestep, self.freq_dim).to(dtype))
        modulation = self.time_proj(nn.functional.silu(embedding))
        return embedding, modulation.unflatten(-1, (6, -1))


class DreamZeroTransformer(ModelMixin, ConfigMixin):
    """Wan's video transformer with action and state tokens.

    ``forward`` is the teacher-forced training pass over a whole window; ``step`` is one pass over
    a block against the cache. Both take timesteps (1000 * sigma) and return velocities
    (noise - sample).

    Args:
        in_channels: latent channels, plus mask and first-frame latent for i2v (36 at 14B).
        out_channels: latent channels.
        image_dim: width of CLIP features, None for a model without image tokens.
        action_dim, state_dim: padded widths (32 and 64 in the release).
        projector_dim: hidden width of the state encoder and action decoder.
        horizon: action steps a block.
        frames_per_block: latent frames a block (K).
        window_blocks: blocks in the context window (M).
        slots: embodiment slots of the coders; the release has one.
        position_grid: tokens (height, width) a frame for learned absolute positions; None as in
            the release.
        state_sees_all: whether a state token attends to everything in ``step``, as the release runs
            it, though in training it sees only itself. A model trained here loses a third of its
            success by it (``seen/success_state_sees_all`` in the shipped model's run record).
        dream: whether actions see the dreamed video of their block (as in the release), are denoised
            apart from it, or there is none: rivals of the world action model (``attention.Dream``).
        objective: what its actions were trained to be (``flow.objectives``): "flow", a velocity;
            "regression", the action itself, from no noise; "diffusion", the noise of a DDPM. The
            last two are rivals too, and dream nothing.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        *,
        dim: int,
        ffn_dim: int,
        num_layers: int,
        num_heads: int,
        in_channels: int,
        out_channels: int,
        text_dim: int,
        action_dim: int,
        state_dim: int,
        horizon: int,
        projector_dim: int = 1024,
        image_dim: int | None = None,
        freq_dim: int = 256,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        frames_per_block: int = 2,
        window_blocks: int = 4,
        slots: int = 1,
        position_grid: tuple[int, int] | None = None,
        state_sees_all: bool = True,
        dream: Dream = "seen",
        objective: ActionObjective = "flow",
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if objective != "flow" and dream != "none":
            raise ValueError(
                f"objective={objective!r} predicts actions alone: dream must be 'none'"
            )
        self.head_dim = dim // num_heads
        self.patch_embedding = nn.Conv3d(in_channels, dim, patch_size, patch_size)
        self.condition_embedder = ConditionEmbedder(dim, freq_dim, text_dim, image_dim)
        self.positions = (
            None if position_grid is None else AbsolutePositions(position_grid, horizon, dim)
        )
        self.state_encoder = SlotMLP(slots, state_dim, projector_dim, dim)
        self.action_encoder = ActionEncoder(slots, action_dim, dim)
        self.action_decoder = SlotMLP(slots, dim, projector_dim, action_dim)
        self.blocks = nn.ModuleList(
            Block(dim, ffn_dim, num_heads, eps, image_dim is not None) for _ in range(num_layers)
        )
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.proj_out = nn.Linear(dim, out_channels * math.prod(patch_size))
        init_weights(self, num_layers)

    def with_(self, **changes: object) -> DreamZeroTransformer:
        """The same weights under another configuration of the same shapes (``dream``, ``objective``)."""
        plain = {k: v for k, v in self.config.items() if not k.startswith("_")}
        other = type(self)(**(plain | changes))
        other.load_state_dict(self.state_dict())
        return other.to(self.proj_out.weight)

    @property
    def dream_frames(self) -> int:
        """Latent frames that are denoised together with the actions of a block: K, or none."""
        frames: int = self.config.frames_per_block
        return frames if self.config.dream == "seen" else 0

    def encode_context(self, text: Tensor, image: Tensor | None = None) -> list[ContextKV]:
        """Cross-attention keys and values of every block, for many calls with one prompt.

        Args:
            text: ``[b, l, text_dim]``, padding rows zero.
            image: ``[b, 257, image_dim]`` CLIP features of the first frame.
        """
        context = self.embed_context(text, image)
        layers = cast("list[Block]", list(self.blocks))
        return [block.attn2.keys_values(context.text, context.image) for block in layers]

    def embed_context(self, text: Tensor, image: Tensor | None = None) -> Context:
        """As ``encode_context``, but each block makes its keys and values when it runs."""
        text = self.condition_embedder.text_embedder(text)
        if image is not None:
            if self.condition_embedder.image_embedder is None:
                raise ValueError("this model has no image tokens (image_dim is None)")
            image = self.condition_embedder.image_embedder(image)
        return Context(text, image)

    def _contexts(self, context: list[ContextKV] | Context) -> list[ContextKV] | list[Context]:
        """One a block."""
        return [context] * len(self.blocks) if isinstance(context, Context) else context

    def forward(
        self,
        noisy_latents: Tensor,
        clean_latents: Tensor,
        timestep: Tensor,
        context: list[ContextKV] | Context,
        noisy_action: Tensor | None = None,
        timestep_action: Tensor | None = None,
        state: Tensor | None = None,
        first_frame: Tensor | None = None,
        leaky_video_only: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Teacher-forced velocities of every block of a window at once.

        Args:
            clean_latents: ``[b, c, f, h, w]``, f = 1 + n * frames_per_block.
            noisy_latents: the same shape; or one frame shorter, without the noisy first frame; or of
                no frame, where ``dream`` is "none".
            timestep: one a noisy latent frame, ``[b, f]``.
            context: from ``encode_context`` or ``embed_context``.
            noisy_action: ``[b, n * k, a]``, or None for video-only batches.
            timestep_action: ``[b, n * k]``.
            state: ``[b, n, s]``.
            first_frame: ``[b, in_channels - out_channels, f, h, w]`` mask and first-frame latent.
            leaky_video_only: attend as the release does on video-only batches (see
                ``TeacherForcing.leaky``).

        Returns:
            video velocity ``[b, c, f, h, w]`` and action velocity ``[b, n * k, a]`` (or None).
        """
        frames, height, width = self._grid(clean_latents)
        noisy_frames = noisy_latents.shape[2]
        blocks = (frames - 1) // self.config.frames_per_block
        device, dtype = timestep.device, noisy_latents.dtype
        steps = 0 if noisy_action is None else noisy_action.shape[1]
        layout = TeacherForcing(
            frame=height * width,
            blocks=blocks,
            frames_per_block=self.config.frames_per_block,
            actions=steps // blocks,
            states=1 if steps else 0,
            leaky=leaky_video_only and not steps,
            noisy_first=noisy_frames == frames,
            dream=self.config.dream,
        )
        clean_frames = layout.clean_video // layout.frame
        if first_frame is None:
            clean_first = noisy_first = None
        else:
            clean_first = first_frame[:, :, :clean_frames]
            noisy_first = first_frame[:, :, frames - noisy_frames :]
        tokens = [
            self._embed_video(clean_latents[:, :, :clean_frames], clean_first),
            self._embed_video(noisy_latents, noisy_first),
        ]
        rope = video_rope(torch.arange(frames, device=device), height, width, self.head_dim)
        ropes = [rope[: layout.clean_video], rope[len(rope) - layout.noisy_video :]]
        times = [timestep.new_zeros(len(timestep), 1), timestep]
        runs = [(1, layout.clean_video), (noisy_frames, layout.frame)]
        if noisy_action is not None and timestep_action is not None and state is not None:
            tokens += [self._embed_action(noisy_action, timestep_action), self.state_encoder(state)]
            ropes += [self._sequence_rope(steps, 0, rope), self._sequence_rope(blocks, 0, rope)]
            times += [timestep_action, timestep_action[:, :: layout.actions]]
            runs += [(steps, 1), (blocks, 1)]
        embedding, modulation = self.condition_embedder.time(torch.cat(times, dim=1), dtype)
        attention = partial(teacher_forcing_attention, layout=layout)
        x, groups, rope = torch.cat(tokens, dim=1), Groups(tuple(runs)), torch.cat(ropes)
        for block, kv in zip(self.blocks, self._contexts(context), strict=True):
            x = block(x, modulation, groups, rope, kv, attention)
        video = self._decode_video(
            x[:, layout.clean_video : layout.video],
            embedding[:, 1 : 1 + noisy_frames],
            (x.shape[0], noisy_frames, height, width),
        )
        if not steps:
            return video, None
        return video, self.action_decoder(x[:, layout.video : layout.video + steps])

    def step(
        self,
        latents: Tensor,
        timestep: Tensor,
        context: list[ContextKV] | Context,
        cache: KVCache,
        action: Tensor | None = None,
        timestep_action: Tensor | None = None,
        state: Tensor | None = None,
        first_frame: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One pass over new frames against the cache; every token sees the cache and all new tokens
        (but a state, see ``state_sees_all``).

        The frames take the positions after the cached ones. With actions, this is one denoising
        evaluation of the next block and the cache is left as it was. Without, the keys and values
        of ``latents`` (clean, ``timestep`` 0) are kept in the cache.

        Args:
            latents: ``[b, c, f, h, w]``; of no frame where only actions are wanted.
            timestep: ``[b, f]``.
            action: ``[b, k, a]``, ``timestep_action [b, k]``, ``state [b, 1, s]``.
            first_frame: mask and first-frame channels of these frames.

        Returns:
            video velocity ``[b, c, f, h, w]`` and action velocity ``[b, k, a]`` (or None).
        """
        frames, height, width = self._grid(latents)
        device, video = latents.device, frames * height * width
        block = max(cache.frames - 1, 0) // self.config.frames_per_block
        tokens = [self._embed_video(latents, first_frame)]
        index = torch.arange(cache.frames, cache.frames + frames, device=device)
        ropes = [video_rope(index, height, width, self.head_dim)]
        times, runs = [timestep], [(frames, height * width)]
        if action is not None and timestep_action is not None and state is not None:
            steps = action.shape[1]
            tokens += [self._embed_action(action, timestep_action), self.state_encoder(state)]
            ropes += [
                self._sequence_rope(steps, block * steps, ropes[0]),
                self._sequence_rope(1, block, ropes[0]),
            ]
            times += [timestep_action, timestep_action[:, :1]]
            runs += [(steps, 1), (1, 1)]
        dtype = latents.dtype
        embedding, modulation = self.condition_embedder.time(torch.cat(times, dim=1), dtype)
        rope, groups = torch.cat(ropes), Groups(tuple(runs))
        x = torch.cat(tokens, dim=1)
        for layer, (layer_block, kv) in enumerate(
            zip(self.blocks, self._contexts(context), strict=True)
        ):

            def attention(q: Tensor, k: Tensor, v: Tensor, layer: int = layer) -> Tensor:
                heard = attend(q, *cache.join(layer, k.to(q.dtype), v.to(q.dtype)))
                if action is not None and not self.config.state_sees_all:
                    # One key: its value, whatever the score.
                    heard = torch.cat([heard[:, :-1], v[:, -1:].to(q.dtype)], dim=1)
                return heard

            x = layer_block(x, modulation, groups, rope, kv, attention)
        velocity = self._decode_video(
            x[:, :video], embedding[:, :frames], (latents.shape[0], frames, height, width)
        )
        if action is None:
            cache.advance(frames, video)
            return velocity, None
        return velocity, self.action_decoder(x[:, video : video + action.shape[1]])

    def new_cache(
        self, latent_size: tuple[int, int], batch: int = 1, dtype: torch.dtype | None = None
    ) -> KVCache:
        """A cache that holds one context window plus the tokens of the block being denoised; in the
        dtype of the weights by default."""
        config = self.config
        frame = latent_size[0] // config.patch_size[1] * (latent_size[1] // config.patch_size[2])
        window = (1 + config.window_blocks * config.frames_per_block) * frame
        parameter = next(self.parameters())
        return KVCache(
            config.num_layers,
            batch,
            window + config.horizon + 1,
            config.num_heads,
            self.head_dim,
            parameter.device,
            dtype or parameter.dtype,
        )

    def _grid(self, latents: Tensor) -> tuple[int, int, int]:
        patch = self.config.patch_size
        return tuple(n // p for n, p in zip(latents.shape[2:], patch, strict=True))  # type: ignore[return-value]

    def _embed_video(self, latents: Tensor, first_frame: Tensor | None) -> Tensor:
        if first_frame is not None:
            latents = torch.cat([latents, first_frame], dim=1)
        if latents.shape[1] != self.config.in_channels:
            raise ValueError(
                f"the model takes {self.config.in_channels} latent channels, got {latents.shape[1]}"
            )
        if not latents.shape[2]:
            return latents.new_zeros(len(latents), 0, self.config.dim)
        tokens = self.patch_embedding(latents).flatten(2).transpose(1, 2)
        return tokens if self.positions is None else self.positions.video(tokens)

    def _embed_action(self, action: Tensor, timestep: Tensor) -> Tensor:
        tokens = self.action_encoder(action, timestep)
        return tokens if self.positions is None else self.positions.action(tokens)

    def _sequence_rope(self, count: int, start: int, like: Tensor) -> Tensor:
        positions = torch.arange(start, start + count, device=like.device)
        return sequence_rope(positions, self.head_dim)

    def _decode_video(
        self, x: Tensor, embedding: Tensor, shape: tuple[int, int, int, int]
    ) -> Tensor:
        batch, frames, height, width = shape
        table = self.scale_shift_table.unsqueeze(1) + embedding.unsqueeze(2)
        groups = Groups(((frames, height * width),))
        shift, scale = (groups.spread(part).to(x.dtype) for part in table.unbind(2))
        x = self.proj_out(layer_norm(x, self.config.eps) * (1 + scale) + shift)
        pt, ph, pw = self.config.patch_size
        x = x.view(batch, frames, height, width, pt, ph, pw, self.config.out_channels)
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.reshape(batch, self.config.out_channels, frames * pt, height * ph, width * pw)
