"""A checkpoint in the public layout as a policy: imported, loaded, run over blocks and windows.

The miniature has every kind of weight that the release has, two layers of them, and random numbers.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from dreamzero.errors import UserError
from dreamzero.flow import SamplerConfig, sample
from dreamzero.inference import WorldActionPolicy, load_policy
from dreamzero.model import conditioning
from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.checkpoints.importer import import_checkpoint
from dreamzero.model.checkpoints.miniature import Widths, write_miniature, write_tokenizer
from dreamzero.model.checkpoints.plan import ImportOptions
from dreamzero.model.conditioning import first_frame_channels
from dreamzero.model.encoders.image import ImageEncoder
from dreamzero.model.encoders.text import UMT5TextEncoder
from dreamzero.model.release import transformer_config, transformer_state_dict
from dreamzero.model.transformer import DreamZeroTransformer

SHALLOW = Widths(layers=2, text_layers=2, image_layers=4)
SAMPLER = SamplerConfig(steps=2, guidance=1.0)
CANVAS = (32, 64)
GOLDEN = Path(
    os.environ.get("DREAMZERO_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The imported miniature; its canvas is made small, which is a matter of the card alone."""
    root = tmp_path_factory.mktemp("imported")
    public = write_miniature(root / "droid", SHALLOW)
    options = ImportOptions(tokenizer=write_tokenizer(root / "words"))
    ours = import_checkpoint(public, root / "ours", options=options)
    path = ours / "embodiment.json"
    robots = json.loads(path.read_text())
    assert robots["oxe_droid"]["card"]["canvas_px"] == [352, 640]
    robots["oxe_droid"]["card"]["canvas_px"] = CANVAS
    path.write_text(json.dumps(robots))
    return ours


@pytest.fixture(scope="module")
def model(folder: Path) -> WorldActionModel:
    return WorldActionModel.load(folder, dtype=torch.float32)


