"""Video codecs: a small trained one and diffusers' Wan VAE, behind one interface.

>>> codec = codecs.load("runs/tiny/vae")
>>> latents = codec.encode(to_float(frames).unsqueeze(0))   # [1, c, f, h/8, w/8]
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ...errors import UserError
from .base import Codec, CodecCache, to_float, to_uint8

__all__ = ["Codec", "CodecCache", "load", "to_float", "to_uint8"]


def load(path: str | Path, dtype: torch.dtype = torch.float32) -> Codec:
    """The codec that a folder's ``config.json`` names, in evaluation mode, without gradients.

    Args:
        path: folder that ``save_pretrained`` wrote (TinyCodec or diffusers' AutoencoderKLWan).
        dtype: of the weights in memory.

    Raises:
        UserError: no such folder, another kind of model, weights that do not fit.
    """
    path = Path(path)
    config = path / "config.json"
    if not config.is_file():
        raise UserError(f"{path} holds no codec (no config.json): give a folder with a video codec")
    try:
        kind = json.loads(config.read_text()).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{config} is not the JSON of a codec: {error}") from error
    # Imported here: diffusers takes seconds, and most users need one of the two.
    try:
        if kind == "TinyCodec":
            from .tiny import TinyCodec

            codec: Codec = TinyCodec.from_pretrained(path, torch_dtype=dtype)
        elif kind == "AutoencoderKLWan":
            from diffusers import AutoencoderKLWan

            from .wan import WanCodec

            codec = WanCodec(AutoencoderKLWan.from_pretrained(path, torch_dtype=dtype))
        else:
            raise UserError(
                f"{path} is a {kind or 'model of no name'}, not a video codec: "
                "TinyCodec and AutoencoderKLWan are known"
            )
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path}: weights do not fit their config.json: {error}") from error
    codec.eval().requires_grad_(False)  # type: ignore[attr-defined]
    return codec
