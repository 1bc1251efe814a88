"""The inner loop of attention: online softmax over keys and values that come tile by tile."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from .common import power_of_two


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


def tile(
    head_dim: int, queries: int, bytes_each: int, capability: int, sums: int = 1
) -> dict[str, int]:
    """Tile sizes, warps and stages for a GPU; small problems take small tiles.

    ``sums`` is how many attended tiles a program holds at once. Chosen so that nothing spills
    (``resources.json``), not yet by timing.
    """
    if bytes_each == 4:
        block_m, block_n, warps, stages = 32, 32, 4, 2
    elif capability >= 90:
        block_m, block_n, warps, stages = 128, 64, 8, 3 if sums == 1 else 2
    else:
        block_m, block_n, warps, stages = 128, 64 if sums == 1 else 32, 8, 2
    return {
        "BLOCK_M": min(block_m, max(16, power_of_two(queries))),
        "BLOCK_N": block_n,
        "num_warps": warps,
        "num_stages": stages,
    }