def frames(policy: WorldActionPolicy, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {v: rng.integers(0, 255, (count, 16, 32, 3), dtype=np.uint8) for v in policy.card.views}


STATE = np.linspace(-1.0, 1.0, 8, dtype=np.float32)


def episode(policy: WorldActionPolicy, chunks: int = 2, first: int = 0) -> list[np.ndarray]:
    policy.reset("Push the block")
    policy.observe(frames(policy, 1, first), STATE)
    out = [policy.act().actions]
    for i in range(1, chunks):
        policy.observe(frames(policy, 8, 100 + i), STATE)
        out.append(policy.act().actions)
    return out


def differ(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return any(not np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_weights_keep_their_dtype_and_run(folder: Path) -> None:
    policy = load_policy(folder, sampler=SAMPLER, dream=True)
    model = policy.model
    assert isinstance(model.text_encoder, UMT5TextEncoder)
    assert isinstance(model.image_encoder, ImageEncoder)
    parts: list[Any] = [model.transformer, model.text_encoder, model.image_encoder, model.codec]
    weights = [weight for part in parts for weight in part.parameters()]
    assert {weight.dtype for weight in weights} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in weights)
    first, second = episode(policy), episode(policy)
    assert not differ(first, second)
    assert all(a.shape == (24, 8) and a.dtype == np.float32 for a in first)
    assert all(np.isfinite(a).all() for a in first)
    chunk = policy.act()
    assert chunk.rate_hz == 15.0
    assert chunk.video is not None
    assert chunk.video.shape == (8, *CANVAS, 3)


def test_windows_start_again(model: WorldActionModel) -> None:
    """Every window conditions on its own first frame, of which it has the latent in its channels."""
    policy = WorldActionPolicy(model, sampler=SAMPLER)
    policy.reset("push the block")
    policy.observe(frames(policy, 1), STATE)
    cached, channels, contexts = [], [], []
    for i in range(5):
        cached.append(policy.act().info["cached_frames"])
        assert policy._first is not None
        channels.append(policy._first)
        contexts.append(policy._branches[0].context)
        policy.observe(frames(policy, 8, i), STATE)
    assert cached == [1, 3, 5, 7, 1]
    assert channels[0] is channels[3]
    assert contexts[0] is contexts[3]
    assert channels[0].shape == (1, 4 + 16, 9, CANVAS[0] // 8, CANVAS[1] // 8)
    assert channels[0][:, :4, 0].eq(1).all()
    assert not channels[0][:, :4, 1:].any()
    assert not torch.equal(channels[0], channels[4])
    before, after = contexts[3][0].image, contexts[4][0].image
    assert before is not None
    assert after is not None
    assert not torch.equal(before[0], after[0])
    assert torch.equal(contexts[3][0].text[0], contexts[4][0].text[0])


def test_channels_are_the_frame_and_then_grey(model: WorldActionModel) -> None:
    torch.manual_seed(0)
    frame = torch.rand(1, 3, 1, *CANVAS) * 2 - 1
    out = first_frame_channels(model.codec, frame, 3)
    grey = torch.zeros(1, 3, 8, *CANVAS)
    assert torch.equal(out[:, 4:], model.codec.encode(torch.cat([frame, grey], 2)))
    black = model.codec.encode(torch.cat([frame, grey - 1], 2))
    assert not torch.allclose(out[:, 4:], black)


def test_first_frame_reaches_the_actions(model: WorldActionModel) -> None:
    policy = WorldActionPolicy(model, sampler=SAMPLER)
    base = episode(policy)
    assert differ(episode(policy, first=1), base)


@pytest.mark.parametrize("silenced", ["features", "channels"])
def test_both_ways_of_the_first_frame_count(
    model: WorldActionModel, silenced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one of them, the same noise and the same frames lead to other actions."""
    policy = WorldActionPolicy(model, sampler=SAMPLER)
    base = episode(policy)

    def nothing(call: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda *given: torch.zeros_like(call(*given))

    name = "image_features" if silenced == "features" else "first_frame_channels"
    monkeypatch.setattr(conditioning, name, nothing(getattr(conditioning, name)))
    without = episode(policy)
    assert differ(without[:1], base[:1])
    assert differ(without[1:], base[1:])


def test_relative_actions_land_at_the_state(
    model: WorldActionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A predicted zero is the middle of the quantiles: joints add it to the state, grippers do not."""
    policy = WorldActionPolicy(model, sampler=SAMPLER)
    monkeypatch.setattr(
        "dreamzero.flow.objectives.sample",
        lambda _, video, action, __: (video, torch.zeros_like(action)),
    )
    policy.reset("push the block")
    for state in (STATE, STATE * 0.5):
        policy.observe(frames(policy, 1), state)
        actions = policy.act().actions
        middle = 0.01 * np.arange(7)  # of the miniature's statistics
        np.testing.assert_allclose(actions[:, :7] - state[:7], np.tile(middle, (24, 1)), atol=1e-6)
        np.testing.assert_allclose(actions[:, 7], 0.5, atol=1e-6)


def test_missing_parts_are_named(folder: Path, model: WorldActionModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image_encoder: import it"):
        WorldActionPolicy(dataclasses.replace(model, image_encoder=None))
    with pytest.raises(UserError, match="knows no robot with actions"):
        WorldActionPolicy(dataclasses.replace(model, robots={}))
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("tokenizer"))
    with pytest.raises(UserError, match="import --tokenizer DIR"):
        load_policy(bare)


class _Given:
    """Codec and encoders that answer with a golden case's own inputs."""

    latent_channels, temporal_factor, spatial_factor = 16, 4, 8

    def __init__(self, given: dict[str, Tensor]) -> None:
        self.given = given

    def encode_next(self, video: Tensor, cache: None) -> tuple[Tensor, object]:
        return self.given["clean_latents"][:, :, :1], object()


def golden() -> list[Any]:
    paths = sorted(GOLDEN.glob("sample*.safetensors"))
    missing = pytest.mark.skip(reason=f"no golden case of the sampler in {GOLDEN}")
    return [pytest.param(p, id=p.stem) for p in paths] or [pytest.param(GOLDEN, marks=missing)]


@pytest.mark.parametrize("path", golden())
def test_the_policy_computes_what_the_release_computed(
    model: WorldActionModel, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A golden case through observe and act: prefill, both branches, channels, features, sampler."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        case = json.loads(file.metadata()["case"])

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    given, expected = part("input."), part("output.")
    transformer = DreamZeroTransformer(**transformer_config(case["config"]))
    transformer.load_state_dict(transformer_state_dict(part("state_dict.")))
    size = given["clean_latents"].shape[-2:]
    card = model.card().with_(
        canvas_px=tuple(8 * n for n in size), horizon=case["config"]["num_action_per_block"]
    )
    texts = iter([given["context"], given["context_negative"]])
    toy: Any = dataclasses.replace(
        model,
        transformer=transformer.eval(),
        codec=_Given(given),
        text_encoder=SimpleNamespace(encode=lambda _: next(texts)),
        robots={card.name: (card, model.robots["oxe_droid"][1])},
    )
    monkeypatch.setattr(conditioning, "image_features", lambda *_: given["clip_feature"])
    monkeypatch.setattr(conditioning, "first_frame_channels", lambda *_: given["first_frame"])
    mask = case["step_mask"]
    config = SamplerConfig(
        steps=case["steps"],
        shift=case["shift"],
        guidance=case["cfg_scale"],
        step_mask=None if mask is None else tuple(mask),
        video_final_noise=case["video_final_noise"] or 0.0,
    )
    results: list[Tensor] = []

    def keep(*arguments: Any) -> tuple[Tensor, Tensor]:
        results.extend(sample(*arguments))
        return results[0], results[1]

    monkeypatch.setattr("dreamzero.flow.objectives.sample", keep)
    policy = WorldActionPolicy(toy, sampler=config)
    state = given["state"][0, 0].numpy()
    scaling = SimpleNamespace(state=lambda _: state, unaction=lambda actions, _: actions)
    noise = iter([given["noisy_latents"], given["noisy_action"]])
    monkeypatch.setattr(policy, "normalizer", scaling)
    monkeypatch.setattr(policy, "_noise", lambda *_: next(noise))
    policy.reset("push the block")
    policy.observe(frames(policy, 1), STATE)
    assert policy.act().info["evaluations"] == case["evaluations"]
    for actual, wanted in zip(results, (expected["video"], expected["action"]), strict=True):
        assert ((actual - wanted).norm() / wanted.norm()).item() < 1e-5
