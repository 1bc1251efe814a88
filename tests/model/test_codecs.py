"""Codecs: shapes, causality, streaming equal to the whole clip, folders, a short training."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamzero.errors import UserError
from dreamzero.model import codecs
from dreamzero.model.codecs import Codec, CodecCache, to_float, to_uint8
from dreamzero.model.codecs.tiny import TinyCodec
from dreamzero.model.codecs.wan import WanCodec
from dreamzero.train.codec import CodecTraining, measure, moving, pca_baseline, train_codec


def _random(module: torch.nn.Module) -> None:
    """Weights that let every input matter (fresh residual blocks pass nothing on)."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            scale = parameter[0].numel() ** -0.5
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)


def _tiny() -> TinyCodec:
    codec = TinyCodec(8, 8, 8, 16)
    _random(codec)
    codec.latents_mean += 0.3
    codec.latents_std *= 0.7
    return codec.eval()


def _wan(version: str) -> WanCodec:
    torch.manual_seed(0)
    shared = {"base_dim": 4, "z_dim": 4, "num_res_blocks": 1, "dim_mult": [1, 2, 2, 2]}
    stats = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.5, 0.5, 2.0, 1.0]}
    if version == "2.2":
        shared |= {
            "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12,
            "decoder_base_dim": 8, "scale_factor_spatial": 16,
        }  # fmt: skip
    return WanCodec(AutoencoderKLWan(**shared, **stats)).eval()


CODECS = {"tiny": _tiny(), "wan2.1": _wan("2.1"), "wan2.2": _wan("2.2")}


def _video(frames: int = 17, seed: int = 0, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(2, 3, frames, side, side, generator=generator) - 1


@pytest.mark.parametrize("name", CODECS)
def test_shapes(name: str) -> None:
    codec = CODECS[name]
    assert isinstance(codec, Codec)
    for latent_frames in (1, 3):
        video = _video(1 + 4 * (latent_frames - 1))
        latents = codec.encode(video)
        side = 32 // codec.spatial_factor
        assert latents.shape == (2, codec.latent_channels, latent_frames, side, side)
        again = codec.decode(latents)
        assert again.shape == video.shape
        assert again.abs().max() <= 1


@pytest.mark.parametrize("name", CODECS)
def test_later_frames_do_not_change_earlier_latents(name: str) -> None:
    codec, video = CODECS[name], _video()
    other = video.clone()
    other[:, :, 9:] = _video(8, seed=1)
    before, after = codec.encode(video), codec.encode(other)
    torch.testing.assert_close(before[:, :, :3], after[:, :, :3], atol=1e-6, rtol=0)
    assert (before[:, :, 3:] - after[:, :, 3:]).abs().amax() > 1e-3
    one, two = codec.decode(before), codec.decode(after)
    torch.testing.assert_close(one[:, :, :9], two[:, :, :9], atol=1e-6, rtol=0)
    assert (one[:, :, 9:] - two[:, :, 9:]).abs().amax() > 1e-3


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=6, deadline=None)
@given(cuts=st.sets(st.integers(1, 4)), seed=st.integers(0, 99))
def test_streaming_equals_the_whole_clip(name: str, cuts: set[int], seed: int) -> None:
    codec, video = CODECS[name], _video(seed=seed)
    whole = codec.encode(video)
    bounds = [0, *sorted(cuts), 5]
    cache: CodecCache | None = None
    pieces = []
    for start, stop in pairwise(bounds):
        first = 0 if start == 0 else 4 * start - 3
        latents, cache = codec.encode_next(video[:, :, first : 4 * stop - 3], cache)
        pieces.append(latents)
    assert cache is not None and cache.latents == 5
    torch.testing.assert_close(torch.cat(pieces, 2), whole, atol=1e-5, rtol=0)
    cache, frames = None, []
    for start, stop in pairwise(bounds):
        part, cache = codec.decode_next(whole[:, :, start:stop], cache)
        frames.append(part)
    torch.testing.assert_close(torch.cat(frames, 2), codec.decode(whole), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CODECS)
