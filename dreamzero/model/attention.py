"""Who sees whom, and the attention that computes only that.

``TeacherForcing`` describes a training sequence [clean video | noisy video | actions | states];
``teacher_forcing_attention`` walks its blocks without a mask, ``dense_mask`` states the same as
a matrix (for tests, pictures, and the release's video-only variant).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """

    frame: int
    blocks: int
    frames_per_block: int
    actions: int
    states: int
    leaky: bool = False

    @property
    def block(self) -> int:
        return self.frame * self.frames_per_block

    @property
    def video(self) -> int:
        """Tokens of the clean (or of the noisy) video."""
        return self.frame + self.blocks * self.block

    @property
    def length(self) -> int:
        return 2 * self.video + self.blocks * (self.actions + self.states)

    def clean(self, block: int) -> slice:
        """Clean tokens of a block; block -1 is the first frame."""
        return self._span(0, block)

    def noisy(self, block: int) -> slice:
        return self._span(self.video, block)

    def action(self, block: int) -> slice:
        start = 2 * self.video + block * self.actions
        return slice(start, start + self.actions)

    def state(self, block: int) -> slice:
        start = 2 * self.video + self.blocks * self.actions + block * self.states
        return slice(start, start + self.states)

    def _span(self, origin: int, block: int) -> slice:
        if block < 0:
            return slice(origin, origin + self.frame)
        start = origin + self.frame + block * self.block
        return slice(start, start + self.block)


def dense_mask(layout: TeacherForcing, device: torch.device | None = None) -> Tensor:
    """The table of MODEL.md 3 as bool ``[l, l]``: row = query, column = key, true = sees."""
    mask = torch.zeros(layout.length, layout.length, dtype=torch.bool, device=device)
    for i in range(-1, layout.blocks):
        own = layout.clean(i)
        mask[own, : own.stop] = True
        noisy = layout.noisy(i)
        mask[noisy, noisy] = True
        if i < 0:
            continue
        rows = [noisy, layout.action(i)]
        columns = [slice(0, own.start), noisy, layout.action(i), layout.state(i)]
        for row in rows:
            for column in columns:
                mask[row, column] = True
        mask[layout.state(i), layout.state(i)] = True
    if layout.leaky:
        noisy_all = slice(layout.video, 2 * layout.video)
        mask[noisy_all, : 2 * layout.video] = True
    return mask


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention on ``[b, l, heads, head_dim]``; the output has the shape of ``q``."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
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
    for i in range(-1, layout.blocks):
        own = layout.clean(i)
        past = slice(0, own.stop)
        clean.append(attend(pick(q, own), pick(k, past), pick(v, past)))
        if i < 0:
            span = layout.noisy(i)
            noisy.append(attend(pick(q, span), pick(k, span), pick(v, span)))
            continue
        queries = [layout.noisy(i), layout.action(i)]
        keys = [slice(0, own.start), *queries, layout.state(i)]
        out = attend(pick(q, *queries), pick(k, *keys), pick(v, *keys))
        noisy.append(out[:, : layout.block])
        actions.append(out[:, layout.block :])
    # A state sees only itself when there is one a block: its output is its own value.
    states = [
        v[:, s] if layout.states == 1 else attend(q[:, s], k[:, s], v[:, s])
        for s in (layout.state(i) for i in range(layout.blocks))
    ]
    return torch.cat([*clean, *noisy, *actions, *states], dim=1)
