"""Text and image encoders of the full-size models: the libraries' own, behind short calls.

>>> text = encoders.load_text("DIR/text_encoder")       # tokenizer beside it, in DIR/tokenizer
>>> text.encode(["push the red block"])                 # [1, 512, 4096]
>>> image = encoders.load_image("DIR/image_encoder")
>>> image.encode(frames)                                # [b, 257, 1280]

The video codec has its own room, ``dreamzero.model.codecs``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ...errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .image import ImageEncoder

__all__ = ["TextEncoding", "load_image", "load_text"]


class TextEncoding(Protocol):
    """What the model needs of a text encoder: UMT5's and the small models' word encoder have it."""

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """``b`` prompts -> ``[b, l, dim]``, zero where there is no token."""
        ...

    def save_pretrained(self, save_directory: str | Path) -> None: ...


def load_text(
    path: str | Path,
    tokenizer: str | Path | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> TextEncoding:
    """The text encoder that a folder's ``config.json`` names, in evaluation mode, without gradients.

    Args:
        path: folder of transformers' UMT5 encoder, or of a small model's word encoder.
        tokenizer: folder of UMT5's tokenizer; by default ``tokenizer`` beside ``path``.
        dtype: of UMT5's weights in memory (the word encoder's are always float32).

    Raises:
        UserError: no such folder, another kind of model, weights that do not fit.
    """
    path = Path(path)
    kind = kind_of(path, "text encoder")
    if kind == "umt5":
        from .text import UMT5TextEncoder

        return UMT5TextEncoder.load(path, tokenizer or path.parent / "tokenizer", dtype)
    if kind == "WordEncoder":
        from ..text import WordEncoder

        words = WordEncoder.from_pretrained(path, torch_dtype=torch.float32)
        return words.eval().requires_grad_(False)  # type: ignore[no-any-return]
    raise UserError(f"{path} is a {kind}, not a text encoder: umt5 and WordEncoder are known")


def load_image(path: str | Path, dtype: torch.dtype = torch.bfloat16) -> ImageEncoder:
    """The image encoder in a folder, in evaluation mode, without gradients.

    Args:
        path: folder of transformers' CLIP vision model.
        dtype: of the weights in memory.

    Raises:
        UserError: no such folder, another kind of model, weights that do not fit.
    """
    path = Path(path)
    kind = kind_of(path, "image encoder")
    if kind != "clip_vision_model":
        raise UserError(f"{path} is a {kind}, not an image encoder: clip_vision_model is known")
    from .image import ImageEncoder

    return ImageEncoder.load(path, dtype)


def kind_of(path: Path, what: str) -> str:
    """``model_type`` (transformers) or ``_class_name`` (diffusers) in a folder's ``config.json``."""
    config = path / "config.json"
    if not config.is_file():
        raise UserError(f"{path} holds no {what} (no config.json): give a folder with one")
    try:
        data = json.loads(config.read_text(encoding="utf-8"))
        return str(data.get("model_type") or data.get("_class_name") or "model of no name")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{config} is not the JSON of any {what}: {error}") from error