def test_a_cache_may_be_continued_twice(name: str) -> None:
    codec, video = CODECS[name], _video()
    latents = codec.encode(video)
    _, seen = codec.encode_next(video[:, :, :9])
    _, shown = codec.decode_next(latents[:, :, :3])
    for _ in range(2):
        torch.testing.assert_close(
            codec.encode_next(video[:, :, 9:], seen)[0], latents[:, :, 3:], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            codec.decode_next(latents[:, :, 3:], shown)[0],
            codec.decode(latents)[:, :, 9:],
            atol=1e-5,
            rtol=0,
        )


@pytest.mark.parametrize("name", ["wan2.1", "wan2.2"])
def test_wan_is_the_librarys_own(name: str) -> None:
    codec, video = CODECS[name], _video()
    vae = codec.vae
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    with torch.no_grad():
        theirs = vae.encode(video).latent_dist.mode()
        shown = vae.decode(theirs).sample
    ours = codec.encode(video)
    torch.testing.assert_close(ours * std + mean, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(codec.decode(ours), shown, atol=1e-5, rtol=1e-5)


def test_tiny_latents_do_not_depend_on_where_a_window_starts() -> None:
    codec, video = CODECS["tiny"], _video()
    torch.testing.assert_close(
        codec.encode(video)[:, :, 3:], codec.encode(video[:, :, 8:])[:, :, 1:], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", CODECS)
def test_folder_round_trip(name: str, tmp_path: Path) -> None:
    codec, video = CODECS[name], _video()
    codec.save_pretrained(tmp_path)
    back = codecs.load(tmp_path)
    assert type(back) is type(codec)
    assert not any(p.requires_grad or p.dtype != torch.float32 for p in back.parameters())
    tolerance = 2e-2 if name == "tiny" else 1e-6  # the small codec is stored as float16
    torch.testing.assert_close(back.encode(video), codec.encode(video), atol=tolerance, rtol=0)
    back.save_pretrained(tmp_path / "again")
    twice = codecs.load(tmp_path / "again")
    assert torch.equal(twice.encode(video), back.encode(video))


def test_load_refuses_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config.json"):
        codecs.load(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="not the JSON of a codec"):
        codecs.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(UserError, match="UNet2DModel, not a video codec"):
        codecs.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "TinyCodec"}))
    with pytest.raises(UserError, match="weights"):
        codecs.load(tmp_path)


@pytest.mark.parametrize("name", CODECS)
def test_wrong_shapes_are_refused(name: str) -> None:
    codec = CODECS[name]
    for video in (_video(4), _video(1, side=36), _video(1)[0]):
        with pytest.raises(UserError):
            codec.encode(video)
    cache = codec.encode_next(_video(1))[1]
    with pytest.raises(UserError, match="4 n frames"):
        codec.encode_next(_video(5), cache)
    with pytest.raises(UserError, match="latents"):
        codec.decode(torch.zeros(1, codec.latent_channels + 1, 1, 4, 4))


def test_frames_round_trip() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 16, 3), np.uint8)
    video = to_float(frames)
    assert video.shape == (3, 5, 8, 16) and video.dtype == torch.float32
    assert np.array_equal(to_uint8(video), frames)
    assert np.array_equal(to_uint8(to_float(frames[None])), frames[None])
    with pytest.raises(UserError, match="uint8"):
        to_float(frames.astype(np.float32))


