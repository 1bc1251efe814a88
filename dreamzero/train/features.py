"""From windows of video to what the model reads, the same whether it is done now or was done before.

Each window is encoded for itself and rounded to float16 on every way, so that training from a cache
(``cache``) takes the same steps as training from video, bit for bit: convolutions of several windows at once
add up in another order than of one, which rounding hides often, not always.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..data.windows import WindowBatch
from ..model.codecs import to_float
from ..model.codecs.base import Codec
from ..model.conditioning import first_frame_latents
from ..model.encoders.image import ImageEncoder
from ..types import Batch


class FeatureEncoder:
    """The frozen encoders of a training, and the widths that vectors are padded to.

    Args:
        codec: of the video; it runs where it is.
        action_dim, state_dim: the model's widths.
        first_frame: also encode [first frame, grey ...].
        image_encoder: also keep its features of the first frames.
    """

    def __init__(
        self,
        codec: Codec,
        action_dim: int,
        state_dim: int,
        first_frame: bool = False,
        image_encoder: ImageEncoder | None = None,
    ) -> None:
        assert isinstance(codec, torch.nn.Module)
        self.codec, self.image_encoder, self.first_frame = codec, image_encoder, first_frame
        self.action_dim, self.state_dim = action_dim, state_dim
        parts: dict[str, Any] = {"codec": digest(codec), "first_frame": first_frame}
        parts["image_encoder"] = None if image_encoder is None else digest(image_encoder)
        text = json.dumps(parts, sort_keys=True)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    @torch.no_grad()
    def encode(self, video: Tensor) -> dict[str, Tensor]:
        """uint8 ``[b, t, H, W, 3]`` -> float16 features, each ``[b, ...]``, where the codec is.

        Names are those of ``Batch``: latents, and first_frame and image_features where they are read.
        """
        assert isinstance(self.codec, torch.nn.Module)
        device = next(self.codec.parameters()).device
        pieces = [self._encode(piece.to(device)) for piece in video.split(1)]
        # In the layout that storage gives back: a codec's own is another, and products round by it.
        return {n: torch.cat([piece[n] for piece in pieces]).contiguous() for n in pieces[0]}

    def _encode(self, video: Tensor) -> dict[str, Tensor]:
        x = to_float(video.cpu().numpy()).to(video.device)
        latents = self.codec.encode(x)
        found = {"latents": latents.half()}
        if self.first_frame:
            alone = first_frame_latents(self.codec, x[:, :, :1], latents.shape[2])
            found["first_frame"] = alone.half()
        if self.image_encoder is not None:
            found["image_features"] = self.image_encoder.encode(x[:, :, 0]).half()
        return found

    def __call__(self, windows: WindowBatch) -> Batch:
        """Encode the video of a batch and put all that the model reads together."""
        return self.assemble(self.encode(windows.video), windows)

    def assemble(self, features: Mapping[str, Tensor], windows: WindowBatch) -> Batch:
        """Features and vectors of the same windows as a batch for the model."""
        return Batch(
            action=pad(windows.action, self.action_dim),
            state=pad(windows.state, self.state_dim),
            action_mask=pad(windows.action_mask, self.action_dim),
            has_action=windows.has_action,
            prompt=windows.prompt,
            embodiment=windows.embodiment,
            **{name: tensor.float() for name, tensor in features.items()},
        )


def pad(x: Tensor, width: int) -> Tensor:
    """Zeros behind the last dimension of ``x [..., n]`` until it is ``width`` wide."""
    return functional.pad(x, (0, width - x.shape[-1]))


def digest(network: object) -> str:
    """Of a network's weights: names, types, shapes and every byte."""
    assert isinstance(network, torch.nn.Module)
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found.update(flat.numpy().data)
    return found.hexdigest()
