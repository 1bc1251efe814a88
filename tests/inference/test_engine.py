"""The engine: golden cases through it, tiers, admission, pieces of a block, shared and closed sessions."""

from __future__ import annotations

import inspect
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from dreamzero.errors import UserError
from dreamzero.flow import STEP_MASKS, Reuse, SamplerConfig, guide, sample
from dreamzero.inference import Engine, EngineConfig, Session, WorldActionPolicy
from dreamzero.inference.network import Inputs
from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.release import transformer_config, transformer_state_dict
from dreamzero.model.transformer import DreamZeroTransformer

from .toys import STATE, episode, frames

GOLDEN = Path(
    os.environ.get("DREAMZERO_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden")
)
# Kernels and graphs on and off. Here graphs are what ``recorded`` makes of them.
COMPUTES = [
    pytest.param(EngineConfig(kernels=kernels), graphs, id=f"kernels-{kernels}-graphs-{graphs}")
    for kernels in ("off", "on")
    for graphs in ("off", "on")
]


def golden(kind: str) -> list[Any]:
    paths = sorted(GOLDEN.glob(f"{kind}_*.safetensors"))
    missing = pytest.mark.skip(reason=f"no golden case {kind!r} in {GOLDEN}")
    return [pytest.param(p, id=p.stem) for p in paths] or [pytest.param(GOLDEN, marks=missing)]


def read(path: Path) -> tuple[dict[str, Any], DreamZeroTransformer, dict[str, Tensor], Any]:
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        case = json.loads(file.metadata()["case"])

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    transformer = DreamZeroTransformer(**transformer_config(case["config"]))
    transformer.load_state_dict(transformer_state_dict(part("state_dict.")))
    return case, transformer.eval(), part("input."), part("output.")


def near(actual: Tensor, wanted: Tensor, bar: float = 1e-5) -> None:
    assert ((actual - wanted).norm() / wanted.norm()).item() < bar


def open_golden(
    engine: Engine, given: dict[str, Tensor], sampler: SamplerConfig, prompts: list[Tensor]
) -> Session:
    session = engine.open(tuple(given["clean_latents"].shape[-2:]), sampler)
    session.reset(prompts)
    session.begin(given["clip_feature"][:1], given.get("first_frame"))
    return session


