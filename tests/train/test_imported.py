"""Fine-tuning from an imported checkpoint: all of it, the coders, or LoRA."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from dreamzero.data.mixture import Feed
from dreamzero.data.reader import Dataset
from dreamzero.data.windows import WindowDataset
from dreamzero.errors import UserError
from dreamzero.inference import WorldActionPolicy, load_policy
from dreamzero.model import conditioning
from dreamzero.model.bundle import WorldActionModel
from dreamzero.model.checkpoints.exporter import export_checkpoint
from dreamzero.model.checkpoints.importer import import_checkpoint
from dreamzero.model.checkpoints.layouts import CODERS
from dreamzero.model.checkpoints.lora import load_adapter, merge_lora
from dreamzero.model.checkpoints.miniature import Widths, lora_shapes
from dreamzero.model.checkpoints.summary import inspect_checkpoint
from dreamzero.model.presets import preset
from dreamzero.model.transformer import DreamZeroTransformer
from dreamzero.train.cache import FeatureCache
from dreamzero.train.config import Source, TrainSettings
from dreamzero.train.features import FeatureEncoder
from dreamzero.train.latents import LatentWindows, encode_windows
from dreamzero.train.loop import Trainer
from dreamzero.train.objective import draw, first_frame_of, generators, training_loss
from dreamzero.train.prompts import PromptTable
from dreamzero.train.reading import in_memory
from dreamzero.train.resume import store
from dreamzero.train.run import train
from dreamzero.train.trained import networks, parameters, widen

from .conftest import CANVAS, import_miniature

QUICK = TrainSettings(
    steps=4,
    full=Source(blocks=2, batch=2),
    first=Source(blocks=1, batch=2),
    lr=1e-2,
    matrix_lr=1e-3,
    warmup=1,
    bf16=False,
    log_every=1,
    evaluate_every=4,
    save_every=2,
    chunks=0,
    tensorboard=False,
)
LORA = replace(QUICK, trained="lora")


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded windows, which all trainings of this module share."""
    return tmp_path_factory.mktemp("latents")


@pytest.fixture
def tune(
    imported: Path, droid_recording: Path, latents: Path, tmp_path: Path
) -> Callable[..., Path]:
    def run(settings: TrainSettings, name: str = "run", **options: Any) -> Path:
        given: dict[str, Any] = {"init": imported, "latents": latents, "progress": False}
        train([droid_recording], tmp_path / name, None, settings, **given | options)
        return tmp_path / name

    return run


