"""What cross_attention computes, in plain PyTorch and float32."""

from __future__ import annotations

from torch import Tensor

from ..cached_attention.reference import attend


def cross_attention(
    q: Tensor,
    text: tuple[Tensor, Tensor],
    image: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """``q [b, l, heads, head_dim]`` over text, plus over image tokens ``[b, n, heads, head_dim]``;
    in the shape and dtype of ``q``.
    """
    out = attend(q, *text)
    if image is not None:
        out = out + attend(q, *image)
    return out.to(q.dtype)
