"""Text and image encoders: folders, tokens, shapes, and what is said of a wrong folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamzero.errors import UserError
from dreamzero.model import encoders
from dreamzero.model.encoders.image import ImageEncoder
from dreamzero.model.encoders.text import UMT5TextEncoder
from dreamzero.model.text import WordEncoder, words

WORDS = ["push", "the", "red", "block", "blue"]
PROMPTS = ["push the red block", "push the", ""]


def write_tokenizer(folder: Path) -> None:
    """A tokenizer as UMT5's folder holds one, of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    table = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{w: i + 3 for i, w in enumerate(WORDS)}}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    path = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    text = UMT5Config(
        vocab_size=16, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, dropout_rate=0.0
    )
    UMT5EncoderModel(text).eval().save_pretrained(path / "text_encoder")
    write_tokenizer(path / "tokenizer")
    image = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        hidden_act="gelu",
    )
    CLIPVisionModel(image).eval().save_pretrained(path / "image_encoder")
    return path


@pytest.fixture(scope="module")
def text(folder: Path) -> UMT5TextEncoder:
    loaded = encoders.load_text(folder / "text_encoder", dtype=torch.float32)
    assert isinstance(loaded, UMT5TextEncoder)
    return loaded


@pytest.fixture(scope="module")
def image(folder: Path) -> ImageEncoder:
    return encoders.load_image(folder / "image_encoder", torch.float32)


def test_prompts_become_embeddings(text: UMT5TextEncoder) -> None:
    ids, mask = text.tokenize(PROMPTS)
    assert ids.shape == mask.shape == (3, 512)
    assert mask.sum(1).tolist() == [5, 3, 1]  # the end token counts
    assert ids[:, :5].tolist() == [[3, 4, 5, 6, 1], [3, 4, 1, 0, 0], [1, 0, 0, 0, 0]]
    out = text.encode(PROMPTS)
    assert out.shape == (3, 512, text.dim)
    assert not out[mask == 0].any()
    assert out[mask == 1].abs().sum(-1).min() > 0


def test_padding_changes_nothing(text: UMT5TextEncoder) -> None:
    """A prompt's embedding is the same alone, among longer ones, and computed at full length."""
    out = text.encode(PROMPTS)
    torch.testing.assert_close(text.encode(PROMPTS[1:2]), out[1:2], atol=1e-6, rtol=1e-5)
    ids, mask = text.tokenize(PROMPTS)
    whole = text.model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(out, whole * mask.unsqueeze(-1), atol=1e-6, rtol=1e-5)


def test_white_space_and_length(text: UMT5TextEncoder) -> None:
    a, b = text.tokenize([" push\n the   red block ", "push the red block"])[0]
    assert torch.equal(a, b)
    long = text.tokenize(["red " * 600])[0][0]
    assert long.shape == (512,)
    assert long[-1] == 1  # cut before the end token, not after


def test_images_become_tokens(image: ImageEncoder) -> None:
    torch.manual_seed(1)
    frames = torch.rand(2, 3, 44, 80) * 2 - 1
    out = image.encode(frames)
    assert out.shape == (2, 1 + 4, image.dim)
    # Last but one layer: an independent walk over the library's layers, stopping early.
    model = image.model
    x = model.pre_layrnorm(model.embeddings(image.prepare(frames)))
    for layer in model.encoder.layers[:-1]:
        x = layer(x, None)
    torch.testing.assert_close(out, x[0] if isinstance(x, tuple) else x)


@given(st.floats(-1.0, 1.0), st.integers(8, 60), st.integers(8, 60))
def test_flat_canvases_keep_their_colour(value: float, height: int, width: int) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        image_size=16, patch_size=8,
    )  # fmt: skip
    encoder = ImageEncoder(CLIPVisionModel(config))
    pixels = encoder.prepare(torch.full((1, 3, height, width), value))
    assert pixels.shape == (1, 3, 16, 16)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    expected = ((value + 1) / 2 - mean) / std
    torch.testing.assert_close(
        pixels[0].flatten(1), expected[:, None].expand(3, 256), atol=1e-5, rtol=1e-5
    )


def test_folders_round_trip(text: UMT5TextEncoder, image: ImageEncoder, tmp_path: Path) -> None:
    text.save_pretrained(tmp_path / "text_encoder")
    image.save_pretrained(tmp_path / "image_encoder")
    again = encoders.load_text(tmp_path / "text_encoder", dtype=torch.float32)
    assert torch.equal(again.encode(PROMPTS), text.encode(PROMPTS))
    frames = torch.zeros(1, 3, 16, 16)
    back = encoders.load_image(tmp_path / "image_encoder", torch.float32)
    assert torch.equal(back.encode(frames), image.encode(frames))


