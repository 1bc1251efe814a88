"""Named sizes: the transformer's, and those of the encoders it was trained with."""

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
    "state_sees_all": False,
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
    "micro": {**_TINY, "dim": 128, "ffn_dim": 384, "num_layers": 4, "num_heads": 2},
    "tiny": _TINY,
    "small": {**_TINY, "dim": 384, "ffn_dim": 1024, "num_layers": 12, "num_heads": 6},
    # The released backbones (MODEL.md 2).
    "wan2.1-14b-droid": _WAN_14B,
    "wan2.1-14b-agibot": {**_WAN_14B, "horizon": 48},
    # Public 1.3B weights are text-to-video: the latent alone, no CLIP features.
    "wan2.1-1.3b": {
        **_WAN_14B,
        "dim": 1536,
        "ffn_dim": 8960,
        "num_layers": 30,
        "num_heads": 12,
        "in_channels": 16,
        "image_dim": None,
    },
    # Public 5B weights have no CLIP part; DreamZero's 5B adds it, as its first frame comes in there.
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


# Arguments of transformers' UMT5Config and CLIPVisionConfig and of diffusers' AutoencoderKLWan.
UMT5_XXL: dict[str, Any] = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "gated-gelu",
}
CLIP_VIT_H14: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 1024,
}
# fmt: off
# Wan 2.2's latents, channel by channel, as published with the weights; 2.1's are the library's
# defaults.
_WAN22_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
    -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
    -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
    -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
    0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
_WAN22_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
    0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
    0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
    0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
    0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
# fmt: on
WAN21_VAE: dict[str, Any] = {"base_dim": 96, "z_dim": 16}
WAN22_VAE: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": list(_WAN22_MEAN),
    "latents_std": list(_WAN22_STD),
}

ENCODERS: dict[str, dict[str, dict[str, Any]]] = {
    name: {
        "text_encoder": UMT5_XXL,
        "vae": WAN22_VAE if name == "wan2.2-5b" else WAN21_VAE,
        **({"image_encoder": CLIP_VIT_H14} if PRESETS[name]["image_dim"] else {}),
    }
    for name in PRESETS
    if name.startswith("wan")
}
"""Encoders of a full-size preset: component -> configuration. Small models train their own."""


def preset(name: str) -> dict[str, Any]:
    """Constructor arguments of ``DreamZeroTransformer`` for a named size."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return dict(PRESETS[name])
