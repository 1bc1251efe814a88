"""Wan's own layouts and the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamzero.errors import UserError
from dreamzero.model.bundle import DreamZeroTransformer
from dreamzero.model.checkpoints import layouts
from dreamzero.model.checkpoints.exporter import export_checkpoint
from dreamzero.model.checkpoints.importer import import_checkpoint
from dreamzero.model.checkpoints.layouts import CODERS
from dreamzero.model.checkpoints.miniature import (
    random_tensors,
    release_shapes,
    write_release,
    write_text_files,
)
from dreamzero.model.checkpoints.names import PREFIXES, revert
from dreamzero.model.checkpoints.plan import ImportOptions
from dreamzero.model.checkpoints.summary import inspect_checkpoint
from dreamzero.model.presets import WAN22_VAE

from .samples import SHALLOW, same_bytes, tensors, wan_config, write_wan

# --- other layouts ---


def test_original_wan(wan: Path, shallow: Path, tmp_path: Path) -> None:
    reference = import_checkpoint(shallow, tmp_path / "reference")
    missing = inspect_checkpoint(wan).missing
    assert any("coders" in line for line in missing) and any("robots" in line for line in missing)
    before = torch.random.get_rng_state()
    outs = [
        import_checkpoint(wan, tmp_path / f"wan{i}", options=ImportOptions(seed=seed))
        for i, seed in enumerate((3, 3, 4))
    ]
    assert torch.equal(before, torch.random.get_rng_state())
    for component in ("text_encoder", "image_encoder", "vae"):
        differ = same_bytes(outs[0] / component, reference / component)
        assert differ == [], component
    first, second, other = (tensors(o / "transformer", "diffusion_pytorch_model") for o in outs)
    droid = tensors(reference / "transformer", "diffusion_pytorch_model")
    assert first.keys() == droid.keys()
    fresh = [name for name in first if name.startswith(CODERS)]
    assert len(fresh) == 14
    assert all(torch.equal(first[n], droid[n]) for n in first if n not in fresh)
    assert all(torch.equal(first[n], second[n]) for n in first)
    weights = [n for n in fresh if n.endswith("weight")]
    assert not any(torch.equal(first[n], other[n]) for n in weights)
    assert (outs[0] / "tokenizer/tokenizer.json").is_file()
    summary = inspect_checkpoint(outs[0])
    assert any("seed 3" in note for note in summary.notes)
    assert [line.split(":")[0] for line in summary.missing] == ["robots"]


def test_wan_22_without_image_encoder(tmp_path: Path) -> None:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    vae = AutoencoderKLWan.from_config({**WAN22_VAE, "base_dim": 4, "decoder_base_dim": 4})
    release = random_tensors(release_shapes(SHALLOW), 0, torch.float32)
    release = {n: t for n, t in release.items() if "_img" not in n and "img_emb" not in n}
    release = {n: t for n, t in release.items() if not n.startswith(PREFIXES["image_encoder"])}
    release = {n: t for n, t in release.items() if not n.startswith(PREFIXES["vae"])}
    release |= {PREFIXES["vae"] + n: t for n, t in revert("vae", vae.state_dict()).items()}
    prefix = PREFIXES["transformer"]
    release[prefix + "patch_embedding.weight"] = torch.randn(24, 48, 1, 2, 2)
    release[prefix + "head.head.weight"] = torch.randn(192, 24)
    release[prefix + "head.head.bias"] = torch.randn(192)
    config = wan_config(SHALLOW) | {"in_dim": 48, "out_dim": 48}
    folder = write_wan(tmp_path / "Wan2.2-TI2V-5B", release, config)
    out = import_checkpoint(folder, tmp_path / "ours", options=ImportOptions(horizon=12))
    settings = json.loads((out / "transformer/config.json").read_text())
    assert (settings["image_dim"], settings["horizon"]) == (None, 12)
    for path in (folder, out):
        (line,) = [m for m in inspect_checkpoint(path).missing if m.startswith("image branch")]
        assert "the first frame counts as the frame before the block alone" in line
    stored = tensors(out / "vae", "diffusion_pytorch_model")
    assert all(torch.equal(stored[n], t) for n, t in vae.state_dict().items())
    kept = json.loads((out / "vae/config.json").read_text())
    assert kept["latents_mean"] == WAN22_VAE["latents_mean"] and kept["patch_size"] == 2
    again = import_checkpoint(
        write_without_robots(export_checkpoint(out, tmp_path / "public").path), tmp_path / "again"
    )
    assert same_bytes(again / "transformer", out / "transformer") == []


def write_without_robots(folder: Path) -> Path:
    """Plain Wan has no robots, so its export has none: lend it DROID's."""
    (folder / "texts").mkdir()
    write_text_files(folder / "texts", SHALLOW)
    shutil.move(folder / "texts/experiment_cfg", folder / "experiment_cfg")
    shutil.rmtree(folder / "texts")
    return folder


