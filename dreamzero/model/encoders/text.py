"""UMT5-XXL for prompts: transformers' encoder, padded as Wan pads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError
from .library import load_model, transformers, user_errors


def load_tokenizer(path: str | Path) -> Any:
    """transformers' tokenizer in a local folder.

    Raises:
        UserError: no such folder, or no tokenizer in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder: UMT5's tokenizer files belong there "
            "(`dreamzero checkpoint import --tokenizer DIR` puts them there)"
        )
    with user_errors(folder):
        return transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True)


class UMT5TextEncoder(nn.Module):
    """Prompts to embeddings, zero on padding (MODEL.md 1).

    Args:
        model: transformers' ``UMT5EncoderModel``.
        tokenizer: its tokenizer; None for an encoder that is given token ids only.
        max_tokens: prompts are cut and padded there.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None, max_tokens: int = 512) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @classmethod
    def load(
        cls, path: str | Path, tokenizer: str | Path, dtype: torch.dtype = torch.bfloat16
    ) -> UMT5TextEncoder:
        """From two local folders: the model's and the tokenizer's.

        Raises:
            UserError: one of them is missing or does not hold what it should.
        """
        words = load_tokenizer(tokenizer)
        return cls(load_model("UMT5EncoderModel", Path(path), dtype), words)

    @property
    def dim(self) -> int:
        return int(self.model.config.d_model)  # type: ignore[union-attr, arg-type]

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """int64 ids and mask, each ``[b, max_tokens]``; every prompt ends in the end token.

        Runs of white space count as one space.

        Raises:
            UserError: there is no tokenizer.
        """
        if self.tokenizer is None:
            raise UserError("this text encoder has no tokenizer: load it with its folder")
        out = self.tokenizer(
            [" ".join(prompt.split()) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return out["input_ids"], out["attention_mask"]

    @torch.no_grad()
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids ``[b, l]`` and mask (1 on tokens) -> ``[b, l, dim]``, zero where the mask is.

        Padding must be on the right. Attention never looks at it, so that columns that are padding
        in every row are not computed.
        """
        length = max(int(mask.sum(1).max()), 1)
        device = next(self.model.parameters()).device
        ids, kept = ids[:, :length].to(device), mask[:, :length].to(device)
        hidden = self.model(input_ids=ids, attention_mask=kept).last_hidden_state
        hidden = hidden.masked_fill(kept.unsqueeze(-1) == 0, 0.0)
        return nn.functional.pad(hidden, (0, 0, 0, mask.shape[1] - length))

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """``b`` prompts -> ``[b, max_tokens, dim]`` in the weights' dtype, on their device."""
        result: Tensor = self(*self.tokenize(prompts))
        return result

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write transformers' folder; the tokenizer goes to ``tokenizer`` beside it."""
        folder = Path(save_directory)
        self.model.save_pretrained(folder)  # type: ignore[operator]
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder.parent / "tokenizer")
