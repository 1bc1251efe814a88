"""Tile sizes of the kernels with matrix products: a default that does not spill, or a measured one.

``tiles.json`` holds what ``dreamzero bench kernels --tune`` found on a GPU, by compute capability.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

Tile = dict[str, int]
TILES_FILE = Path(__file__).with_name("tiles.json")

TUNED = {
    "cached_attention": "cached_attention_int",
    "cross_attention": "cross_attention",
    "fp8_linear": "fp8_linear_gelu",
    "fp8_linear_gated": "fp8_linear_gate",
}
"""What has a tile to choose -> the problem it is timed on."""

_trial: dict[str, Tile] = {}


@lru_cache
def measured() -> dict[str, dict[str, Tile]]:
    """``{"sm_90": {"cached_attention": tile}}`` as committed."""
    table: dict[str, dict[str, Tile]] = json.loads(TILES_FILE.read_text(encoding="utf-8"))
    return table


def big(capability: int) -> bool:
    """Whether a program may have over 200 KiB of shared memory: data-centre GPUs since Hopper.
    Consumer ones (sm_89, sm_120) have 99 KiB."""
    return 90 <= capability < 120


def pick(name: str, capability: int, default: Tile) -> Tile:
    """The tile on trial, else the measured one, else ``default``."""
    return dict(_trial.get(name) or measured().get(f"sm_{capability}", {}).get(name) or default)


@contextlib.contextmanager
def trial(name: str, tile: Tile) -> Iterator[None]:
    """Use ``tile`` for ``name`` in this block."""
    _trial[name] = tile
    try:
        yield
    finally:
        del _trial[name]


def candidates(name: str) -> list[Tile]:
    """Tiles worth timing; some do not fit a GPU's shared memory, which the launch then says."""
    if "attention" in name:
        sizes = itertools.product((64, 128), (32, 64, 128), (2, 3, 4))
        return [
            {"BLOCK_M": m, "BLOCK_N": n, "num_warps": m // 16, "num_stages": stages}
            for m, n, stages in sizes
        ]
    wide = itertools.product((64, 128), (128, 256), (64, 128), (3, 4, 5))
    return [
        {
            "BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k,
            "num_warps": 8 if m * n > 128 * 64 else 4, "num_stages": stages,
        }
        for m, n, k, stages in wide
    ]  # fmt: skip


def keep(found: dict[str, Tile], capability: int) -> None:
    """Write ``found`` into ``tiles.json`` for this compute capability."""
    table, here = dict(measured()), f"sm_{capability}"
    table[here] = {**table.get(here, {}), **found}
    rows = [
        f' "{key}": {{\n'
        + ",\n".join(f'  "{name}": {json.dumps(tile)}' for name, tile in tiles.items())
        + "\n }"
        for key, tiles in table.items()
    ]
    TILES_FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    measured.cache_clear()
