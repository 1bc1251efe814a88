"""The transformer as a module: shapes, causality, cache against teacher forcing, positions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamzero.errors import UserError
from dreamzero.model.positions import rotate, sequence_rope, video_rope
from dreamzero.model.presets import PRESETS, preset
from dreamzero.model.text import WordEncoder, words
from dreamzero.model.transformer import DreamZeroTransformer

SMALL = {
    "dim": 48,
    "ffn_dim": 64,
    "num_layers": 2,
    "num_heads": 2,
    "freq_dim": 32,
    "text_dim": 16,
    "projector_dim": 16,
    "action_dim": 4,
    "state_dim": 5,
    "in_channels": 3,
    "out_channels": 3,
    "horizon": 4,
    "window_blocks": 3,
}
SIZE = (4, 4)


@pytest.fixture(params=[None, (2, 2)], ids=["rope", "absolute"])
def model(request: pytest.FixtureRequest) -> DreamZeroTransformer:
    torch.manual_seed(0)
    return DreamZeroTransformer(**SMALL, position_grid=request.param).eval().requires_grad_(False)


def inputs(blocks: int, batch: int = 2) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    frames = 1 + 2 * blocks
    return {
        "noisy_latents": torch.randn(batch, 3, frames, *SIZE, generator=g),
        "clean_latents": torch.randn(batch, 3, frames, *SIZE, generator=g),
        "timestep": 1000 * torch.rand(batch, frames, generator=g),
        "noisy_action": torch.randn(batch, 4 * blocks, 4, generator=g),
        "timestep_action": 1000 * torch.rand(batch, blocks, generator=g).repeat_interleave(4, 1),
        "state": torch.randn(batch, blocks, 5, generator=g),
    }


TEXT = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(2))


def test_noisy_first_frame_can_be_left_out(model: DreamZeroTransformer) -> None:
    given = inputs(3)
    context = model.encode_context(TEXT)
    video, action = model(context=context, **given)
    short = given | {
        "noisy_latents": given["noisy_latents"][:, :, 1:],
        "timestep": given["timestep"][:, 1:],
    }
    video_short, action_short = model(context=context, **short)
    torch.testing.assert_close(video_short, video[:, :, 1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(action_short, action, atol=1e-5, rtol=1e-4)


def test_a_block_never_sees_its_target_or_the_future(model: DreamZeroTransformer) -> None:
    given = inputs(3)
    context = model.encode_context(TEXT)
    video, action = model(context=context, **given)
    assert action is not None
    changed = {k: v.clone() for k, v in given.items()}
    changed["clean_latents"][:, :, 3:] += 1  # block 1 and later
    changed["noisy_latents"][:, :, 5:] += 1  # block 2
    changed["noisy_action"][:, 8:] += 1
    changed["state"][:, 2:] += 1
    video2, action2 = model(context=context, **changed)
    assert action2 is not None
    torch.testing.assert_close(video2[:, :, :5], video[:, :, :5], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(action2[:, :8], action[:, :8], atol=1e-5, rtol=1e-4)
    assert (video2[:, :, 5:] - video[:, :, 5:]).abs().max() > 1e-2


def test_the_state_reaches_its_own_block_only(model: DreamZeroTransformer) -> None:
    given = inputs(3)
    context = model.encode_context(TEXT)
    _, action = model(context=context, **given)
    changed = given | {"state": given["state"].clone()}
    changed["state"][:, 1] += 1
    _, action2 = model(context=context, **changed)
    assert action is not None
    assert action2 is not None
    moved = (action2 - action).abs().amax(dim=(0, 2)).view(3, 4).amax(1)
    assert moved[1] > 1e-4
    assert moved[[0, 2]].max() < 1e-5


def test_cache_equals_recomputing(model: DreamZeroTransformer) -> None:
    """Prefilling frame by frame leaves the same cache as prefilling block-causally at once."""
    latents = inputs(1)["clean_latents"]
    context = model.encode_context(TEXT)
    cache = model.new_cache(SIZE, batch=2)
    model.step(latents[:, :, :1], torch.zeros(2, 1), context, cache)
    model.step(latents[:, :, 1:], torch.zeros(2, 2), context, cache)
    assert (cache.frames, cache.length) == (3, 12)
    given = inputs(1)
    action_args = (given["noisy_action"], given["timestep_action"], given["state"])
    before = cache.buffer[:, :, :, :12].clone()
    first = model.step(latents[:, :, 1:], torch.full((2, 2), 500.0), context, cache, *action_args)
    again = model.step(latents[:, :, 1:], torch.full((2, 2), 500.0), context, cache, *action_args)
    assert torch.equal(first[0], again[0]), "an evaluation leaves the cache as it was"
    assert torch.equal(cache.buffer[:, :, :, :12], before)


@pytest.mark.parametrize("sees_all", [False, True])
def test_acting_is_what_training_taught(sees_all: bool) -> None:
    """Block by block against the cache, the same velocities as teacher forcing over the window.

    Not where the state sees everything, as the release runs it: there acting is another network.
    """
    torch.manual_seed(0)
    model = DreamZeroTransformer(**SMALL, position_grid=(2, 2), state_sees_all=sees_all).eval()
    given = inputs(3)
    with torch.inference_mode():
        context = model.encode_context(TEXT)
        video, action = model(context=context, **given)
        cache = model.new_cache(SIZE, batch=2)
        model.step(given["clean_latents"][:, :, :1], torch.zeros(2, 1), context, cache)
        apart = []
        for block in range(3):
            frames, steps = slice(1 + 2 * block, 3 + 2 * block), slice(4 * block, 4 * block + 4)
            got_video, got_action = model.step(
                given["noisy_latents"][:, :, frames],
                given["timestep"][:, frames],
                context,
                cache,
                given["noisy_action"][:, steps],
                given["timestep_action"][:, steps],
                given["state"][:, block : block + 1],
            )
            assert got_action is not None
            assert action is not None
            apart.append((got_video - video[:, :, frames]).abs().max().item())
            apart.append((got_action - action[:, steps]).abs().max().item())
            model.step(given["clean_latents"][:, :, frames], torch.zeros(2, 2), context, cache)
    assert (min(apart) > 1e-4) if sees_all else (max(apart) < 1e-5)


@pytest.mark.parametrize("dream", ["apart", "none"])
def test_acting_without_a_dream_is_what_training_taught(dream: str) -> None:
    torch.manual_seed(0)
    model = DreamZeroTransformer(
        **SMALL, position_grid=(2, 2), state_sees_all=False, dream=dream
    ).eval()
    given = inputs(3)
    if dream == "none":
        given["noisy_latents"] = given["noisy_latents"][:, :, :0]
        given["timestep"] = given["timestep"][:, :0]
    else:  # the noisy first frame is left out
        given["noisy_latents"] = given["noisy_latents"][:, :, 1:]
        given["timestep"] = given["timestep"][:, 1:]
    with torch.inference_mode():
        context = model.encode_context(TEXT)
        video, action = model(context=context, **given)
        assert action is not None
        # Another dream, the same actions.
        changed = given | {"noisy_latents": given["noisy_latents"] + 1}
        torch.testing.assert_close(model(context=context, **changed)[1], action)
        cache = model.new_cache(SIZE, batch=2)
        model.step(given["clean_latents"][:, :, :1], torch.zeros(2, 1), context, cache)
        for block in range(3):
            steps = slice(4 * block, 4 * block + 4)
            times = given["timestep_action"][:, steps]
            nothing, got = model.step(
                torch.empty(2, 3, 0, *SIZE), torch.empty(2, 0), context, cache,
                given["noisy_action"][:, steps], times, given["state"][:, block : block + 1],
            )  # fmt: skip
            assert got is not None and nothing.shape == (2, 3, 0, *SIZE)
            torch.testing.assert_close(got, action[:, steps], atol=1e-5, rtol=1e-5)
            frames = slice(1 + 2 * block, 3 + 2 * block)
            model.step(given["clean_latents"][:, :, frames], torch.zeros(2, 2), context, cache)
    assert video.shape == given["noisy_latents"].shape


def test_full_cache_refuses(model: DreamZeroTransformer) -> None:
    latents = torch.randn(1, 3, 9, *SIZE)
    context = model.encode_context(TEXT[:1])
    cache = model.new_cache(SIZE)
    with pytest.raises(ValueError, match="cache of"):
        model.step(latents, torch.zeros(1, 9), context, cache)


def test_video_only_trains_causally(model: DreamZeroTransformer) -> None:
    given = inputs(2)
    context = model.encode_context(TEXT)
    args = (given["noisy_latents"], given["clean_latents"], given["timestep"], context)
    video, action = model(*args)
    assert action is None
    changed = given["noisy_latents"].clone()
    changed[:, :, 3:] += 1
    video2, _ = model(changed, *args[1:])
    torch.testing.assert_close(video2[:, :, :3], video[:, :, :3], atol=1e-5, rtol=1e-4)
    leaky, _ = model(*args, leaky_video_only=True)
    assert (leaky - video).abs().max() > 1e-3


def test_wrong_channels_are_named(model: DreamZeroTransformer) -> None:
    given = inputs(1)
    given["noisy_latents"] = given["clean_latents"] = torch.randn(2, 7, 3, *SIZE)
    with pytest.raises(ValueError, match="takes 3 latent channels, got 7"):
        model(context=model.encode_context(TEXT), **given)


def test_save_and_load(model: DreamZeroTransformer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = DreamZeroTransformer.from_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 20), st.sampled_from([12, 24, 64]))
def test_rope_is_relative(a: int, b: int, shift: int, head_dim: int) -> None:
    g = torch.Generator().manual_seed(a + 51 * b)
    q, k = torch.randn(2, 1, 1, 1, head_dim, generator=g)

    def score(i: int, j: int) -> Tensor:
        ropes = [sequence_rope(torch.tensor([p]), head_dim) for p in (i, j)]
        return (rotate(q, ropes[0]) * rotate(k, ropes[1])).sum()

    torch.testing.assert_close(score(a, b), score(a + shift, b + shift), atol=1e-3, rtol=1e-3)
    rotated = rotate(q, sequence_rope(torch.tensor([a]), head_dim))
    torch.testing.assert_close(rotated.norm(), q.norm())


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.sampled_from([12, 24, 64, 128]))
def test_video_rope_shape(frames: int, height: int, width: int, head_dim: int) -> None:
    rope = video_rope(torch.arange(frames), height, width, head_dim)
    assert rope.shape == (frames * height * width, head_dim // 2)
    torch.testing.assert_close(rope[0], torch.ones(head_dim // 2, dtype=torch.complex64))


@pytest.mark.parametrize(("name", "low", "high"), [("tiny", 1e6, 6e6), ("small", 1e7, 3e7)])
def test_small_presets(name: str, low: float, high: float) -> None:
    count = sum(p.numel() for p in DreamZeroTransformer(**preset(name)).parameters())
    assert low <= count <= high


@pytest.mark.parametrize("name", [n for n in PRESETS if n.startswith("wan")])
def test_full_size_presets_build_on_meta(name: str) -> None:
    with torch.device("meta"):
        model = DreamZeroTransformer(**preset(name))
    count = sum(p.numel() for p in model.parameters())
    if name == "wan2.1-14b-droid":
        assert count == 16_484_292_448  # checkpoint_facts: DiT with projectors
    assert count > 1e9


def test_unknown_preset() -> None:
    with pytest.raises(UserError, match="unknown preset 'huge'"):
        preset("huge")


def test_words_become_vectors() -> None:
    encoder = WordEncoder.fit(["push the red block", "touch the blue cube."], dim=8)
    assert words("Push, the RED") == ["push", ",", "the", "red"]
    out = encoder.encode(["push the red block", "push the mauve block", ""])
    assert out.shape == (3, encoder.config.max_words, 8)
    assert (out[2] == 0).all()
    assert (out[0, 4:] == 0).all()
    assert not torch.equal(out[0, 2], out[1, 2])
    assert encoder.unknown("push the mauve block") == ["mauve"]
    assert "red" not in encoder.unknown("red")
