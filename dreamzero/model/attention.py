"""Who sees whom, and the attention that computes only that.

``TeacherForcing`` describes a training sequence [clean video | noisy video | actions | states];
``teacher_forcing_attention`` walks its blocks without a mask, ``dense_mask`` states the same as
a matrix (for tests, pictures, and the release's video-only variant).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# How the dreamed video of a block stands to its actions: they see it (the world action model), it is
# there but neither sees the other, or it is not there (an action-only policy).
Dream = Literal["seen", "apart", "none"]


@dataclass(frozen=True)
class TeacherForcing:
    """Layout of one training sequence, in tokens.

    Attributes:
        frame: video tokens a latent frame.
        blocks: n.
        frames_per_block: latent frames a block (K).
        actions, states: tokens a block; both 0 for video-only sequences.
        leaky: every noisy token sees all clean and all noisy tokens. This is what the release does
            for video-only batches, and it shows the model its own targets; kept for parity.
        noisy_first: whether the first frame is there as a noisy frame too (its loss counts in the
            release; a policy always observes it, so that small models may leave it out).
        dream: see ``Dream``; with "none" there are no noisy tokens at all.

    The clean tokens of the last block are seen by nothing that is predicted, so that a sequence
    holds ``blocks - 1`` clean blocks (all of them where ``leaky``).
    """

    frame: int
    blocks: int
    frames_per_block: int
    actions: int
    states: int
    leaky: bool = False
    noisy_first: bool = True
    dream: Dream = "seen"

    @property
    def block(self) -> int:
        """Video tokens a block."""
        return self.frame * self.frames_per_block

    @property
    def clean_blocks(self) -> int:
        """Blocks that are there as clean video."""
        return self.blocks if self.leaky else self.blocks - 1

    @property
    def clean_video(self) -> int:
        """Tokens of the clean video."""
        return self.frame + self.clean_blocks * self.block

    @property
    def noisy_video(self) -> int:
        """Tokens of the noisy video."""
        return self.frame * self.noisy_first + self.blocks * self._noisy_block

    @property
    def _noisy_block(self) -> int:
        return 0 if self.dream == "none" else self.block

    @property
    def video(self) -> int:
        """Video tokens, clean and noisy."""
        return self.clean_video + self.noisy_video

    @property
    def length(self) -> int:
        """Tokens of the whole sequence."""
        return self.video + self.blocks * (self.actions + self.states)

    def clean(self, block: int) -> slice:
        """Clean tokens of a block; block -1 is the first frame."""
        if block < 0:
            return slice(0, self.frame)
        start = self.frame + block * self.block
        return slice(start, start + self.block)

    def noisy(self, block: int) -> slice:
        """Noisy tokens of a block; block -1 is the first frame (empty without ``noisy_first``)."""
        first = self.clean_video + self.frame * self.noisy_first
        if block < 0:
            return slice(self.clean_video, first)
        return slice(first + block * self._noisy_block, first + (block + 1) * self._noisy_block)

    def action(self, block: int) -> slice:
        """Place of a block's action tokens in the sequence."""
        start = self.video + block * self.actions
        return slice(start, start + self.actions)

    def state(self, block: int) -> slice:
        """Place of a block's state tokens in the sequence."""
        start = self.video + self.blocks * self.actions + block * self.states
        return slice(start, start + self.states)

    def past(self, block: int) -> slice:
        """Clean tokens before a block: what its noisy tokens and actions may see of the past."""
        return slice(0, self.frame + block * self.block)

    def streams(self, block: int) -> Iterator[tuple[list[slice], list[slice]]]:
        """(queries, keys) of a block: what is denoised together, and all that it sees."""
        noisy, action, state = self.noisy(block), self.action(block), self.state(block)
        groups = {"seen": [[noisy, action]], "apart": [[noisy], [action]], "none": [[action]]}
        for group in groups[self.dream]:
            if any(span.start < span.stop for span in group):
                seen = [self.past(block), *group]
                yield group, [*seen, state] if action in group else seen


def dense_mask(layout: TeacherForcing, device: torch.device | None = None) -> Tensor:
    """The table of MODEL.md 3 as bool ``[l, l]``: row = query, column = key, true = sees."""
    mask = torch.zeros(layout.length, layout.length, dtype=torch.bool, device=device)
    for i in range(-1, layout.clean_blocks):
        own = layout.clean(i)
        mask[own, : own.stop] = True
    for i in range(-1, layout.blocks):
        noisy = layout.noisy(i)
        mask[noisy, noisy] = True
        if i < 0:
            continue
        for queries, keys in layout.streams(i):
            for row in queries:
                for column in keys:
                    mask[row, column] = True
        mask[layout.state(i), layout.state(i)] = True
    if layout.leaky:
        mask[layout.clean_video : layout.video, : layout.video] = True
    return mask


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention on ``[b, l, heads, head_dim]``; the output has the shape of ``q``."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if q.device.type == "cpu" and q.requires_grad and torch.is_grad_enabled() and mask is None:
        # The fused kernel's backward pass on CPUs takes 4x as long as these three products.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return (scores.softmax(-1) @ v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def teacher_forcing_attention(q: Tensor, k: Tensor, v: Tensor, layout: TeacherForcing) -> Tensor:
    """Attention of a training sequence, computing no score that the mask would drop.

    Args:
        q, k, v: ``[b, l, heads, head_dim]`` in the order of ``layout``.

    Returns:
        ``[b, l, heads, head_dim]``, equal to dense attention under ``dense_mask(layout)``.
    """
    if layout.leaky:
        return attend(q, k, v, dense_mask(layout, q.device))

    def pick(x: Tensor, *spans: slice) -> Tensor:
        return x[:, spans[0]] if len(spans) == 1 else torch.cat([x[:, s] for s in spans], dim=1)

    clean, noisy, actions = [], [], []
    for i in range(-1, layout.clean_blocks):
        own = layout.clean(i)
        seen = slice(0, own.stop)
        clean.append(attend(pick(q, own), pick(k, seen), pick(v, seen)))
    if layout.noisy_first:
        span = layout.noisy(-1)
        noisy.append(attend(pick(q, span), pick(k, span), pick(v, span)))
    for i in range(layout.blocks):
        for queries, keys in layout.streams(i):
            out = attend(pick(q, *queries), pick(k, *keys), pick(v, *keys))
            dreamed = layout.noisy(i) in queries and layout.dream != "none"
            video = layout.block if dreamed else 0
            noisy.append(out[:, :video])
            actions.append(out[:, video:])
    # A state sees only itself when there is one a block: its output is its own value.
    states = [
        v[:, s] if layout.states == 1 else attend(q[:, s], k[:, s], v[:, s])
        for s in (layout.state(i) for i in range(layout.blocks))
    ]
    return torch.cat([*clean, *noisy, *actions, *states], dim=1)
