"""A public checkpoint in small: all 2146 names, every width a toy's. For tests, documents, first tries.

The shapes are written down here a second time, from the published architecture and not from
``names``; at full width they add up to the published figures (22,924,172,116 parameters).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .shards import NAMES, Entry
from .writer import ShardSet, appearing, progress_bar

Shape = tuple[int, ...]
SHARDS = 3
IMAGE_PX = (176, 320)


@dataclass(frozen=True)
class Widths:
    """Sizes of the four networks; the defaults are the toy's, ``FULL`` the release's (Wan 2.1)."""

    dim: int = 24
    ffn: int = 32
    layers: int = 40
    heads: int = 2
    freq: int = 16
    projector: int = 8
    state: int = 64
    action: int = 32
    text: int = 16
    text_ffn: int = 24
    text_heads: int = 4
    text_layers: int = 24
    vocabulary: int = 64
    image: int = 16
    image_ffn: int = 24
    image_out: int = 8
    image_side: int = 2
    image_layers: int = 32
    video: int = 4
    latents: int = 16


FULL = Widths(
    dim=5120, ffn=13824, heads=40, freq=256, projector=1024, text=4096, text_ffn=10240,
    text_heads=64, vocabulary=256384, image=1280, image_ffn=5120, image_out=1024, image_side=16,
    video=96,
)  # fmt: skip


def release_shapes(widths: Widths | None = None) -> dict[str, Shape]:
    """Every name of the public checkpoint and its shape."""
    w = widths or Widths()
    out: dict[str, Shape] = {}
    for prefix, shapes in (
        ("model.", _transformer(w)),
        ("text_encoder.", _text(w)),
        ("image_encoder.model.", _image(w)),
        ("vae.model.", _video(w)),
    ):
        out |= {f"action_head.{prefix}{name}": shape for name, shape in shapes}
    return out


def _linear(name: str, out: int, into: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _transformer(w: Widths) -> Iterator[tuple[str, Shape]]:
    d = w.dim
    for i in range(w.layers):
        block = f"blocks.{i}."
        yield block + "modulation", (1, 6, d)
        for attention, letters in (("self_attn", "qkvo"), ("cross_attn", "qkvo")):
            for letter in letters:
                yield from _linear(f"{block}{attention}.{letter}", d, d)
            for letter in "qk":
                yield f"{block}{attention}.norm_{letter}.weight", (d,)
        for letter in "kv":
            yield from _linear(f"{block}cross_attn.{letter}_img", d, d)
        yield block + "cross_attn.norm_k_img.weight", (d,)
        yield from _norm(block + "norm3", d)
        yield from _linear(block + "ffn.0", w.ffn, d)
        yield from _linear(block + "ffn.2", d, w.ffn)
    yield "patch_embedding.weight", (d, 2 * w.latents + 4, 1, 2, 2)
    yield "patch_embedding.bias", (d,)
    yield from _linear("time_embedding.0", d, w.freq)
    yield from _linear("time_embedding.2", d, d)
    yield from _linear("time_projection.1", 6 * d, d)
    yield from _linear("text_embedding.0", d, w.text)
    yield from _linear("text_embedding.2", d, d)
    yield from _norm("img_emb.proj.0", w.image)
    yield from _linear("img_emb.proj.1", w.image, w.image)
    yield from _linear("img_emb.proj.3", d, w.image)
    yield from _norm("img_emb.proj.4", d)
    yield "head.modulation", (1, 2, d)
    yield from _linear("head.head", 4 * w.latents, d)
    for name, into, out in (
        ("state_encoder.layer1", w.state, w.projector),
        ("state_encoder.layer2", w.projector, d),
        ("action_encoder.W1", w.action, d),
        ("action_encoder.W2", 2 * d, d),
        ("action_encoder.W3", d, d),
        ("action_decoder.layer1", d, w.projector),
        ("action_decoder.layer2", w.projector, w.action),
    ):
        yield f"{name}.W", (1, into, out)
        yield f"{name}.b", (1, out)


def _text(w: Widths) -> Iterator[tuple[str, Shape]]:
    yield "token_embedding.weight", (w.vocabulary, w.text)
    yield "norm.weight", (w.text,)
    for i in range(w.text_layers):
        block = f"blocks.{i}."
        for letter in "qkvo":
            yield f"{block}attn.{letter}.weight", (w.text, w.text)
        yield block + "pos_embedding.embedding.weight", (32, w.text_heads)
        for norm in ("norm1", "norm2"):
            yield f"{block}{norm}.weight", (w.text,)
        for name in ("gate.0", "fc1"):
            yield f"{block}ffn.{name}.weight", (w.text_ffn, w.text)
        yield block + "ffn.fc2.weight", (w.text, w.text_ffn)


def _image(w: Widths) -> Iterator[tuple[str, Shape]]:
    d = w.image
    yield "log_scale", ()
    yield "visual.cls_embedding", (1, 1, d)
    yield "visual.pos_embedding", (1, w.image_side**2 + 1, d)
    yield "visual.patch_embedding.weight", (d, 3, 14, 14)
    yield "visual.head", (d, w.image_out)
    yield from _norm("visual.pre_norm", d)
    yield from _norm("visual.post_norm", d)
    for i in range(w.image_layers):
        block = f"visual.transformer.{i}."
        yield from _norm(block + "norm1", d)
        yield from _linear(block + "attn.to_qkv", 3 * d, d)
        yield from _linear(block + "attn.proj", d, d)
        yield from _norm(block + "norm2", d)
        yield from _linear(block + "mlp.0", w.image_ffn, d)
        yield from _linear(block + "mlp.2", d, w.image_ffn)


def _conv(name: str, out: int, into: int, *kernel: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out, into, *kernel)
    yield f"{name}.bias", (out,)


def _residual(name: str, into: int, out: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.residual.0.gamma", (into, 1, 1, 1)
    yield from _conv(f"{name}.residual.2", out, into, 3, 3, 3)
    yield f"{name}.residual.3.gamma", (out, 1, 1, 1)
    yield from _conv(f"{name}.residual.6", out, out, 3, 3, 3)
    if into != out:
        yield from _conv(f"{name}.shortcut", out, into, 1, 1, 1)


def _video(w: Widths) -> Iterator[tuple[str, Shape]]:
    """Wan 2.1's VAE: widths 1, 2, 4, 4 times the base; two residual blocks down, three up."""
    base, top, z = w.video, 4 * w.video, w.latents
    yield from _conv("conv1", 2 * z, 2 * z, 1, 1, 1)
    yield from _conv("conv2", z, z, 1, 1, 1)
    for side in ("encoder", "decoder"):
        for i in (0, 2):
            yield from _residual(f"{side}.middle.{i}", top, top)
        yield f"{side}.middle.1.norm.gamma", (top, 1, 1)
        yield from _conv(f"{side}.middle.1.to_qkv", 3 * top, top, 1, 1)
        yield from _conv(f"{side}.middle.1.proj", top, top, 1, 1)
    yield from _conv("encoder.conv1", base, 3, 3, 3, 3)
    at, width = 0, base
    for level, factor in enumerate((1, 2, 4, 4)):
        for _ in range(2):
            yield from _residual(f"encoder.downsamples.{at}", width, factor * base)
            at, width = at + 1, factor * base
        if level < 3:
            yield from _conv(f"encoder.downsamples.{at}.resample.1", width, width, 3, 3)
            if level:
                yield from _conv(f"encoder.downsamples.{at}.time_conv", width, width, 3, 1, 1)
            at += 1
    yield "encoder.head.0.gamma", (width, 1, 1, 1)
    yield from _conv("encoder.head.2", 2 * z, width, 3, 3, 3)
    yield from _conv("decoder.conv1", top, z, 3, 3, 3)
    at, width = 0, top
    for level, factor in enumerate((4, 4, 2, 1)):
        for _ in range(3):
            yield from _residual(f"decoder.upsamples.{at}", width, factor * base)
            at, width = at + 1, factor * base
        if level < 3:
            if level < 2:
                yield from _conv(f"decoder.upsamples.{at}.time_conv", 2 * width, width, 3, 1, 1)
            yield from _conv(f"decoder.upsamples.{at}.resample.1", width // 2, width, 3, 3)
            at, width = at + 1, width // 2
    yield "decoder.head.0.gamma", (width, 1, 1, 1)
    yield from _conv("decoder.head.2", 3, width, 3, 3, 3)


def lora_shapes(widths: Widths | None = None, rank: int = 4) -> dict[str, Shape]:
    """The 814 names of a LoRA save and their shapes."""
    prefix = "action_head.model."
    out: dict[str, Shape] = {}
    for name, shape in release_shapes(widths).items():
        short = name.removeprefix(prefix)
        new = f"{prefix}base_model.model.{short}"
        if short.startswith(("state_encoder", "action_encoder", "action_decoder")):
            out[new] = shape
        elif short.startswith("blocks.") and len(shape) == 2 and "_img" not in short:
            module = new.removesuffix(".weight")
            out[f"{module}.lora_A.default.weight"] = (rank, shape[1])
            out[f"{module}.lora_B.default.weight"] = (shape[0], rank)
    return out


def random_tensors(
    shapes: dict[str, Shape], seed: int, dtype: torch.dtype = torch.bfloat16
) -> dict[str, Tensor]:
    """Numbers small enough that 40 layers of them stay finite; gammas and norms near one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator) * 0.1
        near_one = name.endswith("gamma") or (
            "norm" in name and name.endswith("weight") and len(shape) == 1
        )
        tensors[name] = (value + near_one).to(dtype)
    return tensors


def _config(w: Widths, rank: int | None) -> dict[str, Any]:
    head: dict[str, Any] = {
        "action_dim": w.action,
        "action_horizon": 24,
        "max_state_dim": w.state,
        "num_frames": 33,
        "train_architecture": "full" if rank is None else "lora",
        "lora_rank": rank or 4,
        "lora_alpha": rank or 4,
        "diffusion_model_cfg": {
            "dim": w.dim,
            "eps": 1e-6,
            "ffn_dim": w.ffn,
            "frame_seqlen": 880,
            "freq_dim": w.freq,
            "in_dim": 2 * w.latents + 4,
            "max_chunk_size": 4,
            "model_type": "i2v",
            "num_action_per_block": 24,
            "num_frame_per_block": 2,
            "num_heads": w.heads,
            "num_layers": w.layers,
            "num_state_per_block": 1,
            "out_dim": w.latents,
        },
    }
    return {
        "architectures": ["VLA"],
        "model_type": "vla",
        "torch_dtype": "bfloat16",
        "action_dim": w.action,
        "action_horizon": 24,
        "action_head_cfg": {"config": head},
    }


_CONF = """\
num_frames: 33
image_resolution_width: WIDTH
image_resolution_height: HEIGHT
relative_action: true
relative_action_keys: [joint_position]
train_dataset:
  all_transforms:
    oxe_droid:
      transforms:
      - normalization_modes: {state.joint_position: q99, state.gripper_position: q99}
      - normalization_modes: {action.joint_position: q99, action.gripper_position: q99}
      - video_concat_order:
        - video.exterior_image_1_left
        - video.exterior_image_2_left
        - video.wrist_image_left
        state_concat_order: [state.joint_position, state.gripper_position]
        action_concat_order: [action.joint_position, action.gripper_position]
  dataset_kwargs:
    num_frames: ${num_frames}
    output: ${oc.env:OUTPUT_DIR,runs}/${hydra:job.name}
"""


def _metadata() -> dict[str, Any]:
    def numbers(width: int, low: float, high: float) -> dict[str, list[float]]:
        return {
            "q01": [low + 0.01 * i for i in range(width)],
            "q99": [high + 0.01 * i for i in range(width)],
            "min": [low - 1.0] * width,
            "max": [high + 1.0] * width,
            "mean": [0.0] * width,
            "std": [0.5] * width,
        }

    def fields(low: float, high: float) -> dict[str, Any]:
        return {
            "cartesian_position": numbers(6, low, high),
            "gripper_position": numbers(1, 0.0, 1.0),
            "joint_position": numbers(7, low, high),
        }

    statistics = {"state": fields(-2.0, 2.0), "action": fields(-0.5, 0.5)}
    return {"oxe_droid": {"statistics": statistics, "embodiment_tag": "oxe_droid"}}


def write_miniature(
    out: str | Path,
    widths: Widths | None = None,
    seed: int = 0,
    rank: int | None = None,
    image_px: tuple[int, int] = IMAGE_PX,
) -> Path:
    """Write a checkpoint in the public layout: shards, index, config.json, experiment_cfg.

    Args:
        out: new folder.
        widths: the toy's by default.
        seed: of the weights.
        rank: write a LoRA save of this rank instead.
        image_px: height and width of each camera; a quarter of the canvas.
    """
    w = widths or Widths()
    shapes = release_shapes(w) if rank is None else lora_shapes(w, rank)
    tensors = random_tensors(shapes, seed)
    with appearing(Path(out)) as work:
        write_release(work, tensors, shards=SHARDS if rank is None else 1)
        write_text_files(work, w, rank, image_px)
    return Path(out)


def write_text_files(
    folder: Path,
    widths: Widths,
    rank: int | None = None,
    image_px: tuple[int, int] = IMAGE_PX,
) -> None:
    """``config.json`` and ``experiment_cfg`` of a checkpoint of these widths."""
    (folder / "config.json").write_text(json.dumps(_config(widths, rank), indent=2) + "\n")
    (folder / "experiment_cfg").mkdir()
    conf = _CONF.replace("HEIGHT", str(image_px[0])).replace("WIDTH", str(image_px[1]))
    (folder / "experiment_cfg/conf.yaml").write_text(conf)
    (folder / "experiment_cfg/metadata.json").write_text(json.dumps(_metadata(), indent=2) + "\n")


def write_release(folder: Path, tensors: dict[str, Tensor], shards: int = 1) -> None:
    """``model*.safetensors`` (and index) of about equal size."""
    announced = {name: (NAMES[t.dtype], tuple(t.shape)) for name, t in tensors.items()}
    total = sum(Entry(name, *spec, folder).nbytes for name, spec in announced.items())
    limit = total if shards == 1 else total // shards + 1
    with (
        progress_bar(total, "write", False) as bar,
        ShardSet(folder, "model", announced, bar, limit) as files,
    ):
        for name, tensor in tensors.items():
            files.write(name, tensor)


def write_tokenizer(folder: str | Path, words: str = "push the block open") -> Path:
    """A tokenizer of these words for the miniature's text encoder; the real one is umt5-xxl's.

    Args:
        folder: new folder, for ``import --tokenizer``.
        words: separated by spaces; any other word is unknown to it.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = dict.fromkeys(["<pad>", "</s>", "<unk>", *words.split()])
    table = {word: number for number, word in enumerate(known)}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return Path(folder)
