"""Instructions to embeddings: a word encoder for small models, trained with them.

The released models read UMT5; a model of a few million parameters that knows a few dozen words
learns an embedding of each of them instead, behind the same call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

_WORD = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")
_PADDING, _UNKNOWN = 0, 1


def words(prompt: str) -> list[str]:
    """Lower-cased words and single punctuation marks."""
    return _WORD.findall(prompt.lower())


class WordEncoder(ModelMixin, ConfigMixin):
    """A learned vector for each word of a fixed vocabulary, plus one for its place.

    Args:
        vocabulary: known words; every other word shares one vector.
        dim: embedding width.
        max_words: prompts are cut there.
    """

    @register_to_config
    def __init__(self, vocabulary: Sequence[str], dim: int = 128, max_words: int = 24) -> None:
        super().__init__()
        self.index = {word: i + 2 for i, word in enumerate(vocabulary)}
        self.embedding = nn.Embedding(len(vocabulary) + 2, dim)
        self.place = nn.Parameter(0.02 * torch.randn(max_words, dim))
        nn.init.normal_(self.embedding.weight, std=0.5)

    @classmethod
    def fit(cls, prompts: Iterable[str], dim: int = 128) -> WordEncoder:
        """An encoder that knows every word of ``prompts`` (order does not matter)."""
        found = [words(prompt) for prompt in set(prompts)]
        longest = max((len(prompt) for prompt in found), default=1)
        vocabulary = sorted({word for prompt in found for word in prompt})
        return cls(vocabulary=vocabulary, dim=dim, max_words=longest + 4)

    def grown(self, prompts: Iterable[str]) -> WordEncoder:
        """This encoder and the words of ``prompts`` that it lacks, whose vectors are new."""
        found = [words(prompt) for prompt in set(prompts)]
        known = list(self.config.vocabulary)
        new = sorted({word for prompt in found for word in prompt} - set(known))
        longest = max((len(prompt) for prompt in found), default=1)
        places = max(self.config.max_words, longest + 4)
        more = WordEncoder([*known, *new], self.config.dim, places)
        with torch.no_grad():
            more.embedding.weight[: len(known) + 2] = self.embedding.weight
            more.place[: len(self.place)] = self.place
        return more

    def unknown(self, prompt: str) -> list[str]:
        """The words of a prompt that the encoder never saw."""
        return [word for word in words(prompt) if word not in self.index]

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """int64 ``[b, max_words]``, 0 where there is no word."""
        ids = torch.full((len(prompts), self.config.max_words), _PADDING)
        for row, prompt in enumerate(prompts):
            found = [self.index.get(w, _UNKNOWN) for w in words(prompt)][: self.config.max_words]
            ids[row, : len(found)] = torch.tensor(found, dtype=ids.dtype)
        return ids

    def forward(self, ids: Tensor) -> Tensor:
        """``ids [b, l]`` -> embeddings ``[b, l, dim]``, zero on padding as the release's are."""
        x = self.embedding(ids) + self.place[: ids.shape[1]]
        return x * (ids != _PADDING).unsqueeze(-1)

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """``b`` prompts -> ``[b, l, dim]`` on the encoder's device."""
        return self(self.tokenize(prompts).to(self.place.device))
