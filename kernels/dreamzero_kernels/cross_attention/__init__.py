"""Attention over text plus attention over image tokens: two softmaxes, one pass."""

from __future__ import annotations

from torch import Tensor

from ..cached_attention import HEAD_DIMS, library_attention
from ..common import FLOATS, Backend, check, choose, require, same_strides
from . import reference

_OP = "cross_attention"


def cross_attention(
    q: Tensor,
    text: tuple[Tensor, Tensor],
    image: tuple[Tensor, Tensor] | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """``softmax(q text_k') text_v + softmax(q image_k') image_v``; every token sees all.

    Args:
        q: ``[b, l, heads, head_dim]``, head_dim 16, 32, 64 or 128; rows may be strided.
        text: keys and values ``[b, n, heads, head_dim]`` in the dtype of ``q``; they depend on the
            prompt alone and are made once an episode.
        image: the same of the image tokens, or None for a model without them.
        backend: "library" is two calls of ``scaled_dot_product_attention`` and a sum.

    Returns:
        ``[b, l, heads, head_dim]``, contiguous, in the dtype of ``q``.

    Raises:
        ValueError: shape, dtype, device or layout is wrong, in one line.
    """
    check(_OP, "q", q, (None, None, None, None), FLOATS, contiguous=2)
    batch, _, heads, head_dim = q.shape
    require(
        head_dim in HEAD_DIMS,
        f"{_OP}: head_dim must be one of {HEAD_DIMS}, got {head_dim}",
    )
    for name, pair in (("text", text), ("image", image)):
        if pair is None:
            continue
        for part, x in zip(("keys", "values"), pair, strict=True):
            shape = (batch, pair[0].shape[1], heads, head_dim)
            check(_OP, f"{name} {part}", x, shape, (q.dtype,), q.device, contiguous=2)
        require(pair[0].shape[1] > 0, f"{_OP}: {name} has no tokens")
        same_strides(_OP, f"{name} keys and values", *pair)
    chosen = choose(_OP, q, backend, library=True)
    if chosen == "triton":
        from .kernel import cross_attention as fused

        return fused(q, text, image)
    if chosen == "library":
        out = library_attention(q, *text)
        if image is not None:
            out = out + library_attention(q, *image)
        return out.contiguous()
    return reference.cross_attention(q, text, image)
