"""The transformer's ``step`` once more, for speed: all that a chunk repeats is computed once.

``DreamZeroTransformer.step`` says what is right, this says it with less work: modulations of a
timestep, rotations and places of a window position, and the state's token are kept; query, key and
value come from one product; a write leaves out what nobody reads of the last block.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.blocks import Block, ContextKV
from ..model.cache import KVCache
from ..model.coders import sinusoid
from ..model.positions import sequence_rope, video_rope
from ..model.transformer import DreamZeroTransformer
from .ops import Context, Layout, Ops, batch_of
from .parallel import Tokens
from .weights import Layer, layers_of

# More pairs of timesteps than any sampler has; a table of modulations is a few MB at 14B.
KEPT_TIMES = 128


@dataclass(frozen=True)
class Modulation:
    """What the timesteps of video and actions say to the network.

    Attributes:
        blocks: ``[layers, 6, 1, g, d]``: shift, scale, gate of attention, then of feed-forward.
        head: ``[2, 1, g, d]``, shift and scale; action: the action encoder's share, ``[d]``.
    """

    blocks: Tensor
    head: Tensor
    action: Tensor

    @property
    def rows(self) -> int:
        """g: 1 when all tokens share a timestep, else 2 (video; actions and state)."""
        return self.head.shape[2]


@dataclass(frozen=True)
class Inputs:
    """What one evaluation reads and a captured graph copies in.

    Attributes:
        video: noisy latents ``[1 or b, c, f, h, w]``; action: noisy ``[1 or b, k, a]``.
        base: what video tokens get besides: first-frame channels, bias, places ``[1 or b, l, d]``.
        state: the state's token ``[1 or b, 1, d]``.
        timestep: of the video, for those who watch; the network reads the modulation.
    """

    video: Tensor
    action: Tensor
    base: Tensor
    state: Tensor
    modulation: Modulation
    timestep: int = 0

    def tensors(self) -> list[Tensor]:
        """All tensors, in a fixed order."""
        own = [self.video, self.action, self.base, self.state]
        return own + [getattr(self.modulation, f.name) for f in fields(self.modulation)]


class Network:
    """One transformer, ready to run.

    Args:
        transformer: weights in the dtype to compute in; changes to them later are not seen.
        ops: plain or kernels.
        fp8: the blocks' products in 8-bit floats.
        offload: move the matrices replaced by those to main memory.
    """

    def __init__(
        self,
        transformer: DreamZeroTransformer,
        ops: Ops,
        fp8: bool = False,
        offload: bool = False,
    ) -> None:
        self.model, self.ops, self.config = transformer, ops, transformer.config
        self.layers = layers_of(transformer, fp8, offload)
        weight = transformer.proj_out.weight
        self.device, self.dtype = weight.device, weight.dtype
        patch = transformer.patch_embedding.weight.detach()
        channels = self.config.out_channels
        self.patch = patch[:, :channels].flatten(1).contiguous()
        self.patch_first = patch[:, channels:].flatten(1).contiguous()
        self._times: dict[tuple[int, int], Modulation] = {}
        self._layouts: dict[tuple[int, ...], Layout] = {}

    def modulation(self, video: int, action: int) -> Modulation:
        """For integer timesteps of the video and of the actions (0, 0 to write)."""
        found = self._times.get((video, action))
        if found is None:
            if len(self._times) >= KEPT_TIMES:
                self._times.clear()
            found = self._times[video, action] = self._modulation(video, action)
        return found

    def _modulation(self, video: int, action: int) -> Modulation:
        model, unit = self.model, self.ops.unit
        values = [video] if video == action else [video, action]
        times = torch.tensor([values], dtype=torch.float32, device=self.device)
        embedding, modulation = model.condition_embedder.time(times, self.dtype)
        tables = []
        for block in model.blocks:
            assert isinstance(block, Block)
            tables.append(block.scale_shift_table.unsqueeze(1) + modulation)
        blocks = torch.stack(tables).to(self.dtype).permute(0, 3, 1, 2, 4).contiguous()
        head = model.scale_shift_table.unsqueeze(1) + embedding.unsqueeze(2)
        head = head.to(self.dtype).permute(2, 0, 1, 3).contiguous()
        for scale in (blocks[:, 1], blocks[:, 4], head[1]):
            scale += unit
        encoder, width = model.action_encoder, self.config.dim
        tau = sinusoid(times[0, -1:], width, sine_first=True).to(self.dtype)
        own = F.linear(tau, encoder.W2.weight[0, width:].T, encoder.W2.bias[0])
        return Modulation(blocks, head, own[0])

    def layout(
        self, cached_frames: int, frames: int, size: tuple[int, int], actions: int, rows: int
    ) -> Layout:
        """Places of ``frames`` latent frames of ``size`` (h, w) behind the cached ones, and of the
        action tokens of that block."""
        key = (cached_frames, frames, *size, actions, rows)
        found = self._layouts.get(key)
        if found is None:
            found = self._layouts[key] = self._layout(cached_frames, frames, size, actions, rows)
        return found

    def _layout(
        self, cached_frames: int, frames: int, size: tuple[int, int], actions: int, rows: int
    ) -> Layout:
        config, device, head_dim = self.config, self.device, self.model.head_dim
        height, width = size[0] // config.patch_size[1], size[1] // config.patch_size[2]
        index = torch.arange(cached_frames, cached_frames + frames, device=device)
        ropes = [video_rope(index, height, width, head_dim)]
        block = max(cached_frames - 1, 0) // config.frames_per_block
        if actions:
            steps = torch.arange(block * actions, (block + 1) * actions, device=device)
            ropes += [
                sequence_rope(steps, head_dim),
                sequence_rope(torch.tensor([block], device=device), head_dim),
            ]
        rope, video = torch.cat(ropes), frames * height * width
        groups = torch.zeros(len(rope), dtype=torch.int32, device=device)
        groups[video:] = rows - 1
        cached = cached_frames * height * width
        offset = torch.tensor([cached], dtype=torch.int32, device=device)
        return Layout(frames, height, width, actions, cached, offset, rope, groups, rows)

    def context(self, text: Tensor, image: Tensor | None) -> list[ContextKV]:
        """Cross-attention's keys and values of prompts ``[b, l, text_dim]``, once an episode."""
        return self.model.encode_context(text, image)

    def prepare(self, context: list[ContextKV]) -> list[Context]:
        """The same as the forwards read it."""
        pairs = zip(self.layers, context, strict=True)
        return [self.ops.prepare(layer, kv) for layer, kv in pairs]

    def base(self, at: Layout, first: Tensor | None) -> Tensor:
        """``Inputs.base`` of the frames at ``at``; first: ``[b, in - out channels, f, h, w]``."""
        bias = self.model.patch_embedding.bias
        assert bias is not None
        base = bias.expand(1, at.video, -1)
        if self.model.positions is not None:
            base = self.model.positions.video(base)
        if first is None and self.patch_first.shape[1]:
            raise ValueError("this model reads first-frame channels, and none are given")
        if first is not None and first.shape[2]:
            base = base + F.linear(self._patches(first.to(self.dtype)), self.patch_first)
        return base

    def state(self, state: Tensor) -> Tensor:
        """``Inputs.state`` of a normalised state ``[b, 1, s]``."""
        token: Tensor = self.model.state_encoder(state.to(self.dtype))
        return token

    def evaluate(
        self,
        given: Inputs,
        at: Layout,
        cache: KVCache,
        context: list[Context],
        rows: int = 1,
        split: Tokens | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Velocities of one block; nothing is kept in the cache.

        Args:
            context: keys and values ``[b, ...]``; b branches run, whose cache rows come first.
            rows: branches whose actions are decoded.
            split: the processes among which the tokens are divided, None: this one has all.

        Returns:
            video ``[b, c, f, h, w]`` and action ``[rows, k, a]``, float32.
        """
        tokens = [self._video(given.video, given.base), self._action(given), given.state]
        longest = max(len(part) for part in tokens)
        x = torch.cat([part.expand(longest, -1, -1) for part in tokens], dim=1)
        branches = batch_of(context)
        if len(x) != branches:
            x = x.expand(branches, -1, -1).contiguous()
        x, y = self._blocks(x, given.modulation, at, cache, context, split)
        video = F.linear(y[:, : at.video], self.model.proj_out.weight, self.model.proj_out.bias)
        velocity = self._unpatch(video, at)
        action = self.model.action_decoder(x[:rows, at.video : at.video + at.actions])
        return velocity.float(), action.float()

    def write(
        self,
        latents: Tensor,
        base: Tensor,
        at: Layout,
        cache: KVCache,
        context: list[Context],
        split: Tokens | None = None,
    ) -> None:
        """Keep the keys and values of observed ``latents [1 or b, c, f, h, w]`` at timestep 0."""
        x = self._video(latents, base)
        branches = batch_of(context)
        if len(x) != branches:
            x = x.expand(branches, -1, -1).contiguous()
        self._blocks(x, self.modulation(0, 0), at, cache, context, split, write=True)
        cache.advance(at.frames, at.video)

    def _blocks(
        self,
        x: Tensor,
        modulation: Modulation,
        at: Layout,
        cache: KVCache,
        context: list[Context],
        split: Tokens | None,
        write: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """All blocks; returns the tokens, and them under the head's norm and modulation."""
        ops, last, branches = self.ops, len(self.layers) - 1, len(x)
        cache.room(at.tokens)
        whole = at
        if split is not None:
            x, at = x[:, split.mine(at.tokens)], split.layout(at)
        tables = [table.unbind(0) for table in modulation.blocks.unbind(0)]
        fp8 = self.layers[0].fp8
        y = ops.modulate(x, tables[0][1], tables[0][0], at, fp8)
        for i, (layer, kv) in enumerate(zip(self.layers, context, strict=True)):
            _, _, gate1, shift2, scale2, gate2 = tables[i]
            keys, values = cache.buffer[i, 0, :branches], cache.buffer[i, 1, :branches]
            qkv = layer.qkv(y)
            if split is None:
                q = ops.operands(qkv, layer, at, keys, values)
            else:
                q = self._divided(qkv, layer, at, whole, keys, values, split)
            if write and i == last:
                return x, x
            heard = ops.attend(q, keys, values, whole)
            if whole.actions and not self.config.state_sees_all:
                # The state is the last token; of one key attention is its value.
                heard[:, -1:] = values[:, whole.cached + whole.tokens - 1, None]
            heard = heard if split is None else split.to_tokens(heard)
            x, y = ops.residual(x, layer.out(heard.flatten(2)), gate1, *layer.norm2, at, fp8)
            heard = ops.cross(layer.query(y), layer, kv)
            x, y = ops.residual(x, heard, None, scale2, shift2, at, fp8)
            shift, scale = tables[i + 1][:2] if i < last else modulation.head.unbind(0)
            grown = layer.down(layer.up(y, gelu=True))
            x, y = ops.residual(x, grown, gate2, scale, shift, at, fp8 and i < last)
        assert isinstance(y, Tensor)
        if split is not None:
            x, y = (split.gather(part, whole.tokens) for part in (x, y))
        return x, y

    def _divided(
        self,
        qkv: Tensor,
        layer: Layer,
        at: Layout,
        whole: Layout,
        keys: Tensor,
        values: Tensor,
        split: Tokens,
    ) -> Tensor:
        """``Ops.operands`` for this process's tokens; the window then gets its heads of all."""
        heads, dim = self.config.num_heads, self.model.head_dim
        own = qkv.new_empty(2, len(qkv), at.tokens, heads, dim)
        q = self.ops.operands(qkv, layer, at, own[0], own[1])
        new = slice(whole.cached, whole.cached + whole.tokens)
        keys[:, new] = split.to_heads(own[0], whole.tokens)
        values[:, new] = split.to_heads(own[1], whole.tokens)
        return split.to_heads(q, whole.tokens).contiguous()

    def _video(self, latents: Tensor, base: Tensor) -> Tensor:
        if not latents.shape[2]:
            return base.expand(len(latents), -1, -1)
        return base + F.linear(self._patches(latents.to(self.dtype)), self.patch)

    def _action(self, given: Inputs) -> Tensor:
        encoder, width = self.model.action_encoder, self.config.dim
        x = encoder.W1(given.action.to(self.dtype))
        x = F.linear(x, encoder.W2.weight[0, :width].T, given.modulation.action)
        tokens: Tensor = encoder.W3(F.silu(x))
        return tokens if self.model.positions is None else self.model.positions.action(tokens)

    @cached_property
    def _patch_size(self) -> tuple[int, int, int]:
        return tuple(self.config.patch_size)  # type: ignore[return-value]

    def _patches(self, latents: Tensor) -> Tensor:
        """``[b, c, f, h, w]`` -> ``[b, l, c * patch]``, channels first as in the convolution."""
        pt, ph, pw = self._patch_size
        x = latents.unflatten(4, (-1, pw)).unflatten(3, (-1, ph)).unflatten(2, (-1, pt))
        return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)

    def _unpatch(self, x: Tensor, at: Layout) -> Tensor:
        pt, ph, pw = self._patch_size
        shape = (len(x), at.frames, at.height, at.width, pt, ph, pw, self.config.out_channels)
        x = x.reshape(shape).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.flatten(6).flatten(4, 5).flatten(2, 3)
