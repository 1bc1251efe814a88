"""Parity of the encoders with vectors that the public release computed.

The libraries' modules run the release's weights under our names; the folder is named by
``DREAMZERO_GOLDEN`` as in ``test_transformer``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from dreamzero.model.checkpoints.names import convert, revert
from dreamzero.model.codecs.wan import WanCodec
from dreamzero.model.encoders.image import ImageEncoder
from dreamzero.model.encoders.text import UMT5TextEncoder

FOLDER = Path(
    os.environ.get("DREAMZERO_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden")
)
BAR = 1e-5
CLIP_EXTRA = {"visual.head", "log_scale"}


def cases(*kinds: str) -> list[Any]:
    found = []
    for path in sorted(FOLDER.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if json.loads(file.metadata()["case"])["kind"] in kinds:
                found.append(pytest.param(path, id=path.stem))
    missing = pytest.mark.skip(reason=f"no golden case {'/'.join(kinds)!r} in {FOLDER}")
    return found or [pytest.param(FOLDER, id="/".join(kinds), marks=missing)]


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        case = json.loads(file.metadata()["case"])

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    case["weights"] = part("state_dict.")
    return case, part("input."), part("output.")


def error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return ((actual - expected).norm() / expected.norm()).item()


def fill(module: nn.Module, component: str, weights: dict[str, Tensor]) -> None:
    """Every parameter from the case, every tensor of the case used."""
    missing, unexpected = module.load_state_dict(convert(component, weights), strict=False)
    assert not unexpected
    assert set(missing) <= {"encoder.embed_tokens.weight"}  # tied to shared.weight
    module.eval().requires_grad_(False)
    back = revert(component, dict(module.named_parameters()))
    assert back.keys() == weights.keys() - CLIP_EXTRA
    assert all(torch.equal(tensor, weights[name]) for name, tensor in back.items())


@pytest.mark.parametrize("path", cases("text_encoder"))
def test_text_encoder(path: Path) -> None:
    from transformers import UMT5Config, UMT5EncoderModel

    case, given, expected = read(path)
    config = case["config"]
    assert not config["shared_pos"]
    module = UMT5EncoderModel(
        UMT5Config(
            vocab_size=config["vocab"],
            d_model=config["dim"],
            d_kv=config["dim_attn"] // config["num_heads"],
            d_ff=config["dim_ffn"],
            num_heads=config["num_heads"],
            num_layers=config["num_layers"],
            relative_attention_num_buckets=config["num_buckets"],
            feed_forward_proj="gated-gelu",
            dropout_rate=config["dropout"],
        )
    )
    fill(module, "text_encoder", case["weights"])
    encoder = UMT5TextEncoder(module)
    assert encoder.dim == config["dim"]
    embedding = encoder(given["ids"], given["mask"])
    assert error(embedding, expected["embedding"]) < BAR
    padding = given["mask"] == 0
    assert padding.any()
    assert not embedding[padding].any()


@pytest.mark.parametrize("path", cases("image_encoder"))
def test_image_encoder(path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    case, given, expected = read(path)
    config = case["config"]
    module = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=config["dim"],
            intermediate_size=config["dim"] * config["mlp_ratio"],
            num_hidden_layers=config["num_layers"],
            num_attention_heads=config["num_heads"],
            image_size=config["image_size"],
            patch_size=config["patch_size"],
            hidden_act=config["activation"],
        )
    )
    fill(module, "image_encoder", case["weights"])
    encoder = ImageEncoder(module)
    assert encoder.dim == config["dim"]
    assert error(encoder.prepare(given["canvas"]), given["pixels"]) < BAR
    assert error(encoder.encode(given["canvas"]), expected["features"]) < BAR


def codec(case: dict[str, Any], given: dict[str, Tensor]) -> WanCodec:
    from diffusers import AutoencoderKLWan

    config = case["config"]
    second = {"is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2}
    vae = AutoencoderKLWan(
        base_dim=config["dim"],
        decoder_base_dim=config.get("dec_dim"),
        z_dim=config["z_dim"],
        latents_mean=given["latents_mean"].tolist(),
        latents_std=given["latents_std"].tolist(),
        **({**second, "scale_factor_spatial": 16} if case["kind"] == "vae_22" else {}),
    )
    fill(vae, "vae", case["weights"])
    return WanCodec(vae)


@pytest.mark.parametrize("path", cases("vae", "vae_22"))
def test_video_codec(path: Path) -> None:
    case, given, expected = read(path)
    wan = codec(case, given)
    assert error(wan.encode(given["video"]), expected["latents"]) < BAR
    assert error(wan.decode(expected["latents"]), expected["video"]) < BAR


@pytest.mark.parametrize("path", cases("vae", "vae_22"))
def test_video_codec_streams(path: Path) -> None:
    """Four frames at a time, from a cache that may be used twice, is the whole clip at once."""
    case, given, expected = read(path)
    wan, video = codec(case, given), given["video"]
    latents, cache = wan.encode_next(video[:, :, :1])
    parts = [latents]
    for start in range(1, video.shape[2], 4):
        four = video[:, :, start : start + 4]
        wan.encode_next(torch.zeros_like(four), cache)  # what might have come leaves no trace
        latents, cache = wan.encode_next(four, cache)
        parts.append(latents)
    streamed = torch.cat(parts, 2)
    assert cache.latents == streamed.shape[2]
    assert error(streamed, wan.encode(video)) < BAR
    assert error(streamed, expected["latents"]) < BAR
    # And it is the library's own call on the whole clip.
    mean = wan.vae.encode(video).latent_dist.mode()
    shift, scale = (given[k].view(1, -1, 1, 1, 1) for k in ("latents_mean", "latents_std"))
    assert error(streamed, (mean - shift) / scale) < BAR

    frames, past = wan.decode_next(expected["latents"][:, :, :1])
    rest, _ = wan.decode_next(expected["latents"][:, :, 1:], past)
    assert error(torch.cat([frames, rest], 2), wan.decode(expected["latents"])) < BAR
