"""A fingerprint of a transformer, so that an adapter can refuse another base.

SHA-256 over the tensors in the order of their names: for each its name, dtype and shape as one line of
JSON, then up to 4096 bytes from its beginning, its middle and its end. Any training step moves
nearly every weight, so the sample tells two checkpoints apart; 1317 tensors of the 14B model cost 16 MB
of reading. Tensors that the adapter brings whole (the action and state coders) are left out: they may
differ between bases that are otherwise the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import torch

from .shards import Weights

_SAMPLE = 4096


def fingerprint(weights: Weights, without: Iterable[str] = ()) -> str:
    """Hexadecimal fingerprint of a transformer's weights under our names.

    Args:
        without: names that do not count.
    """
    digest = hashlib.sha256()
    left_out = set(without)
    for name in sorted(weights.entries):
        if name in left_out:
            continue
        entry = weights.entries[name]
        digest.update(json.dumps([name, entry.dtype, list(entry.shape)]).encode() + b"\n")
        tensor = weights.tensor(name)
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        for start in (0, len(data) // 2, max(len(data) - _SAMPLE, 0)):
            digest.update(data[start : start + _SAMPLE].tobytes())
        del tensor, data
        weights.release(name)
    return digest.hexdigest()
