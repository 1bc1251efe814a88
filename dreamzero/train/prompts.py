"""Instructions as the transformer reads them: embeddings of a frozen encoder, computed once.

UMT5-XXL has 5.7 billion parameters and its answer to a prompt never changes: a training needs it for
a moment at the beginning and not at every step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from .cache import content, save
from .features import digest
from .trained import on_device


class Prompts(Protocol):
    """A word encoder that is trained along, or a ``PromptTable``."""

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """``b`` prompts -> ``[b, l, text_dim]``, zero where there is no word."""
        ...


class PromptTable:
    """Embeddings of known prompts, without the zeros behind their words.

    Args:
        encoder: text encoder of a model; it is not kept.
        prompts: all that will be asked for; the empty one (a dropped prompt) is added.
        device: where ``encode`` gives its answer, and where the encoder goes while prompts are missing.
        cache: folder (of ``cache.FeatureCache``) where embeddings are looked for and kept.
    """

    def __init__(
        self,
        encoder: Any,
        prompts: Iterable[str],
        device: torch.device | str,
        cache: Path | None = None,
        progress: bool = False,
    ) -> None:
        from tqdm.auto import tqdm

        self._device = device
        self._length = 0
        wanted = sorted({*prompts, ""})
        name = "" if cache is None else digest(encoder)[:32]
        known = {} if cache is None else self._load(cache, name)
        keys = {} if cache is None else {p: _key(encoder, p) for p in wanted}
        self._rows = {p: known[key] for p, key in keys.items() if key in known}
        missing = [p for p in wanted if p not in self._rows]
        needed = [encoder] if missing and isinstance(encoder, torch.nn.Module) else []
        with torch.no_grad(), on_device(needed, device):
            for prompt in tqdm(missing, desc="encode prompts", disable=not progress):
                (embedding,) = encoder.encode([prompt]).cpu()
                used = embedding.ne(0).any(dim=1).nonzero()
                length = int(used[-1]) + 1 if len(used) else 0
                self._rows[prompt] = embedding[:length].clone()
                self._length = len(embedding)
        if cache is not None and missing:
            tensors = {keys[p]: self._rows[p] for p in missing}
            path = cache / "prompts" / f"{name}-{content(tensors)[:16]}.safetensors"
            save(tensors, path, {"length": str(self._length)})

    def _load(self, cache: Path, name: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for path in sorted((cache / "prompts").glob(f"{name}-*.safetensors")):
            with safe_open(path, "pt") as file:
                found |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                self._length = int(file.metadata()["length"])
        return found

    def __len__(self) -> int:
        return len(self._rows)

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """``b`` known prompts -> float32 ``[b, l, text_dim]``, as long as the encoder's own."""
        rows = [self._rows[prompt] for prompt in prompts]
        out = torch.zeros(len(rows), self._length, rows[0].shape[1])
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        return out.to(self._device)


def _key(encoder: Any, prompt: str) -> str:
    """Digest of the tokens that the network is given for a prompt."""
    tokens = encoder.tokenize([prompt])
    parts = tokens if isinstance(tokens, tuple) else (tokens,)
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()
