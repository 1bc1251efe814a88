"""Configurations of the four networks, from a checkpoint's own ``config.json`` and tensor shapes.

The libraries' modules are then built on the meta device: what they ask for, by name and shape, is what
a checkpoint must hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import UserError
from ..presets import CLIP_VIT_H14, UMT5_XXL, WAN21_VAE, WAN22_VAE

Shape = tuple[int, ...]
STEMS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "image_encoder": "model",
}


def from_shapes(component: str, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Configuration of an encoder from its release shapes (names without prefix).

    Raises:
        UserError: a tensor that tells a width is missing or has another number of axes.
    """
    build = {"text_encoder": _text, "image_encoder": _image, "vae": _video}[component]
    try:
        return build(shapes)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"the {component} is none of Wan's: {error} is missing or of another form"
        ) from error


def transformer(
    shapes: Mapping[str, Shape], given: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Arguments of ``DreamZeroTransformer``; what no configuration says is read off the shapes.

    Args:
        shapes: release name without prefix -> shape; coders may be missing (plain Wan).
        given: ``dim``, ``ffn_dim``, ``num_layers``, ``num_heads``, ``in_dim``, ``out_dim``,
            ``freq_dim``, and for DreamZero ``num_action_per_block`` and the like.
        where: file that ``given`` comes from, for messages.

    Raises:
        UserError: a key or a tensor is missing.
    """
    try:
        action = shapes.get("action_encoder.W1.W", (1, 32, 0))
        state = shapes.get("state_encoder.layer1.W", (1, 64, 1024))
        image = shapes.get("img_emb.proj.0.weight")
        return {
            "dim": int(given["dim"]),
            "ffn_dim": int(given["ffn_dim"]),
            "num_layers": int(given["num_layers"]),
            "num_heads": int(given["num_heads"]),
            "in_channels": int(given["in_dim"]),
            "out_channels": int(given["out_dim"]),
            "freq_dim": int(given.get("freq_dim", 256)),
            "text_dim": shapes["text_embedding.0.weight"][1],
            "image_dim": None if image is None else image[0],
            "patch_size": list(shapes["patch_embedding.weight"][2:]),
            "action_dim": action[1],
            "state_dim": state[1],
            "projector_dim": state[2],
            "slots": state[0],
            "horizon": int(given.get("num_action_per_block", 24)),
            "frames_per_block": int(given.get("num_frame_per_block", 2)),
            "window_blocks": int(given.get("max_chunk_size", 4)),
            "eps": float(given.get("eps", 1e-6)),
        }
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{where} or the tensors beside it lack {error}") from error


def _layers(shapes: Mapping[str, Shape], prefix: str) -> int:
    numbers = [int(n[len(prefix) :].split(".")[0]) for n in shapes if n.startswith(prefix)]
    return max(numbers) + 1


def _text(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    vocabulary, dim = shapes["token_embedding.weight"]
    buckets, heads = shapes["blocks.0.pos_embedding.embedding.weight"]
    return UMT5_XXL | {
        "architectures": ["UMT5EncoderModel"],
        "vocab_size": vocabulary,
        "d_model": dim,
        "d_kv": shapes["blocks.0.attn.q.weight"][0] // heads,
        "d_ff": shapes["blocks.0.ffn.fc1.weight"][0],
        "num_layers": _layers(shapes, "blocks."),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
    }


def _image(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    # The number of heads cannot be read off: it stays that of the ViT-H in every Wan file.
    dim, _, patch, _ = shapes["visual.patch_embedding.weight"]
    side = round((shapes["visual.pos_embedding"][-2] - 1) ** 0.5)
    return CLIP_VIT_H14 | {
        "architectures": ["CLIPVisionModel"],
        "hidden_size": dim,
        "intermediate_size": shapes["visual.transformer.0.mlp.0.weight"][0],
        "num_hidden_layers": _layers(shapes, "visual.transformer."),
        "image_size": patch * side,
        "patch_size": patch,
    }


def _video(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    base, channels = shapes["encoder.conv1.weight"][:2]
    known = WAN21_VAE if channels == 3 else WAN22_VAE
    if shapes["conv2.weight"][0] != known["z_dim"]:
        raise ValueError("conv2.weight")  # mean and spread of other latents are not known
    if channels == 3:
        return known | {"base_dim": base}
    return known | {
        "base_dim": base,
        "decoder_base_dim": shapes["decoder.conv1.weight"][0] // 4,
        "in_channels": channels,
        "out_channels": channels,
    }


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder; UserError if it is missing or no JSON object."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: it says how large the model is") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON ({error}): download it again") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__} where an object belongs")
    return data


def empty_module(component: str, config: Mapping[str, Any]) -> nn.Module:
    """The component's module on the meta device: names and shapes, no memory.

    Raises:
        UserError: the configuration is not one of such a module, or transformers is missing.
    """
    with torch.device("meta"):
        try:
            if component == "transformer":
                from ..transformer import DreamZeroTransformer

                return DreamZeroTransformer.from_config(dict(config))  # type: ignore[no-any-return]
            if component == "vae":
                from diffusers import AutoencoderKLWan

                return AutoencoderKLWan.from_config(dict(config))
            try:
                import transformers
            except ImportError as error:
                raise UserError(
                    f"the {component} needs transformers: pip install 'dreamzero[text]'"
                ) from error
            if component == "text_encoder":
                return transformers.UMT5EncoderModel(transformers.UMT5Config(**config))
            return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**config))
        except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
            raise UserError(f"the configuration of the {component} fits none: {error}") from error


def write_config(component: str, config: Mapping[str, Any], folder: Path) -> None:
    """``config.json`` as the component's library writes it."""
    module: Any = empty_module(component, config)
    folder.mkdir(parents=True, exist_ok=True)
    if component in ("transformer", "vae"):
        module.save_config(folder)
    else:
        module.config.architectures = list(config.get("architectures", ()))
        module.config.save_pretrained(folder)