def _clips(n: int = 24, t: int = 9, side: int = 32) -> np.ndarray:
    """A bright square that crosses a dim ground of another tint in every clip."""
    rng = np.random.default_rng(0)
    clips = np.empty((n, t, side, side, 3), np.uint8)
    for clip in clips:
        clip[:] = rng.integers(40, 120, 3)
        (y, x), (dy, dx) = rng.integers(0, 16, 2), rng.integers(0, 3, 2)
        for i, frame in enumerate(clip):
            frame[y + dy * i // 2 :, x + dx * i // 2 :][:8, :8] = (220, 60, 40)
    return clips


def test_moving_pixels_by_hand() -> None:
    video = torch.zeros(1, 3, 9, 8, 8)
    video[:, 1, 3:, 2, 2] = 0.21  # appears in the first group and stays
    video[:, 2, 6, 5, 5] = 0.19  # below a tenth of the range
    near, far = moving(video), moving(video, previous=False)
    assert near.shape == (1, 1, 9, 8, 8)
    assert near.nonzero()[:, 2:].tolist() == [[3, 2, 2], [4, 2, 2]]
    assert far.nonzero()[:, 2:].tolist() == [[i, 2, 2] for i in range(3, 9)]


def test_measure_by_hand() -> None:
    class Dim(TinyCodec):
        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return torch.full((len(latents), 3, 5, 32, 32), -1.0)

    clips = np.full((9, 5, 32, 32, 3), 51, np.uint8)  # a fifth of the range away from black
    clips[:, 2:, :4, :4] = 102
    figures = measure(Dim(8, 8, 8, 16).eval(), clips)
    assert figures["psnr_moving"] == pytest.approx(-20 * math.log10(0.4), abs=1e-3)
    share = 3 * 16 / (5 * 32 * 32)
    assert figures["share_moving"] == pytest.approx(share)
    mean = 0.04 * (1 - share) + 0.16 * share
    assert figures["psnr"] == pytest.approx(-10 * math.log10(mean), abs=1e-3)


def test_training_beats_the_mean_frame(tmp_path: Path) -> None:
    clips = _clips()
    config = CodecTraining(
        8, 16, 16, 32, steps=150, batch=4, groups=2, crop=16, warmup=5, bf16=False, held_out=0.25
    )
    metrics = train_codec(clips, config, tmp_path, progress=False)
    assert metrics["held_out_clips"] == 6 and metrics["clips"] == 18
    mean = clips.astype(np.float32).mean(0)
    baseline = -10 * math.log10(np.mean(((clips - mean) / 255) ** 2))
    assert metrics["psnr"] > baseline + 2
    assert metrics["noisy_psnr"] > metrics["psnr"] - 1
    latents = codecs.load(tmp_path).encode(to_float(clips))
    assert latents.mean((0, 2, 3, 4)).abs().max() < 0.2
    assert (latents.std((0, 2, 3, 4)) - 1).abs().max() < 0.2
    same = train_codec(clips, dataclasses.replace(config, steps=2), progress=False)
    again = train_codec(iter([clips[:10], clips[10:]]), dataclasses.replace(config, steps=2),
                        progress=False)  # fmt: skip
    assert same["psnr"] == again["psnr"]


def test_refining_the_decoder_leaves_every_latent_alone(tmp_path: Path) -> None:
    clips = _clips()
    config = CodecTraining(
        8, 16, 16, 32, steps=12, batch=4, groups=2, crop=16, warmup=5, bf16=False, held_out=0.25
    )
    train_codec(clips, config, tmp_path / "first", progress=False)
    train_codec(clips, config, tmp_path / "second", progress=False, start=tmp_path / "first")
    first, second = codecs.load(tmp_path / "first"), codecs.load(tmp_path / "second")
    video = to_float(clips[:2])
    latents = first.encode(video)
    assert torch.equal(latents, second.encode(video))
    assert not torch.equal(first.decode(latents), second.decode(latents))


def test_pca_improves_with_channels() -> None:
    clips = _clips()
    few, many = (pca_baseline(clips, channels) for channels in (2, 16))
    assert few["psnr"] < many["psnr"] and few["psnr_moving"] < many["psnr_moving"]


@pytest.mark.parametrize(
    "clips",
    [
        np.zeros((4, 5, 30, 32, 3), np.uint8),
        np.zeros((4, 4, 32, 32, 3), np.uint8),
        np.zeros((1, 5, 32, 32, 3), np.uint8),
        np.zeros((4, 5, 32, 32, 3), np.float32),
        [],
    ],
)
def test_training_refuses_bad_clips(clips: np.ndarray) -> None:
    with pytest.raises(UserError):
        train_codec(clips, CodecTraining(steps=1), progress=False)
