"""CLIP ViT-H/14 for first frames: transformers' vision model, read one layer before its end."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import UserError
from .library import load_model

# OpenAI's pixel statistics, in [0, 1]; open_clip's ViT-H was trained with them too.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageEncoder(nn.Module):
    """Frames to the tokens that cross-attention reads.

    Args:
        model: transformers' ``CLIPVisionModel``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @classmethod
    def load(cls, path: str | Path, dtype: torch.dtype = torch.bfloat16) -> ImageEncoder:
        """From a local folder.

        Raises:
            UserError: weights are missing or do not fit.
        """
        return cls(load_model("CLIPVisionModel", Path(path), dtype))

    @property
    def dim(self) -> int:
        return int(self.model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def prepare(self, frames: Tensor) -> Tensor:
        """Canvases ``[b, 3, h, w]`` in [-1, 1] -> float32 pixels ``[b, 3, s, s]`` as CLIP wants them.

        The canvas is squeezed to a square (bicubic, aspect not kept), as in the release.

        Raises:
            UserError: another shape.
        """
        if frames.ndim != 4 or frames.shape[1] != 3:
            raise UserError(f"an image encoder takes frames [b, 3, h, w], got {list(frames.shape)}")
        side = int(self.model.config.image_size)  # type: ignore[union-attr, arg-type]
        square = nn.functional.interpolate(
            frames.float(), (side, side), mode="bicubic", align_corners=False
        )
        # No buffers: casting the module would round them.
        mean, std = (square.new_tensor(v).view(3, 1, 1) for v in (_MEAN, _STD))
        return (square * 0.5 + 0.5 - mean) / std

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """``[b, 3, h, w]`` in [-1, 1] -> ``[b, 257, 1280]`` in the weights' dtype.

        Class token first; the output of the last but one layer, without final norm.
        """
        weight = next(self.model.parameters())
        pixels = self.prepare(frames.to(weight.device)).to(weight.dtype)
        out = self.model(pixel_values=pixels, output_hidden_states=True)
        features: Tensor = out.hidden_states[-2]
        return features

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write transformers' folder."""
        self.model.save_pretrained(save_directory)  # type: ignore[operator]