def weights(folder: Path) -> dict[str, Tensor]:
    with safe_open(folder / "diffusion_pytorch_model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def windows(model: WorldActionModel, recording: Path, blocks: int) -> WindowDataset:
    card = model.card()
    known = model.robots[card.name][1]
    return WindowDataset(Dataset.open(recording), card, known, blocks=blocks)


def encoded(model: WorldActionModel, cut: WindowDataset) -> LatentWindows:
    config = model.transformer.config
    return encode_windows(
        cut, model.codec, config.action_dim, config.state_dim, progress=False,
        first_frame=True, image_encoder=model.image_encoder,
    )  # fmt: skip


def relative(actual: Tensor, wanted: Tensor) -> float:
    return float((actual - wanted).norm() / wanted.norm())


# --- training and policy compute the same ---


def test_teacher_forcing_is_what_the_policy_runs(
    tmp_path: Path, droid_recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer: with more, a state sees the other tokens when the model acts (MODEL.md 5.2)."""
    folder = import_miniature(tmp_path, Widths(layers=1, text_layers=2, image_layers=4))
    model = WorldActionModel.load(folder)
    widen(model.transformer, frozen=True)
    cut = windows(model, droid_recording, 1)
    batch = encoded(model, cut).batch(torch.tensor([1]))
    config = model.transformer.config
    generator = torch.Generator().manual_seed(0)
    video, action = (
        torch.randn(shape, generator=generator)
        for shape in ((1, 16, 2, *batch.latents.shape[-2:]), (1, 24, config.action_dim))
    )
    table = PromptTable(model.text_encoder, batch.prompt, "cpu")
    with torch.no_grad():
        taught = model.transformer(
            video,
            batch.latents,
            torch.full((1, 2), 600.0),
            model.transformer.encode_context(table.encode(batch.prompt), batch.image_features),
            action,
            torch.full((1, 24), 400.0),
            batch.state,
            first_frame_of(model.transformer, batch),
        )
    acted: list[Tensor] = []

    def once(velocity: Any, *_: Any) -> tuple[Tensor, Tensor]:
        acted.extend(velocity(video, action, 600, 400))
        return acted[0], acted[1]

    monkeypatch.setattr("dreamzero.flow.objectives.sample", once)
    policy = WorldActionPolicy(model)
    dataset, (_, episode, start) = cut.datasets[0], cut.place(1)
    rows = dataset.rows(episode)
    at = int(np.abs(rows["timestamp"] - start).argmin())
    policy.reset(dataset.episode(episode).task.upper())
    policy.observe(
        {view: dataset.frames(episode, view, np.array([at])) for view in policy.card.views},
        rows["state"][at],
    )
    policy.act()
    assert relative(acted[0], taught[0]) < 1e-5
    assert relative(acted[1], taught[1]) < 1e-5


def test_video_alone_agrees_at_any_depth(imported: Path, droid_recording: Path) -> None:
    model = WorldActionModel.load(imported)
    transformer = model.transformer
    widen(transformer, frozen=True)
    batch = encoded(model, windows(model, droid_recording, 2)).batch(torch.tensor([0]))
    first = first_frame_of(transformer, batch)
    noisy = torch.randn(1, 16, 4, *batch.latents.shape[-2:])
    times = torch.tensor([[300.0, 300.0, 700.0, 700.0]])
    table = PromptTable(model.text_encoder, batch.prompt, "cpu")
    assert first is not None
    with torch.no_grad():
        context = transformer.encode_context(table.encode(batch.prompt), batch.image_features)
        taught, _ = transformer(noisy, batch.latents, times, context, first_frame=first)
        cache = transformer.new_cache(batch.latents.shape[-2:])
        for frames in (slice(0, 1), slice(1, 3)):
            clean = batch.latents[:, :, frames]
            zeros = torch.zeros(1, clean.shape[2])
            transformer.step(clean, zeros, context, cache, first_frame=first[:, :, frames])
        acted, _ = transformer.step(
            noisy[:, :, 2:], times[:, 2:], context, cache, first_frame=first[:, :, 3:]
        )
    assert relative(acted, taught[:, :, 2:]) < 1e-5


# --- what is kept of a window ---


def test_first_frames_are_kept_and_count_in_the_digest(
    imported: Path, droid_recording: Path, tmp_path: Path
) -> None:
    model = WorldActionModel.load(imported)
    cut = windows(model, droid_recording, 1)

    def encode(**options: Any) -> LatentWindows:
        encoder = FeatureEncoder(model.codec, 32, 64, **options)
        return in_memory(FeatureCache(tmp_path).precompute(cut, encoder, progress=False))

    both = encode(first_frame=True, image_encoder=model.image_encoder)
    assert both.first_frame is not None and both.first_frame.shape == both.latents.shape
    assert both.image_features is not None
    assert both.image_features.shape == (len(cut), 5, 16)  # the toy's patches and width
    again = encode(first_frame=True, image_encoder=model.image_encoder)
    files = len(cut.datasets[0].episodes)
    assert len(list(tmp_path.glob("windows/*"))) == files
    assert all(torch.equal(t, both.tensors[n]) for n, t in again.tensors.items())
    assert encode().image_features is None and len(list(tmp_path.glob("windows/*"))) == 2 * files
    with torch.no_grad():
        next(model.image_encoder.parameters()).mul_(1.1)  # type: ignore[union-attr]
    other = encode(first_frame=True, image_encoder=model.image_encoder)
    assert not torch.equal(other.image_features, both.image_features)  # type: ignore[arg-type]
    assert torch.equal(other.latents, both.latents)


def test_prompts_are_embedded_once(imported: Path) -> None:
    encoder = WorldActionModel.load(imported).text_encoder
    asked = ["push the block", "open the block"]
    table = PromptTable(encoder, asked, "cpu")
    assert len(table) == 3
    for prompts in (asked, ["", asked[0]]):
        assert torch.equal(table.encode(prompts), encoder.encode(prompts).float())
    assert max(len(row) for row in table._rows.values()) == 4  # three words and the end


# --- what is trained ---


@pytest.mark.parametrize("trained", ["all", "coders", "lora"])
def test_gradients_reach_what_is_trained(
    imported: Path, droid_recording: Path, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen weights as a GPU keeps them: in bfloat16, with the trained ones in float32."""
    monkeypatch.setattr("dreamzero.train.objective.in_bf16", lambda *_: True)
    model = WorldActionModel.load(imported)
    batch = encoded(model, windows(model, droid_recording, 2)).batch(torch.tensor([0, 3]))
    settings = replace(QUICK, trained=trained, bf16=True, first_frame=True)
    found = networks(model, settings)
    assert list(found) == ["transformer"]  # UMT5 stays as it is
    widen(model.transformer, frozen=False)
    table = PromptTable(model.text_encoder, batch.prompt, "cpu")
    noise = draw(batch, settings, 2, generators(0, 0, [0, 1]))
    training_loss(model.transformer, table, batch, noise, settings).total.backward()  # type: ignore[no-untyped-call]
    own = parameters(found)
    assert {p.dtype for p in own.values()} == {torch.float32}
    for name, parameter in own.items():
        gradient = parameter.grad
        assert gradient is not None and bool(gradient.isfinite().all()), name
        # B begins at zero, so that A has no gradient in the first step.
        assert bool(gradient.any()) != (".lora_A." in name), name
    if trained == "lora":
        pairs = {n.removeprefix("transformer.") for n in own if ".lora_" in n}
        release = [n for n in lora_shapes(Widths(layers=2), 4) if ".lora_" in n]
        assert len(pairs) == len(release) == 2 * 10 * 2
        assert len(own) - len(pairs) == 14
        assert {p.dtype for n, p in model.transformer.named_parameters() if "base_layer" in n} == {
            torch.bfloat16
        }


def test_lora_trains_what_the_release_trains() -> None:
    """108.6 M of 14B, as published: 400 pairs of rank 4 and the coders."""
    with torch.device("meta"):
        transformer = DreamZeroTransformer(**preset("wan2.1-14b-droid"))
        model: Any = SimpleNamespace(transformer=transformer, text_encoder=None)
        own = parameters(networks(model, LORA))
    counts = {n: p.numel() for n, p in own.items()}
    pairs = {n: count for n, count in counts.items() if ".lora_" in n}
    assert (len(pairs), sum(pairs.values())) == (800, 19_169_280)
    assert sum(counts.values()) == 19_169_280 + 89_413_664


def test_the_whole_model_is_a_policy_again(
    tune: Callable[..., Path], imported: Path, tmp_path: Path
) -> None:
    out = tune(replace(QUICK, chunks=4, dreams=1))
    policy = load_policy(out)
    assert policy.card.canvas_px == CANVAS
    before, after = weights(imported / "transformer"), weights(out / "transformer")
    assert {t.dtype for t in after.values()} == {torch.bfloat16}
    changed = [n for n, t in after.items() if not torch.equal(t, before[n])]
    assert len(changed) > 0.9 * len(after)
    assert not inspect_checkpoint(out).missing
    for part in ("text_encoder", "image_encoder"):
        theirs = json.loads((imported / part / "config.json").read_text())
        assert (
            json.loads((out / part / "config.json").read_text())["model_type"]
            == (theirs["model_type"])
        )
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert log[-1]["held_out_action"] > 0 and log[-1]["open_loop"] > 0
    assert log[-1]["dream_psnr"] > 0 and (out / "dreams" / "step-00000004.png").is_file()
    back = export_checkpoint(out, tmp_path / "back", like=imported)
    assert back.same_shards
    again = import_checkpoint(back.path, tmp_path / "again")
    assert all(torch.equal(t, after[n]) for n, t in weights(again / "transformer").items())


def test_the_coders_alone(tune: Callable[..., Path], imported: Path) -> None:
    out = tune(replace(QUICK, trained="coders"))
    before, after = weights(imported / "transformer"), weights(out / "transformer")
    for name, tensor in after.items():
        # A bias whose every gradient is zero stays; none of the coders' has that here.
        assert torch.equal(tensor, before[name]) != name.startswith(CODERS), name
    assert load_policy(out).card.name == "oxe_droid"


def test_lora_writes_an_adapter_that_fits_its_base_alone(
    tune: Callable[..., Path], imported: Path, tmp_path: Path
) -> None:
    out = tune(replace(LORA, lora_rank=2, lora_alpha=6.0))
    summary = inspect_checkpoint(out)
    assert summary.layout == "adapter" and [r.tag for r in summary.robots] == ["oxe_droid"]
    assert "20 pairs of low rank, 14 whole tensors" in summary.notes
    assert any("rank 2, alpha 6; belongs to ours" in note for note in summary.notes)
    config = json.loads((out / "adapter_config.json").read_text())
    assert len(config["target_modules"]) == 10 and config["r"] == 2
    merged = merge_lora(imported, out, tmp_path / "merged")
    before, after = weights(imported / "transformer"), weights(merged / "transformer")
    with safe_open(out / "adapter_model.safetensors", "pt") as file:
        a, b = (
            file.get_tensor(f"base_model.model.blocks.1.ffn.net.2.lora_{side}.weight")
            for side in "AB"
        )
    name = "blocks.1.ffn.net.2.weight"
    assert torch.equal(after[name], (before[name].float() + 3.0 * (b @ a)).bfloat16())
    assert (merged / "embodiment.json").read_bytes() == (out / "embodiment.json").read_bytes()
    assert load_policy(merged).card.name == "oxe_droid"
    module = WorldActionModel.load(imported).transformer
    load_adapter(module, out, imported)
    assert torch.equal(dict(module.named_parameters())[name], after[name])
    with pytest.raises(UserError, match=r"is an adapter: merge it .* merge-lora BASE --adapter"):
        load_policy(out)
    other = import_miniature(tmp_path / "other", seed=7)
    with pytest.raises(UserError, match="was made for another base"):
        merge_lora(other, out, tmp_path / "no")


def test_an_adapter_of_other_matrices(tune: Callable[..., Path], imported: Path) -> None:
    out = tune(replace(LORA, lora_targets=("q", "k_img", "v_img"), steps=2))
    config = json.loads((out / "adapter_config.json").read_text())
    wanted = ["attn1.to_q", "attn2.add_k_proj", "attn2.add_v_proj", "attn2.to_q"]
    assert config["target_modules"] == wanted
    before = weights(imported / "transformer")
    merged = weights(merge_lora(imported, out, out.parent / "merged") / "transformer")
    changed = {n.split(".", 2)[2] for n in merged if not torch.equal(merged[n], before[n])
               and n.startswith("blocks.")}  # fmt: skip
    assert changed == {f"{name}.weight" for name in wanted}
    with pytest.raises(UserError, match="train.lora_targets=w: choose from q, k, v, o, ffn.0"):
        replace(LORA, lora_targets=("w",))


def test_a_trained_adapter_goes_out_as_a_lora_save(
    tune: Callable[..., Path], imported: Path, tmp_path: Path
) -> None:
    out = tune(LORA)
    given = export_checkpoint(out, tmp_path / "save").path
    with safe_open(given / "model.safetensors", "pt") as file:
        shapes = {n: tuple(file.get_tensor(n).shape) for n in file.keys()}  # noqa: SIM118
    assert shapes == lora_shapes(Widths(layers=2), 4)
    again = import_checkpoint(given, tmp_path / "again", base=imported)
    for name in ("adapter_model.safetensors", "adapter_config.json", "adapter.json"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name
    merged = merge_lora(imported, out, tmp_path / "merged")
    back = export_checkpoint(merged, tmp_path / "back")
    assert back.same_shards
    metadata = json.loads((back.path / "experiment_cfg/metadata.json").read_text())
    robots = json.loads((out / "embodiment.json").read_text())
    assert metadata["oxe_droid"]["statistics"] == robots["oxe_droid"]["statistics"]


def test_what_peft_injects_is_what_is_merged(
    tune: Callable[..., Path], imported: Path, tmp_path: Path
) -> None:
    """The network that was trained and the merged one give the same velocities."""
    from peft import LoraConfig, inject_adapter_in_model

    out = tune(LORA)
    model, merged = (
        WorldActionModel.load(f, dtype=torch.float32).transformer
        for f in (imported, merge_lora(imported, out, tmp_path / "merged"))
    )
    targets = r"blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ffn\.net\.(0\.proj|2))"
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=targets), model)
    with safe_open(out / "adapter_model.safetensors", "pt") as file:
        for name, parameter in model.named_parameters():
            stored = "base_model.model." + name.replace(".default.", ".")
            if stored in file.keys():  # noqa: SIM118
                parameter.data.copy_(file.get_tensor(stored))
    text, image = torch.randn(1, 6, 16), torch.randn(1, 5, 16)
    given = (torch.randn(1, 16, 3, 4, 8), torch.randn(1, 16, 3, 4, 8), torch.full((1, 3), 500.0))
    first = conditioning.with_mask(torch.randn(1, 16, 3, 4, 8), 4)
    with torch.no_grad():
        video, other = (
            m(*given, m.encode_context(text, image), first_frame=first)[0] for m in (model, merged)
        )
    assert relative(video, other) < 2e-2  # merging rounds to bfloat16


@pytest.mark.parametrize("trained", ["coders", "lora"])
def test_resume_continues_bit_for_bit(
    imported: Path, droid_recording: Path, tmp_path: Path, trained: Any
) -> None:
    from dreamzero.model.checkpoints.adapters import Base

    settings = replace(QUICK, trained=trained, first=Source(blocks=1, batch=0))
    base = Base.open(imported)
    held = encoded(
        WorldActionModel.load(imported),
        windows(WorldActionModel.load(imported), droid_recording, 2),
    )

    def trainer(out: Path, of: Base = base) -> Trainer:
        model = WorldActionModel.load(imported)
        return Trainer(model, [Feed(settings.full, held)], settings, out, base=of)

    def rows(out: Path) -> list[tuple[float, ...]]:
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        return [(row["step"], row["video"], row["action"], row["gradient"]) for row in log]

    trainer(tmp_path / "whole").run(progress=False)
    half = trainer(tmp_path / "parts")
    for _ in range(2):  # as if killed after the checkpoint at step 2
        half.one_step(half.prepare(half.step))
        half.step += 1
    store(half)
    trainer(tmp_path / "parts").run(resume=True, progress=False)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")[2:]
    result = {"lora": "adapter_model.safetensors"}.get(
        trained, "transformer/diffusion_pytorch_model.safetensors"
    )
    assert (tmp_path / "parts" / result).read_bytes() == (tmp_path / "whole" / result).read_bytes()
    with pytest.raises(UserError, match="started from another --init"):
        trainer(tmp_path / "parts", replace(base, fingerprint="0")).run(resume=True, progress=False)


@pytest.mark.gpu
@pytest.mark.parametrize("trained", ["all", "lora"])
def test_training_on_a_gpu(
    tune: Callable[..., Path], imported: Path, tmp_path: Path, trained: Any
) -> None:
    """Frozen weights stay in bfloat16 there, encoders leave when they have been read."""
    out = tune(replace(QUICK, trained=trained, bf16=True), device="cuda")
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert all(row["gradient"] > 0 for row in rows)
    folder = out if trained == "all" else merge_lora(imported, out, tmp_path / "merged")
    assert load_policy(folder, device="cuda").card.name == "oxe_droid"


# --- robots ---


def test_the_card_of_the_checkpoint_goes_before_built_in_ones(
    tune: Callable[..., Path], imported: Path, droid_recording: Path
) -> None:
    out = tune(replace(QUICK, steps=1), card="oxe_droid")
    theirs, own = (json.loads((f / "embodiment.json").read_text()) for f in (imported, out))
    assert own == theirs
    shutil.rmtree(out)
    with pytest.raises(UserError, match="unknown embodiment 'yam'"):
        tune(QUICK, card="yam")


def test_a_new_robot_travels_with_its_adapter(
    tune: Callable[..., Path], imported: Path, tmp_path: Path
) -> None:
    theirs = json.loads((imported / "embodiment.json").read_text())["oxe_droid"]["card"]
    card = tmp_path / "mine.json"
    card.write_text(json.dumps(theirs | {"name": "mine"}))
    out = tune(LORA, card=str(card))
    merged = merge_lora(imported, out, tmp_path / "merged")
    policy = load_policy(merged, embodiment="mine")
    own, known = (policy.model.robots[n][1] for n in ("mine", "oxe_droid"))
    assert own.action["joint_position"].count > 0
    assert own.action["joint_position"].q01[0] != known.action["joint_position"].q01[0]
    back = export_checkpoint(merged, tmp_path / "back").path
    assert set(json.loads((back / "experiment_cfg/metadata.json").read_text())) == {
        "mine",
        "oxe_droid",
    }


def test_plain_wan_learns_to_act(
    tune: Callable[..., Path], imported: Path, plain: Path, tmp_path: Path
) -> None:
    """Weights without image branch, coders and robots: the recording brings the robot."""
    lines = [line.split(":")[0] for line in inspect_checkpoint(plain).missing]
    assert lines == ["image branch", "robots"]
    theirs = json.loads((imported / "embodiment.json").read_text())["oxe_droid"]["card"]
    card = tmp_path / "mine.json"
    card.write_text(json.dumps(theirs | {"name": "mine"}))
    policy = load_policy(tune(QUICK, init=plain, card=str(card)))
    assert policy.card.name == "mine" and policy.model.image_encoder is None
    policy.reset("push the block")
    frame = np.zeros((1, 16, 32, 3), np.uint8)
    policy.observe(dict.fromkeys(policy.card.views, frame), np.zeros(8, np.float32))
    assert np.isfinite(policy.act().actions).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"horizon": 48, "action_hz": 30.0},
            "that model has horizon 24, mine and the codec need 48",
        ),
        ({"blocks": 3}, "that model has window_blocks 4"),
        (
            {"views": [f"observation.images.{v}" for v in ("head", "left", "right")]},
            "looks through",
        ),
    ],
)
def test_cards_that_do_not_fit(
    tune: Callable[..., Path], imported: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    theirs = json.loads((imported / "embodiment.json").read_text())["oxe_droid"]["card"]
    card = tmp_path / "mine.json"
    card.write_text(json.dumps(theirs | {"name": "mine"} | change))
    with pytest.raises(UserError, match=says):
        tune(QUICK, card=str(card))


def test_a_recording_that_no_card_fits_is_not_guessed(
    imported: Path, droid_recording: Path, tmp_path: Path
) -> None:
    other = tmp_path / "recording"
    shutil.copytree(droid_recording, other)
    path = other / "meta" / "info.json"
    path.write_text(path.read_text().replace('"franka"', '"arm"'))
    with pytest.raises(UserError, match=r"fits no robot of --init .*--card FILE.toml"):
        train([other], tmp_path / "out", None, QUICK, init=imported, progress=False)
    assert not (tmp_path / "out").exists()


def test_parts_of_a_model_need_a_model(droid_recording: Path, tmp_path: Path) -> None:
    for settings, size, says in (
        (LORA, None, "train.trained=lora trains a part of a model: name the model with --init"),
        (QUICK, "wan2.1-14b-droid", "reads CLIP features, which a model from scratch has not"),
    ):
        with pytest.raises(UserError, match=says):
            train([droid_recording], tmp_path / "out", size, settings, progress=False)
    assert not (tmp_path / "out").exists()
