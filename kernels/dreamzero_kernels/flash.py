"""The inner loop of attention: online softmax over keys and values that come tile by tile."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from .common import power_of_two
from .tiles import Tile, big, pick


@triton.jit
def attend_tile(
    acc,
    best,
    norm,
    q,
    keys,
    values,
    start,
    length,
    k_row,
    v_row,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TAIL: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Take in keys start to start + BLOCK_N; TAIL drops those from ``length`` on.

    ``best`` (running maximum) and ``scale`` are in powers of two: exp2 is the cheap exponential.
    """
    token = start + tl.arange(0, BLOCK_N)
    channel = tl.arange(0, HEAD_DIM)
    k_at = keys + token[None, :] * k_row + channel[:, None]
    v_at = values + token[:, None] * v_row + channel[None, :]
    if TAIL:
        seen = token < length
        k = tl.load(k_at, mask=seen[None, :], other=0.0)
        score = tl.dot(q, k, input_precision=PRECISION) * scale
        score = tl.where(seen[None, :], score, float("-inf"))
    else:
        k = tl.load(k_at)
        score = tl.dot(q, k, input_precision=PRECISION) * scale
    higher = tl.maximum(best, tl.max(score, axis=1))
    weight = tl.exp2(score - higher[:, None])
    shrink = tl.exp2(best - higher)
    norm = norm * shrink + tl.sum(weight, axis=1)
    acc = acc * shrink[:, None]
    if TAIL:
        v = tl.load(v_at, mask=seen[:, None], other=0.0)
    else:
        v = tl.load(v_at)
    acc = tl.dot(weight.to(v.dtype), v, acc, input_precision=PRECISION)
    return acc, higher, norm


@triton.jit
def attend_all(
    q,
    keys,
    values,
    length,
    k_row,
    v_row,
    scale,
    BLOCK_M: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attention of ``q [BLOCK_M, HEAD_DIM]`` over the first ``length`` >= 1 keys: fp32, normalised."""
    acc = tl.zeros((BLOCK_M, HEAD_DIM), dtype=tl.float32)
    best = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    norm = tl.zeros((BLOCK_M,), dtype=tl.float32)
    whole = length // BLOCK_N * BLOCK_N
    for start in range(0, whole, BLOCK_N):
        acc, best, norm = attend_tile(
            acc, best, norm, q, keys, values, start, length, k_row, v_row, scale,
            HEAD_DIM, BLOCK_N, False, PRECISION,
        )  # fmt: skip
    if whole < length:
        acc, best, norm = attend_tile(
            acc, best, norm, q, keys, values, whole, length, k_row, v_row, scale,
            HEAD_DIM, BLOCK_N, True, PRECISION,
        )  # fmt: skip
    return acc / norm[:, None]


def tile(name: str, queries: int, bytes_each: int, capability: int, sums: int = 1) -> Tile:
    """Tile sizes, warps and stages of ``name`` on a GPU; few queries take small tiles.

    ``sums`` is how many attended tiles a program holds at once. The defaults do not spill
    (``resources.json``); timing is for ``tiles.json``.
    """
    if bytes_each == 4:
        block = {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 4, "num_stages": 2}
    else:
        block = {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2}
        if big(capability):
            block["num_stages"] = 3 if sums == 1 else 2
        elif sums > 1:
            block["BLOCK_N"] = 32
        block = pick(name, capability, block)
    block["BLOCK_M"] = min(block["BLOCK_M"], max(16, power_of_two(queries)))
    return block
