"""Names of the public DreamZero release and ours, parameter by parameter.

Ours are those of diffusers' Wan where Wan has the part; the coders keep their own. Every mapping
is one to one; nothing is transposed or concatenated in the transformer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"blocks\.(\d+)\.self_attn\.([qkv])\.(.+)", r"blocks.\1.attn1.to_\2.\3"),
    (r"blocks\.(\d+)\.self_attn\.o\.(.+)", r"blocks.\1.attn1.to_out.0.\2"),
    (r"blocks\.(\d+)\.self_attn\.norm_([qk])\.(.+)", r"blocks.\1.attn1.norm_\2.\3"),
    (r"blocks\.(\d+)\.cross_attn\.([qkv])\.(.+)", r"blocks.\1.attn2.to_\2.\3"),
    (r"blocks\.(\d+)\.cross_attn\.o\.(.+)", r"blocks.\1.attn2.to_out.0.\2"),
    (r"blocks\.(\d+)\.cross_attn\.norm_([qk])\.(.+)", r"blocks.\1.attn2.norm_\2.\3"),
    (r"blocks\.(\d+)\.cross_attn\.([kv])_img\.(.+)", r"blocks.\1.attn2.add_\2_proj.\3"),
    (
        r"blocks\.(\d+)\.cross_attn\.norm_k_img\.(.+)",
        r"blocks.\1.attn2.norm_added_k.\2",
    ),
    (r"blocks\.(\d+)\.norm3\.(.+)", r"blocks.\1.norm2.\2"),
    (r"blocks\.(\d+)\.ffn\.0\.(.+)", r"blocks.\1.ffn.net.0.proj.\2"),
    (r"blocks\.(\d+)\.ffn\.2\.(.+)", r"blocks.\1.ffn.net.2.\2"),
    (r"blocks\.(\d+)\.modulation", r"blocks.\1.scale_shift_table"),
    (r"head\.modulation", r"scale_shift_table"),
    (r"head\.head\.(.+)", r"proj_out.\1"),
    (r"patch_embedding\.(.+)", r"patch_embedding.\1"),
    (r"time_embedding\.0\.(.+)", r"condition_embedder.time_embedder.linear_1.\1"),
    (r"time_embedding\.2\.(.+)", r"condition_embedder.time_embedder.linear_2.\1"),
    (r"time_projection\.1\.(.+)", r"condition_embedder.time_proj.\1"),
    (r"text_embedding\.0\.(.+)", r"condition_embedder.text_embedder.linear_1.\1"),
    (r"text_embedding\.2\.(.+)", r"condition_embedder.text_embedder.linear_2.\1"),
    (r"img_emb\.proj\.0\.(.+)", r"condition_embedder.image_embedder.norm1.\1"),
    (r"img_emb\.proj\.1\.(.+)", r"condition_embedder.image_embedder.ff.net.0.proj.\1"),
    (r"img_emb\.proj\.3\.(.+)", r"condition_embedder.image_embedder.ff.net.2.\1"),
    (r"img_emb\.proj\.4\.(.+)", r"condition_embedder.image_embedder.norm2.\1"),
    (r"(state_encoder|action_decoder)\.(layer[12])\.W", r"\1.\2.weight"),
    (r"(state_encoder|action_decoder)\.(layer[12])\.b", r"\1.\2.bias"),
    (r"action_encoder\.(W[123])\.W", r"action_encoder.\1.weight"),
    (r"action_encoder\.(W[123])\.b", r"action_encoder.\1.bias"),
)
_COMPILED = tuple((re.compile(pattern), target) for pattern, target in _PATTERNS)


def transformer_name(release: str) -> str:
    """Our name of a release parameter (without the ``action_head.model.`` prefix); KeyError if unknown."""
    for pattern, target in _COMPILED:
        if pattern.fullmatch(release):
            return pattern.sub(target, release)
    raise KeyError(f"{release!r} is no parameter of the release's transformer")


def transformer_state_dict(release: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The release's transformer weights under our names."""
    return {transformer_name(name): tensor for name, tensor in release.items()}


def transformer_config(release: Mapping[str, Any]) -> dict[str, Any]:
    """Our constructor arguments from the release's; ``image_dim`` as in golden cases (1280 else)."""
    return {
        "dim": release["dim"],
        "ffn_dim": release["ffn_dim"],
        "num_layers": release["num_layers"],
        "num_heads": release["num_heads"],
        "in_channels": release["in_dim"],
        "out_channels": release["out_dim"],
        "text_dim": release["text_dim"],
        "freq_dim": release["freq_dim"],
        "patch_size": tuple(release["patch_size"]),
        "action_dim": release["action_dim"],
        "state_dim": release["max_state_dim"],
        "projector_dim": release["hidden_size"],
        "horizon": release["num_action_per_block"],
        "frames_per_block": release["num_frame_per_block"],
        "window_blocks": release["max_chunk_size"],
        "image_dim": release.get("image_dim", 1280),
    }
