"""cross_attention in Triton: text, then image tokens, with the queries loaded once."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..cached_attention.kernel import LOG2_E
from ..common import capability, launch
from ..flash import attend_all, tile


@triton.jit
def cross_attention_kernel(
    q,
    text_k,
    text_v,
    image_k,
    image_v,
    out,
    queries,
    texts,
    images,
    heads,
    scale,
    q_batch,
    q_row,
    text_batch,
    text_row,
    image_batch,
    image_row,
    IMAGE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A program a tile of queries, head and branch: text, then image where there is one."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    head = tl.program_id(1) % heads
    batch = (tl.program_id(1) // heads).to(tl.int64)
    channel = tl.arange(0, HEAD_DIM)
    live = (row < queries)[:, None]
    start = q + batch * q_batch + head * HEAD_DIM
    tokens = tl.load(start + row[:, None] * q_row + channel[None, :], mask=live, other=0.0)
    base = batch * text_batch + head * HEAD_DIM
    value = attend_all(
        tokens, text_k + base, text_v + base, texts, text_row, text_row, scale,
        BLOCK_M, HEAD_DIM, BLOCK_N, PRECISION,
    )  # fmt: skip
    if IMAGE:
        base = batch * image_batch + head * HEAD_DIM
        value += attend_all(
            tokens, image_k + base, image_v + base, images, image_row, image_row, scale,
            BLOCK_M, HEAD_DIM, BLOCK_N, PRECISION,
        )  # fmt: skip
    place = ((batch * queries + row[:, None]) * heads + head) * HEAD_DIM + channel[None, :]
    tl.store(out + place, value.to(out.dtype.element_ty), mask=live)


def cross_attention(
    q: Tensor, text: tuple[Tensor, Tensor], image: tuple[Tensor, Tensor] | None
) -> Tensor:
    """As ``reference.cross_attention``, which has the shapes."""
    batch, queries, heads, head_dim = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    sums = 1 if image is None else 2
    options = tile("cross_attention", queries, q.element_size(), capability(q), sums)
    image_k, image_v = text if image is None else image
    launch(
        cross_attention_kernel,
        (triton.cdiv(queries, options["BLOCK_M"]), batch * heads),
        q=q,
        text_k=text[0],
        text_v=text[1],
        image_k=image_k,
        image_v=image_v,
        out=out,
        queries=queries,
        texts=text[0].shape[1],
        images=image_k.shape[1],
        heads=heads,
        scale=head_dim**-0.5 * LOG2_E,
        q_batch=q.stride(0),
        q_row=q.stride(1),
        text_batch=text[0].stride(0),
        text_row=text[0].stride(1),
        image_batch=image_k.stride(0),
        image_row=image_k.stride(1),
        IMAGE=image is not None,
        HEAD_DIM=head_dim,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        **options,
    )
    return out
