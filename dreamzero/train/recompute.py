"""Activation checkpointing, block by block: less memory for a little more arithmetic.

A block remembers for its backward pass, for every token, some twenty vectors of the model's width. Most
are cheap to make again: norms, modulations, gates, the activation function. "selective" throws those away
and keeps what products and attention gave; "full" keeps a block's input alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

_aten = torch.ops.aten
# What costs arithmetic. The scores of attention written out (``bmm``, as on CPUs) are no part of it:
# they are the largest thing there is.
KEPT = {
    _aten.mm.default,
    _aten.addmm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def set_recompute(blocks: Iterable[Any], how: str, every: int = 1) -> None:
    """Make every ``every``-th block recompute its activations.

    Args:
        how: "none", "selective" or "full" (see ``TrainSettings.recompute``).
    """
    run: Callable[..., Any] = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    if how == "selective":
        run = partial(run, context_fn=partial(create_selective_checkpoint_contexts, _policy))
    for number, block in enumerate(blocks):
        block.gradient_checkpointing = how != "none" and number % every == 0
        block._gradient_checkpointing_func = run


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are alive and were made while it is entered.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if _is_tensor(t)}
        for tensor in tree_leaves(out):
            if not _is_tensor(tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._seen or key in given:
                continue  # a view, or the result written in place
            self._seen.add(key)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, storage.nbytes())
        return out

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)
