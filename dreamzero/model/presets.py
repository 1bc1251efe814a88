"""Named sizes of the transformer. Text, image and video encoders are chosen by the checkpoint."""

from __future__ import annotations

from typing import Any

from ..errors import UserError

_TINY = {
    "dim": 192,
    "ffn_dim": 512,
    "num_layers": 6,
    "num_heads": 3,
    "freq_dim": 128,
    "text_dim": 128,
    "projector_dim": 256,
    "action_dim": 8,
    "state_dim": 8,
    "in_channels": 24,
    "out_channels": 24,
    "horizon": 8,
    "position_grid": (4, 4),
}
_WAN_14B = {
    "dim": 5120,
    "ffn_dim": 13824,
    "num_layers": 40,
    "num_heads": 40,
    "text_dim": 4096,
    "image_dim": 1280,
    "in_channels": 36,
    "out_channels": 16,
    "action_dim": 32,
    "state_dim": 64,
    "projector_dim": 1024,
    "horizon": 24,
}

PRESETS: dict[str, dict[str, Any]] = {
    # Small models of this project: 64 x 64 canvas, word encoder, small codec.
    "tiny": _TINY,
    "small": {**_TINY, "dim": 384, "ffn_dim": 1024, "num_layers": 12, "num_heads": 6},
    # The released backbones (MODEL.md 2).
    "wan2.1-14b-droid": _WAN_14B,
    "wan2.1-14b-agibot": {**_WAN_14B, "horizon": 48},
    "wan2.1-1.3b": {**_WAN_14B, "dim": 1536, "ffn_dim": 8960, "num_layers": 30, "num_heads": 12},
    "wan2.2-5b": {
        **_WAN_14B,
        "dim": 3072,
        "ffn_dim": 14336,
        "num_layers": 30,
        "num_heads": 24,
        "in_channels": 48,
        "out_channels": 48,
    },
}


def preset(name: str) -> dict[str, Any]:
    """Constructor arguments of ``DreamZeroTransformer`` for a named size."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return dict(PRESETS[name])
