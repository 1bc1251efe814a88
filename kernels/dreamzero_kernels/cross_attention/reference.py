"""What cross_attention computes, in plain PyTorch and float32."""

from __future__ import annotations

from torch import Tensor

from ..cached_attention.reference import attend


def cross_attention(
    q: Tensor,
    text: tuple[Tensor, Tensor],
    image: tuple[Tensor, Tensor] | None,
) -> Tensor:
    out = attend(q, *text)
    if image is not None:
        out = out + attend(q, *image)
    return out.to(q.dtype)