def recorded(engine: Engine, graphs: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Graphs without a GPU: an evaluation recorded over static tensors, whose replay, like a
    graph's, reads those and writes those and nothing else."""
    captures: list[Any] = []

    def capture(call: Any, pool: Any) -> Any:
        outputs = tuple(x.clone() for x in call())
        captures.append(outputs)

        def replay() -> None:
            for old, new in zip(outputs, call(), strict=True):
                old.copy_(new)

        return replay, outputs

    if not engine.graphs:
        monkeypatch.setattr("dreamzero.inference.graphs.capture", capture)
    engine.graphs = graphs == "on"
    return captures


@pytest.mark.parametrize("path", golden("infer"))
@pytest.mark.parametrize(("config", "captured"), COMPUTES)
@torch.inference_mode()
def test_blocks_over_a_window(
    path: Path, config: EngineConfig, captured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefill, then evaluation and write of every block; twice, for a window starts clean."""
    case, transformer, given, expected = read(path)
    engine, row = Engine(transformer, config), slice(0, 1)
    captures = recorded(engine, captured, monkeypatch)
    given = {k: v[row] if v.ndim > 1 else v for k, v in given.items()}
    per_block, horizon = case["config"]["num_frame_per_block"], transformer.config.horizon
    session = open_golden(engine, given, SamplerConfig(guidance=1.0), [given["context"]])
    for _ in range(2):
        session.begin(given["clip_feature"], given.get("first_frame"))
        session.write(given["clean_latents"][:, :, :1])
        for block in range(case["blocks"]):
            span = slice(1 + block * per_block, 1 + (block + 1) * per_block)
            steps = slice(block * horizon, (block + 1) * horizon)
            velocity = session.chunk(given["state"][:, block : block + 1])
            video, action = velocity(
                given["noisy_latents"][:, :, span],
                given["noisy_action"][:, steps],
                int(given["timestep"][block]),
                int(given["timestep_action"][block]),
            )
            near(video, expected[f"video.{block}"][row])
            near(action, expected[f"action.{block}"][row])
            session.write(given["clean_latents"][:, :, span])
        last = session.cache.buffer[-1, :, :, : session.cache.length]
        near(last, expected["cache_last_layer"][:, row])
    # One a position, however often the window starts again.
    assert len(captures) == (case["blocks"] if captured == "on" else 0)


@pytest.mark.parametrize("path", golden("sample"))
@pytest.mark.parametrize(("config", "captured"), COMPUTES)
@torch.inference_mode()
def test_the_sampler(
    path: Path, config: EngineConfig, captured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, transformer, given, expected = read(path)
    mask = case["step_mask"]
    sampler = SamplerConfig(
        steps=case["steps"],
        shift=case["shift"],
        guidance=case["cfg_scale"],
        step_mask=None if mask is None else tuple(mask),
        video_final_noise=case["video_final_noise"] or 0.0,
    )
    prompts = [given["context"], given["context_negative"]]
    engine = Engine(transformer, config)
    recorded(engine, captured, monkeypatch)
    session = open_golden(engine, given, sampler, prompts)
    session.write(given["clean_latents"][:, :, :1])
    noise = given["noisy_latents"], given["noisy_action"]
    video, action = sample(session.chunk(given["state"]), *noise, sampler)
    near(video, expected["video"])
    near(action, expected["action"])
    assert session.info()["evaluations"] == case["evaluations"]
    assert session.info()["tier"] == ("exact" if mask is None else "approximate")


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_rounding_engines_measure_themselves(model: WorldActionModel, precision: Any) -> None:
    exact = WorldActionPolicy(model)
    rounded = WorldActionPolicy(model, engine=EngineConfig(precision=precision))
    wanted, got = episode(exact, 2), episode(rounded, 2)
    info = rounded.act().info
    assert info["tier"] == "numeric"
    errors = info["relative_errors"]
    assert 1e-4 < errors["video"] < 0.1
    assert 1e-5 < errors["decoded"] < 0.1
    assert "relative_errors" not in exact.act().info
    assert exact.act().info["tier"] == "exact"
    scale = np.abs(wanted[1]).max()
    assert 0 < np.abs(wanted[1] - got[1]).max() < 0.1 * scale


@torch.inference_mode()
def test_guidance_on_an_interval(model: WorldActionModel) -> None:
    """Outside of it the conditional branch runs alone; inside, it is plain guidance."""
    batches: list[int] = []

    def run(sampler: SamplerConfig) -> np.ndarray:
        policy = WorldActionPolicy(model, sampler=sampler)
        inner = policy.session.evaluate

        def watch(given: Inputs, branches: int) -> tuple[Tensor, Tensor]:
            batches.append(branches)
            return inner(given, branches)

        policy.session.evaluate = watch  # type: ignore[method-assign]
        actions = episode(policy, 1)[0]
        assert policy.act().info["tier"] == ("approximate" if sampler.approximate else "exact")
        return actions

    everywhere = run(SamplerConfig(steps=4, guidance=3.0))
    assert batches[:4] == [2, 2, 2, 2]
    batches.clear()
    high = run(SamplerConfig(steps=4, guidance=3.0, guidance_interval=(0.9, 1.0)))
    assert batches[:4] == [2, 2, 1, 1]  # timesteps 999, 937, 833, 624
    assert not np.array_equal(everywhere, high)


@torch.inference_mode()
def test_branches_in_one_batch_are_two_forwards(model: WorldActionModel) -> None:
    transformer, generator = model.transformer, torch.Generator().manual_seed(0)
    size, sampler = model.latent_size(), SamplerConfig(steps=3, guidance=4.0)
    texts = [model.text_encoder.encode([words]) for words in ("push the red block", "the")]
    session = Engine(transformer).open(size, sampler)
    session.reset(texts)
    seen = torch.randn(1, 24, 3, *size, generator=generator)
    video = torch.randn(1, 24, 2, *size, generator=generator)
    action, state = torch.randn(1, 8, 8, generator=generator), torch.randn(1, 1, 8)
    for piece in seen.split([1, 2], dim=2):
        session.write(piece)
    caches = []
    for text in texts:
        context, cache = transformer.encode_context(text), transformer.new_cache(size)
        for piece in seen.split([1, 2], dim=2):
            transformer.step(piece, torch.zeros(1, piece.shape[2]), context, cache)
        caches.append((context, cache))

    def velocity(video: Tensor, action: Tensor, tv: int, ta: int) -> tuple[Tensor, Tensor]:
        times = torch.full((1, 2), float(tv)), torch.full((1, 8), float(ta))
        out = [
            transformer.step(video, times[0], *branch, action, times[1], state) for branch in caches
        ]
        assert out[0][1] is not None
        return guide(out[0][0], out[1][0], 4.0), out[0][1]

    wanted = sample(velocity, video, action, sampler)
    got = sample(session.chunk(state), video, action, sampler)
    near(got[0], wanted[0])
    near(got[1], wanted[1])


def test_dynamic_reuse_skips_and_says_so(model: WorldActionModel) -> None:
    always = SamplerConfig(steps=16, guidance=1.0, reuse=Reuse(((-1.0, 4),)))
    policy = WorldActionPolicy(model, sampler=always)
    episode(policy, 1)
    # Two evaluations, then one after every four steps: 0 1 6 11.
    assert policy.act().info["evaluations"] == 4
    never = SamplerConfig(steps=16, guidance=1.0, reuse=Reuse(((1.0, 4),)))
    full = SamplerConfig(steps=16, guidance=1.0)
    a, b = (episode(WorldActionPolicy(model, sampler=s), 1)[0] for s in (never, full))
    np.testing.assert_array_equal(a, b)
    assert {n: sum(mask) for n, mask in STEP_MASKS.items()} == {5: 5, 6: 6, 7: 7, 8: 8}
    with pytest.raises(UserError, match="exclude each other"):
        SamplerConfig(step_mask=STEP_MASKS[8], reuse=Reuse())
    with pytest.raises(UserError, match="two sigmas"):
        SamplerConfig(guidance_interval=(0.5, 0.2))
    with pytest.raises(UserError, match="a cosine is between"):
        Reuse(((2.0, 4),))


@pytest.mark.parametrize("dream", ["apart", "none"])
@pytest.mark.parametrize("kernels", ["off", "on"])
@torch.inference_mode()
def test_policies_that_do_not_dream(model: WorldActionModel, dream: str, kernels: str) -> None:
    """The engine without video tokens, against the transformer's own step."""
    config = dict(model.transformer.config) | {"dream": dream}
    known = inspect.signature(DreamZeroTransformer.__init__).parameters
    transformer = DreamZeroTransformer(**{k: v for k, v in config.items() if k in known})
    transformer.load_state_dict(model.transformer.state_dict())
    sampler = SamplerConfig(steps=3, guidance=2.0)
    engine = Engine(transformer.eval(), EngineConfig(kernels=kernels))  # type: ignore[arg-type]
    session = engine.open(model.latent_size(), sampler)
    texts = [model.text_encoder.encode([words]) for words in ("push the red block", "")]
    session.reset(texts)
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(1, 24, 1, *model.latent_size(), generator=generator)
    session.write(seen)
    state = torch.randn(1, 1, 8, generator=generator)
    nothing, noise = seen[:, :, :0], torch.randn(1, 8, 8, generator=generator)
    video, got = sample(session.chunk(state), nothing, noise, sampler)
    context, cache = (
        transformer.encode_context(texts[0]),
        transformer.new_cache(model.latent_size()),
    )
    transformer.step(seen, torch.zeros(1, 1), context, cache)

    def velocity(video: Tensor, action: Tensor, tv: int, ta: int) -> tuple[Tensor, Tensor]:
        times = torch.full((1, 8), float(ta))
        out = transformer.step(video, video.new_zeros(1, 0), context, cache, action, times, state)
        assert out[1] is not None
        return out[0], out[1]

    near(got, sample(velocity, nothing, noise, sampler)[1])
    assert video.numel() == 0
    bundle = replace(model, transformer=transformer)
    assert np.isfinite(episode(WorldActionPolicy(bundle), 2)).all()
    with pytest.raises(UserError, match="acts without dreaming"):
        WorldActionPolicy(bundle, dream=True)


def test_flash_is_one_evaluation_with_noisy_video(model: WorldActionModel) -> None:
    policy = WorldActionPolicy(model, sampler=SamplerConfig.flash())
    episode(policy, 1)
    info = policy.act().info
    assert (info["evaluations"], info["branches"]) == (1, 1)


def test_a_block_may_come_in_pieces(model: WorldActionModel) -> None:
    whole, pieces = WorldActionPolicy(model, dream=True), WorldActionPolicy(model, dream=True)
    for policy in (whole, pieces):
        policy.reset("push the red block")
        policy.observe(frames(1), STATE)
    for block in range(5):  # over the end of a window
        a, b = whole.act(), pieces.act()
        np.testing.assert_array_equal(a.actions, b.actions)
        assert a.video is not None
        np.testing.assert_array_equal(a.video, b.video)
        assert a.info["cached_frames"] == b.info["cached_frames"] == (1, 3, 5, 7, 1)[block]
        seen = frames(8, block)
        whole.observe(seen, STATE)
        pieces.observe({k: v[:4] for k, v in seen.items()}, STATE)
        if a.info["cached_frames"] < 7:
            with pytest.raises(UserError, match="in the middle of a block"):
                pieces.act()
            with pytest.raises(UserError, match="4 of them are here"):
                pieces.observe(seen, STATE)
        pieces.observe({k: v[4:] for k, v in seen.items()}, STATE)


def test_sessions_are_admitted_by_memory(model: WorldActionModel) -> None:
    size = model.latent_size()
    bare = Engine(model.transformer)
    needs = bare.session_bytes(size, 1)
    buffer = bare.open(size).cache.buffer
    assert needs > buffer.numel() * buffer.element_size()
    engine = Engine(model.transformer, EngineConfig(memory_gib=2.5 * needs / 2**30))
    first, second = engine.open(size), engine.open(size)
    with pytest.raises(UserError, match="beside 2 others: close one"):
        engine.open(size)
    first.close()
    third = engine.open(size)
    assert {second, third} == set(engine.sessions)
    del second
    with pytest.raises(UserError, match="2 branches"):
        engine.open(size, SamplerConfig(steps=2))


def test_sessions_do_not_disturb_each_other(model: WorldActionModel) -> None:
    engine = Engine(model.transformer)
    alone = episode(WorldActionPolicy(model), 3)
    one, other = (WorldActionPolicy(model, engine=engine, seed=s) for s in (0, 1))
    for policy in (one, other):
        policy.reset("push the red block")
        policy.observe(frames(1), STATE)
    got = []
    for i in range(3):
        if i:
            one.observe(frames(8, i), STATE)
            other.observe(frames(8, 10 + i), STATE)
        got.append(one.act().actions)
        other.act()
    assert all(np.array_equal(a, b) for a, b in zip(alone, got, strict=True))
    with pytest.raises(UserError, match="made for another model"):
        WorldActionPolicy(model, engine=Engine(DreamZeroTransformer(**model.transformer.config)))


def test_changed_weights_are_seen_at_reset(model: WorldActionModel) -> None:
    policy = WorldActionPolicy(model)
    before = episode(policy, 1)[0]
    weight = model.transformer.blocks[0].attn1.to_q.weight
    kept = weight.clone()
    with torch.no_grad():
        weight.mul_(2)
    changed = episode(policy, 1)[0]
    with torch.no_grad():
        weight.copy_(kept)
    assert not np.array_equal(before, changed)
    np.testing.assert_array_equal(episode(policy, 1)[0], before)


def test_encoders_may_leave(model: WorldActionModel) -> None:
    plain = episode(WorldActionPolicy(model), 2)
    left = episode(WorldActionPolicy(model, engine=EngineConfig(encoders="leave")), 2)
    assert all(np.array_equal(a, b) for a, b in zip(plain, left, strict=True))


def test_mistakes_are_named(model: WorldActionModel) -> None:
    with pytest.raises(UserError, match="precision is one of stored, bf16, fp8, not 'int4'"):
        EngineConfig(precision="int4")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="graphs='on' needs a CUDA device"):
        Engine(model.transformer, EngineConfig(graphs="on"))
    with pytest.raises(UserError, match="memory_gib=0"):
        EngineConfig(memory_gib=0)
    with pytest.raises(UserError, match="do not divide into patches"):
        Engine(model.transformer).open((7, 8))
    with pytest.raises(UserError, match="has places for 4 x 4"):
        Engine(model.transformer).open((8, 10))
    policy = WorldActionPolicy(model)
    policy.reset("push the red block")
    view = next(iter(frames(1)))
    for wrong in (frames(1)[view].astype(np.float32), frames(1)[view][..., 0], frames(0)[view]):
        with pytest.raises(UserError, match=r"frames are uint8 \[t, h, w, 3\]"):
            policy.observe({view: wrong}, STATE)
    with pytest.raises(UserError, match="opened for"), torch.inference_mode():
        policy.session.write(torch.zeros(1, 24, 1, 8, 10))
    # Views of other arrays are as good as arrays.
    turned = np.ascontiguousarray(frames(1)[view][:, ::-1])[:, ::-1]
    policy.observe({view: turned}, STATE)
    a = policy.act().actions
    policy.reset("push the red block")
    policy.observe(frames(1), STATE)
    np.testing.assert_array_equal(policy.act().actions, a)