def test_bfloat16_is_close(folder: Path, text: UMT5TextEncoder, image: ImageEncoder) -> None:
    half = encoders.load_text(folder / "text_encoder").encode(PROMPTS)
    assert half.dtype == torch.bfloat16
    whole: Tensor = text.encode(PROMPTS)
    assert (half.float() - whole).norm() < 0.03 * whole.norm()
    frames = torch.linspace(-1, 1, 3 * 44 * 80).view(1, 3, 44, 80)
    fast = encoders.load_image(folder / "image_encoder").encode(frames)
    assert fast.dtype == torch.bfloat16
    full = image.encode(frames)
    assert (fast.float() - full).norm() < 0.03 * full.norm()


def test_names_of_older_library_versions(
    folder: Path, text: UMT5TextEncoder, image: ImageEncoder, tmp_path: Path
) -> None:
    """The public Diffusers folders: CLIP below ``vision_model.``, the tied embedding twice."""
    from safetensors.torch import load_file, save_file

    for part in ("image_encoder", "text_encoder"):
        (tmp_path / part).mkdir()
        shutil.copy(folder / part / "config.json", tmp_path / part)
        weights = load_file(folder / part / "model.safetensors")
        if part == "image_encoder":
            weights = {f"vision_model.{name}": tensor for name, tensor in weights.items()}
        else:
            weights["encoder.embed_tokens.weight"] = weights["shared.weight"].clone()
        save_file(weights, tmp_path / part / "model.safetensors", {"format": "pt"})
    frames = torch.zeros(1, 3, 16, 16)
    old_image = encoders.load_image(tmp_path / "image_encoder", torch.float32)
    assert torch.equal(old_image.encode(frames), image.encode(frames))
    old_text = encoders.load_text(
        tmp_path / "text_encoder", folder / "tokenizer", dtype=torch.float32
    )
    assert torch.equal(old_text.encode(PROMPTS), text.encode(PROMPTS))


def test_small_models_keep_their_word_encoder(tmp_path: Path) -> None:
    small = WordEncoder.fit(["push the red block"], dim=8)
    small.save_pretrained(tmp_path / "text_encoder")
    loaded = encoders.load_text(tmp_path / "text_encoder")
    assert torch.equal(loaded.encode(PROMPTS), small.encode(PROMPTS))


def test_wrong_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no text encoder \(no config.json\)"):
        encoders.load_text(tmp_path)
    with pytest.raises(UserError, match="is a umt5, not an image encoder"):
        encoders.load_image(folder / "text_encoder")
    with pytest.raises(UserError, match="is a clip_vision_model, not a text encoder"):
        encoders.load_text(folder / "image_encoder")
    with pytest.raises(UserError, match="is no folder: UMT5's tokenizer files belong there"):
        encoders.load_text(folder / "text_encoder", tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not the JSON of any image encoder"):
        encoders.load_image(tmp_path)
    with pytest.raises(UserError, match="no tokenizer"):
        UMT5TextEncoder(torch.nn.Identity()).tokenize(["push"])
    with pytest.raises(UserError, match=r"takes frames \[b, 3, h, w\], got \[3, 8, 8\]"):
        encoders.load_image(folder / "image_encoder").encode(torch.zeros(3, 8, 8))


def test_weights_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    """Missing, truncated and mis-shaped weights: one line each, nothing initialised at random."""
    from safetensors.torch import load_file, save_file

    config = (folder / "image_encoder/config.json").read_text()
    weights = load_file(folder / "image_encoder/model.safetensors")

    def put(name: str, text: str = config) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
        return tmp_path / name

    def refused(path: Path, says: str) -> None:
        with pytest.raises(UserError, match=says) as caught:
            encoders.load_image(path)
        assert "\n" not in str(caught.value)

    refused(put("empty"), "model.safetensors")
    cut = put("cut")
    whole = (folder / "image_encoder/model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(cut, "cut")
    lacking = put("lacking")
    kept = {k: v for k, v in weights.items() if k != "pre_layrnorm.bias"}
    save_file(kept, lacking / "model.safetensors", {"format": "pt"})
    refused(lacking, r"lack pre_layrnorm\.bias")
    wide = put("wide", json.dumps({**json.loads(config), "hidden_size": 32}))
    save_file(weights, wide / "model.safetensors", {"format": "pt"})
    refused(wide, r"has shape \[.*\], config\.json asks for \[.*32.*\]")
    short = put("short", json.dumps({**json.loads(config), "num_hidden_layers": 2}))
    save_file(weights, short / "model.safetensors", {"format": "pt"})
    refused(short, r"has no place for encoder\.layers\.2\..* \(16 in all\)")


def test_a_grown_vocabulary_keeps_what_was_known() -> None:
    small = WordEncoder.fit(["push the red block"], dim=8)
    grown = small.grown(["push the red block onto the cyan zone as far as it goes"])
    assert grown.unknown("the cyan zone") == [] and small.unknown("cyan") == ["cyan"]
    known = "push the red block"
    n = len(words(known))
    torch.testing.assert_close(grown.encode([known])[:, :n], small.encode([known])[:, :n])
    assert (
        grown.config.max_words
        == len(words("push the red block onto the cyan zone as far as it goes")) + 4
    )
    same = small.grown(["the block"])
    torch.testing.assert_close(same.encode([known]), small.encode([known]))
