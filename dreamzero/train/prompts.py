"""Instructions as the transformer reads them: embeddings of a frozen encoder, computed once.

UMT5-XXL has 5.7 billion parameters and its answer to a prompt never changes: a training needs it for
a moment at the beginning and not at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Prompts(Protocol):
    """A word encoder that is trained along, or a ``PromptTable``."""

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """``b`` prompts -> ``[b, l, text_dim]``, zero where there is no word."""
        ...


class PromptTable:
    """Embeddings of known prompts, without the zeros behind their words.

    Args:
        encoder: text encoder of a model; it runs where it is and is not kept.
        prompts: all that will be asked for; the empty one (a dropped prompt) is added.
        device: where ``encode`` gives its answer.
    """

    def __init__(self, encoder: Any, prompts: Iterable[str], device: torch.device | str) -> None:
        self._device = device
        self._rows: dict[str, Tensor] = {}
        with torch.no_grad():
            for prompt in sorted({*prompts, ""}):
                (embedding,) = encoder.encode([prompt]).cpu()
                used = embedding.ne(0).any(dim=1).nonzero()
                length = int(used[-1]) + 1 if len(used) else 0
                self._rows[prompt] = embedding[:length].clone()
                self._length = len(embedding)

    def __len__(self) -> int:
        return len(self._rows)

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """``b`` known prompts -> float32 ``[b, l, text_dim]``, as long as the encoder's own."""
        rows = [self._rows[prompt] for prompt in prompts]
        out = torch.zeros(len(rows), self._length, rows[0].shape[1])
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        return out.to(self._device)
