"""The public DreamZero release's transformer: its weights under our names, its arguments as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .checkpoints.names import convert


def transformer_state_dict(release: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The release's transformer weights (names without prefix) under our names.

    Raises:
        UserError: a name that the release's transformer does not have.
    """
    return convert("transformer", release)


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