@pytest.fixture
def diffusers_layout(shallow: Path, tmp_path: Path) -> Path:
    """Wan as diffusers keeps it, made from an import: its own config, no coders."""
    folder = import_checkpoint(shallow, tmp_path / "d" / "reference")
    out = tmp_path / "d" / "Wan2.1-Diffusers"
    for component in ("vae", "text_encoder", "image_encoder"):
        shutil.copytree(folder / component, out / component)
    (out / "transformer").mkdir()
    ours = tensors(folder / "transformer", "diffusion_pytorch_model")
    write_release(out / "transformer", {n: t for n, t in ours.items() if not n.startswith(CODERS)})
    single = out / "transformer/model.safetensors"
    single.rename(out / "transformer/diffusion_pytorch_model.safetensors")
    config = {
        "_class_name": "WanTransformer3DModel",
        "num_attention_heads": SHALLOW.heads,
        "attention_head_dim": SHALLOW.dim // SHALLOW.heads,
        "in_channels": 36,
        "out_channels": 16,
        "ffn_dim": SHALLOW.ffn,
        "freq_dim": SHALLOW.freq,
        "text_dim": SHALLOW.text,
        "image_dim": SHALLOW.image,
        "num_layers": SHALLOW.layers,
        "patch_size": [1, 2, 2],
        "eps": 1e-6,
    }
    (out / "transformer/config.json").write_text(json.dumps(config))
    (out / "model_index.json").write_text('{"_class_name": "WanImageToVideoPipeline"}')
    (out / "tokenizer").mkdir()
    (out / "tokenizer/spiece.model").write_bytes(b"x")
    return out


def test_diffusers_layout(diffusers_layout: Path, tmp_path: Path) -> None:
    reference = diffusers_layout.parent / "reference"
    out = import_checkpoint(diffusers_layout, tmp_path / "ours")
    for component in ("vae", "text_encoder", "image_encoder"):
        assert same_bytes(out / component, reference / component) == []
    got = tensors(out / "transformer", "diffusion_pytorch_model")
    want = tensors(reference / "transformer", "diffusion_pytorch_model")
    assert all(torch.equal(got[n], want[n]) for n in want if not n.startswith(CODERS))
    assert inspect_checkpoint(diffusers_layout).layout == "diffusers"
    DreamZeroTransformer.from_pretrained(out / "transformer")
    with pytest.raises(UserError, match="one component of"):
        import_checkpoint(diffusers_layout / "transformer", tmp_path / "no")


# --- the Hub ---


def test_hub_offline_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the Hub cannot be reached") as caught:
        import_checkpoint("GEAR-Dreams/DreamZero-DROID", tmp_path / "ours")
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="not in the Hub's cache; looking at it would download"):
        inspect_checkpoint("GEAR-Dreams/DreamZero-DROID")
    (tmp_path / "weights").mkdir()
    with pytest.raises(UserError, match="weights/droid does not exist"):
        import_checkpoint("weights/droid", tmp_path / "ours")


def test_hub_by_name(shallow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through huggingface_hub's own filter: all that import reads, none of the engines."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    asked: dict[str, Any] = {}

    def snapshot(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(shallow)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    out = import_checkpoint("GEAR-Dreams/DreamZero-DROID", tmp_path / "ours", revision="v1")
    assert (asked["name"], asked["revision"]) == ("GEAR-Dreams/DreamZero-DROID", "v1")
    assert inspect_checkpoint(out).robots
    wanted = [
        "model-00001-of-00010.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "experiment_cfg/conf.yaml",
        "experiment_cfg/metadata.json",
        "Wan2.1_VAE.pth",
        "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        "google/umt5-xxl/spiece.model",
        "google/umt5-xxl/tokenizer.json",
        "transformer/config.json",
    ]
    unwanted = ["tensorrt/dit.onnx", "tensorrt/a.json", "assets/video.mp4", "README.md"]
    kept = filter_repo_objects(
        wanted + unwanted,
        allow_patterns=asked["allow_patterns"],
        ignore_patterns=asked["ignore_patterns"],
    )
    assert list(kept) == wanted


def test_two_transformers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a14b/high_noise_model").mkdir(parents=True)
    with pytest.raises(UserError, match=r"Wan 2\.2 A14B"):
        layouts.open_layout(tmp_path / "a14b")
