"""Import, inspect and export, on miniatures with the release's own names."""

from __future__ import annotations

import filecmp
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamzero.errors import UserError
from dreamzero.model.bundle import DreamZeroTransformer
from dreamzero.model.checkpoints import benchmark, importer, layouts, robots
from dreamzero.model.checkpoints.exporter import export_checkpoint
from dreamzero.model.checkpoints.importer import import_checkpoint
from dreamzero.model.checkpoints.layouts import CODERS, open_layout
from dreamzero.model.checkpoints.loading import load_component
from dreamzero.model.checkpoints.miniature import (
    FULL,
    Widths,
    random_tensors,
    release_shapes,
    write_miniature,
    write_release,
    write_text_files,
)
from dreamzero.model.checkpoints.names import PREFIXES, convert, revert
from dreamzero.model.checkpoints.plan import ImportOptions
from dreamzero.model.checkpoints.shards import Weights, open_indexed
from dreamzero.model.checkpoints.summary import inspect_checkpoint
from dreamzero.model.presets import WAN22_VAE

SHALLOW = Widths(layers=2, text_layers=2, image_layers=4)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 2146 names."""
    return write_miniature(tmp_path_factory.mktemp("public") / "droid")


@pytest.fixture(scope="module")
def imported(public: Path) -> Path:
    return import_checkpoint(public, public.parent / "ours")


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers: quick to break and to import."""
    return write_miniature(tmp_path_factory.mktemp("shallow") / "droid", SHALLOW)


@pytest.fixture
def broken(shallow: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(shallow, tmp_path / "in" / "droid"))


def tensors(folder: Path, stem: str = "model") -> dict[str, Tensor]:
    weights = open_indexed(folder, stem)
    assert weights is not None
    return {name: weights.tensor(name).clone() for name in weights}


def same_bytes(a: Path, b: Path) -> list[str]:
    """Files that differ or are missing on one side."""
    names = {p.relative_to(x) for x in (a, b) for p in x.rglob("*") if p.is_file()}
    return [
        str(n)
        for n in sorted(names)
        if not (
            (a / n).is_file() and (b / n).is_file() and filecmp.cmp(a / n, b / n, shallow=False)
        )
    ]


# --- the miniature stands for the release ---


def test_the_published_counts() -> None:
    shapes = release_shapes(FULL)
    count = {
        component: sum(math.prod(s) for n, s in shapes.items() if n.startswith(prefix))
        for component, prefix in PREFIXES.items()
    }
    coders = sum(
        math.prod(s)
        for n, s in shapes.items()
        if n.removeprefix(PREFIXES["transformer"]).startswith(CODERS)
    )
    assert len(shapes) == 2146
    assert sum(count.values()) == 22_924_172_116
    assert count.pop("transformer") == 16_484_292_448
    assert sum(count.values()) == 6_439_879_668
    assert coders == 89_413_664
    assert release_shapes().keys() == shapes.keys()


# --- import, forward, export ---


def test_every_tensor_arrives_once(public: Path, imported: Path) -> None:
    release = tensors(public)
    for component, prefix in PREFIXES.items():
        short = {n.removeprefix(prefix): t for n, t in release.items() if n.startswith(prefix)}
        stem = "model" if "encoder" in component else "diffusion_pytorch_model"
        ours, expected = tensors(imported / component, stem), convert(component, short)
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[n], expected[n]) for n in ours), component
    assert len(tensors(imported / "extra")) == 2


def test_forward_of_what_was_imported(public: Path, imported: Path) -> None:
    """The libraries' loaders and ours read the same networks, and they compute."""
    from dreamzero.model import codecs, encoders

    loaded = load_component(imported, "transformer", dtype=torch.float32)
    theirs = DreamZeroTransformer.from_pretrained(
        imported / "transformer", torch_dtype=torch.float32
    )
    for (name, a), (other, b) in zip(
        loaded.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == other and torch.equal(a, b)
    assert isinstance(loaded, DreamZeroTransformer)
    image_encoder = encoders.load_image(imported / "image_encoder", torch.float32)
    image = image_encoder.encode(torch.zeros(1, 3, 28, 28))
    ours = load_component(imported, "image_encoder", dtype=torch.float32)
    again = type(image_encoder)(ours).encode(torch.zeros(1, 3, 28, 28))
    assert image.shape == (1, 5, 16) and torch.equal(image, again)
    text = load_component(imported, "text_encoder", dtype=torch.float32)
    embedding = text(torch.arange(7)[None]).last_hidden_state
    codec = codecs.load(imported / "vae")
    clean = codec.encode(torch.zeros(1, 3, 9, 16, 32))
    assert clean.shape == (1, 16, 3, 2, 4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        video, action = loaded(
            torch.randn(clean.shape, generator=generator),
            clean,
            torch.full((1, 3), 500.0),
            loaded.encode_context(embedding, image),
            torch.randn(1, 24, 32, generator=generator),
            torch.full((1, 24), 500.0),
            torch.randn(1, 1, 64, generator=generator),
            torch.zeros(1, 20, 3, 2, 4),
        )
    assert video.shape == clean.shape and action is not None and action.shape == (1, 24, 32)
    assert bool(video.isfinite().all()) and float(action.std()) > 0


def test_export_gives_every_byte_back(public: Path, imported: Path, tmp_path: Path) -> None:
    done = export_checkpoint(imported, tmp_path / "back")
    assert done.same_shards
    assert len(list(public.glob("model-*.safetensors"))) > 1
    assert same_bytes(public, tmp_path / "back") == []


def test_other_dtype(shallow: Path, tmp_path: Path) -> None:
    import_checkpoint(shallow, tmp_path / "ours", options=ImportOptions(dtype="float32"))
    back = export_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert not back.same_shards
    before, after = tensors(shallow), tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n].float(), after[n]) for n in before)
    with pytest.raises(UserError, match="bfloat16, float16 and float32"):
        import_checkpoint(shallow, tmp_path / "no", options=ImportOptions(dtype="int8"))
    with pytest.raises(UserError, match=r"--like .* differ in \d+ tensors"):
        export_checkpoint(
            tmp_path / "ours",
            tmp_path / "no",
            like=import_checkpoint(shallow, tmp_path / "as_stored"),
        )
    assert not (tmp_path / "no").exists()


def test_export_of_a_fine_tuned_model_takes_the_form_of_its_start(
    shallow: Path, tmp_path: Path
) -> None:
    start = import_checkpoint(shallow, tmp_path / "start")
    tuned = Path(shutil.copytree(start, tmp_path / "tuned"))
    shutil.rmtree(tuned / "release")
    model = load_component(start, "transformer")
    with torch.no_grad():
        dict(model.named_parameters())["blocks.0.attn1.to_q.weight"].zero_()
    model.save_pretrained(tuned / "transformer")  # type: ignore[operator]
    assert export_checkpoint(tuned, tmp_path / "back", like=start).same_shards
    assert same_bytes(shallow, tmp_path / "back") == [
        open_layout(shallow)
        .parts[0]
        .weights.entries["action_head.model.blocks.0.self_attn.q.weight"]
        .file.name
    ]
    # Without that form: new shards, and configurations from which import reads the same again.
    assert not export_checkpoint(tuned, tmp_path / "plain", shard_bytes=400_000).same_shards
    again = import_checkpoint(tmp_path / "plain", tmp_path / "again")
    assert same_bytes(again / "transformer", tuned / "transformer") in ([], ["config.json"])
    cards = [robots.load(folder / "embodiment.json") for folder in (again, start)]
    assert cards[0]["oxe_droid"][0] == cards[1]["oxe_droid"][0]


# --- robots ---


def test_the_robot(imported: Path) -> None:
    card, statistics = robots.load(imported / "embodiment.json")["oxe_droid"]
    assert card.name == "oxe_droid" and card.layout == "droid" and card.canvas_px == (352, 640)
    assert [(f.key, f.width, f.relative) for f in card.action] == [
        ("joint_position", 7, True),
        ("gripper_position", 1, False),
    ]
    assert (card.video_hz, card.action_hz, card.horizon, card.blocks) == (5.0, 15.0, 24, 4)
    assert list(statistics.action["joint_position"].q01) == pytest.approx(
        [-0.5 + 0.01 * i for i in range(7)]
    )
    assert set(statistics.state) == {"joint_position", "gripper_position"}


def test_order_rates_and_interpolations_of_another_robot(broken: Path, tmp_path: Path) -> None:
    conf = (broken / "experiment_cfg/conf.yaml").read_text()
    conf = conf.replace("    oxe_droid:", "    agibot:")
    conf = conf.replace("[action.joint_position, action.gripper_position]",
                        "[action.gripper_position, action.joint_position]")  # fmt: skip
    conf = conf.replace("image_resolution_width: 320", "image_resolution_width: ${half}\nhalf: 160")
    (broken / "experiment_cfg/conf.yaml").write_text(conf)
    change_json(broken / "experiment_cfg/metadata.json", lambda m: m | {"agibot": m["oxe_droid"]})
    config = broken / "config.json"
    config.write_text(
        config.read_text().replace('"num_action_per_block": 24', '"num_action_per_block": 48')
    )
    options = ImportOptions(tags=("agibot",), prompt="a robot, two arms: {instruction}")
    out = import_checkpoint(broken, tmp_path / "ours", options=options)
    known = robots.load(out / "embodiment.json")
    assert list(known) == ["agibot"]
    card = known["agibot"][0]
    assert [(f.key, f.start, f.stop) for f in card.action] == [
        ("gripper_position", 0, 1),
        ("joint_position", 1, 8),
    ]
    assert (card.action_hz, card.horizon, card.layout) == (30.0, 48, "grid")
    assert card.canvas_px == (352, 320)
    assert card.render_prompt("Wave") == "a robot, two arms: wave"
    assert not any("prompt" in note for note in inspect_checkpoint(out).notes)


# --- other layouts ---


def wan_parts(release: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    return {
        component: {n.removeprefix(p): t for n, t in release.items() if n.startswith(p)}
        for component, p in PREFIXES.items()
    }


def write_wan(folder: Path, release: dict[str, Tensor], config: dict[str, Any]) -> Path:
    """An original Wan repository: DiT without coders, three .pth files."""
    parts = wan_parts(release)
    folder.mkdir(parents=True)
    plain = {n: t for n, t in parts["transformer"].items() if not n.startswith(CODERS)}
    write_release(folder, plain)
    (folder / "model.safetensors").rename(folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    for component, name in (
        ("text_encoder", "models_t5_umt5-xxl-enc-bf16.pth"),
        ("image_encoder", "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"),
        ("vae", "Wan2.1_VAE.pth"),
    ):
        if parts[component]:
            torch.save(parts[component], folder / name)
    (folder / "google/umt5-xxl").mkdir(parents=True)
    (folder / "google/umt5-xxl/tokenizer.json").write_text("{}")
    return folder


def wan_config(w: Widths) -> dict[str, Any]:
    return {
        "_class_name": "WanModel",
        "model_type": "i2v",
        "dim": w.dim,
        "ffn_dim": w.ffn,
        "freq_dim": w.freq,
        "num_layers": w.layers,
        "num_heads": w.heads,
        "in_dim": 36,
        "out_dim": 16,
    }


@pytest.fixture
def wan(shallow: Path, tmp_path: Path) -> Path:
    return write_wan(tmp_path / "wan" / "Wan2.1", tensors(shallow), wan_config(SHALLOW))


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


# --- what inspect says ---


def test_inspect_reads_headers_only(
    public: Path, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Weights, name: str) -> Tensor:
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(Weights, "tensor", read)
    before, after = inspect_checkpoint(public), inspect_checkpoint(imported)
    assert (before.tensors, before.parameters, before.bytes) == (2146, 704_560, 1_409_120)
    assert (after.parameters, after.bytes) == (before.parameters, before.bytes)
    assert [(r.component, r.tensors) for r in before.components] == [
        ("transformer", 1317),
        ("text_encoder", 242),
        ("image_encoder", 393),
        ("vae", 194),
    ]
    assert [robot.tag for robot in before.robots] == [robot.tag for robot in after.robots]
    assert [line.split(":")[0] for line in before.missing] == ["tokenizer"]


# --- nothing is imported by mistake, and nothing is left behind ---


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def metadata(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Break the statistics of oxe_droid."""

    def apply(folder: Path) -> None:
        path = folder / "experiment_cfg/metadata.json"
        data = json.loads(path.read_text())
        change(data["oxe_droid"]["statistics"])
        path.write_text(json.dumps(data))

    return apply


def replace_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return apply


def retensor(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    """Change tensors and write them again as one file."""

    def apply(folder: Path) -> None:
        release = tensors(folder)
        change(release)
        for path in folder.glob("model*"):
            path.unlink()
        write_release(folder, release)

    return apply


def truncate(folder: Path) -> None:
    path = sorted(folder.glob("model-*.safetensors"))[1]
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def remove_shard(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


Q = "action_head.model.blocks.1.self_attn.q.weight"
BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated shard": (truncate, r"model-00002-of-\d+.safetensors is truncated"),
    "missing shard": (remove_shard, r"index.json names model-00002-of-\d+.safetensors, which is"),
    "no shard at all": (
        lambda f: [p.write_bytes(b"") for p in f.glob("*.safetensors")],
        "is no safetensors file",
    ),
    "index of something else": (
        replace_text("model.safetensors.index.json", Q, Q.replace("q", "z")),
        "says that .* but it is not",
    ),
    "index outside the folder": (
        replace_text("model.safetensors.index.json", "model-00001", "../model-00001"),
        "no file beside it",
    ),
    "wrong shape": (
        retensor(lambda t: t.update({Q: torch.zeros(24, 25)})),
        r"self_attn.q.weight has shape \[24, 25\]; the configuration asks for \[24, 24\]",
    ),
    "wrong shape of a joint tensor": (
        retensor(
            lambda t: t.update(
                {
                    "action_head.image_encoder.model.visual.transformer.3.attn.to_qkv.bias": (
                        torch.zeros(46)
                    )
                }
            )
        ),
        "46 rows, which are not 3 equal parts",
    ),
    "missing tensor": (
        retensor(lambda t: t.pop(Q)),
        "lacks 1 tensors of the transformer, blocks.1",
    ),
    "unknown tensor": (
        retensor(lambda t: t.update({Q.replace("q.", "quux."): torch.zeros(1)})),
        "is no tensor of the release's transformer",
    ),
    "tensor without prefix": (
        retensor(lambda t: t.update({"lm_head.weight": torch.zeros(1)})),
        "holds lm_head.weight",
    ),
    "no config.json": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "config.json of another width": (
        replace_text("config.json", '"dim": 24', '"dim": 48'),
        "the configuration asks for",
    ),
    "no metadata.json": (
        lambda f: (f / "experiment_cfg/metadata.json").unlink(),
        "metadata.json is missing, and with it the statistics",
    ),
    "no conf.yaml": (
        lambda f: (f / "experiment_cfg/conf.yaml").unlink(),
        "conf.yaml is missing, and with it the order",
    ),
    "statistics of a field missing": (
        metadata(lambda s: s["action"].pop("gripper_position")),
        "statistics.action.gripper_position is missing",
    ),
    "no q99": (
        metadata(lambda s: s["state"]["joint_position"].pop("q99")),
        "statistics.state.joint_position is missing or lacks",
    ),
    "q01 == q99": (
        metadata(lambda s: s["action"]["joint_position"]["q99"].__setitem__(3, -0.47)),
        r"joint_position\[3\]: q01 == q99 == -0.47",
    ),
    "q01 above q99": (
        metadata(lambda s: s["action"]["joint_position"]["q99"].__setitem__(3, -9)),
        r"joint_position\[3\]: q01 = -0.47 is above q99 = -9",
    ),
    "quantiles of other lengths": (
        metadata(lambda s: s["action"]["joint_position"]["q99"].pop()),
        "lists of the same length",
    ),
    "another normalisation": (
        replace_text(
            "experiment_cfg/conf.yaml",
            "action.joint_position: q99",
            "action.joint_position: min_max",
        ),
        "normalised by 'min_max'",
    ),
    "no order for the robot": (
        replace_text("experiment_cfg/conf.yaml", "    oxe_droid:", "    agibot:"),
        "no concat order for embodiment 'oxe_droid'",
    ),
    "conf.yaml is no YAML": (
        lambda f: (f / "experiment_cfg/conf.yaml").write_text("a: [1"),
        "conf.yaml is no YAML",
    ),
}


@pytest.mark.parametrize("what", BREAKS)
def test_one_line_and_no_folder(what: str, broken: Path, tmp_path: Path) -> None:
    change, says = BREAKS[what]
    change(broken)
    with pytest.raises(UserError, match=says) as caught:
        import_checkpoint(broken, tmp_path / "out" / "ours")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_constant_dimensions_on_request(broken: Path, tmp_path: Path) -> None:
    BREAKS["q01 == q99"][0](broken)
    options = ImportOptions(allow_constant=True)
    out = import_checkpoint(broken, tmp_path / "ours", options=options)
    assert (
        robots.load(out / "embodiment.json")["oxe_droid"][1].action["joint_position"].q99[3]
        == -0.47
    )


def test_options_that_do_not_fit(shallow: Path, wan: Path, tmp_path: Path) -> None:
    for path, options, says in (
        (shallow, ImportOptions(tags=("yam",)), "no embodiment 'yam'; it knows oxe_droid"),
        (shallow, ImportOptions(horizon=12), "leave --horizon out"),
        (wan, ImportOptions(tags=("oxe_droid",)), "plain Wan and knows no embodiment"),
        (shallow, ImportOptions(prompt="do it"), "should have {instruction}"),
        (shallow, ImportOptions(tokenizer=tmp_path), "holds no tokenizer"),
    ):
        with pytest.raises(UserError, match=says):
            import_checkpoint(path, tmp_path / "ours", options=options)
    with pytest.raises(UserError, match="is imported already"):
        out = import_checkpoint(shallow, tmp_path / "ours")
        import_checkpoint(out, tmp_path / "twice")
    with pytest.raises(UserError, match="exists already"):
        import_checkpoint(shallow, tmp_path / "ours")
    with pytest.raises(UserError, match="leave --base out"):
        import_checkpoint(shallow, tmp_path / "twice", base=out)
    with pytest.raises(UserError, match="not an imported folder"):
        export_checkpoint(shallow, tmp_path / "twice")
    with pytest.raises(UserError, match="is no checkpoint that is known"):
        import_checkpoint(tmp_path / "wan", tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


class Bomb:
    """What a hostile file would hold."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"a": Bomb()}, "holds more than tensors and is not opened"),
        ({"token_embedding.weight": torch.zeros(2), "epoch": 3}, "holds a int under 'epoch'"),
        ([torch.zeros(2)], "holds a list, not a dictionary"),
        (b"PK\x03\x04 half of a file", "is no complete torch file"),
        (b"neither zip nor pickle", "holds more than tensors|is no complete torch file"),
    ],
)
def test_pth_that_is_not_plain_tensors(
    wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = wan / "models_t5_umt5-xxl-enc-bf16.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=says) as caught:
        import_checkpoint(wan, tmp_path / "out" / "ours")
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    assert not (tmp_path / "out").exists() and not Path("exploded").exists()


def test_truncated_and_old_pth(wan: Path, tmp_path: Path) -> None:
    path = wan / "Wan2.1_VAE.pth"
    content = torch.load(path, weights_only=True)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    import_checkpoint(wan, tmp_path / "old")
    torch.save(content, path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(UserError, match="is no complete torch file"):
        import_checkpoint(wan, tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_nothing_stays_of_an_import_that_stopped(
    shallow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    calls = 0
    write = importer.ShardSet.write

    def fail(self: Any, name: str, tensor: Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == 200:
            raise stop
        write(self, name, tensor)

    monkeypatch.setattr(importer.ShardSet, "write", fail)
    with pytest.raises(type(stop)):
        import_checkpoint(shallow, tmp_path / "out" / "ours")
    assert calls == 200 and list(tmp_path.iterdir()) == []


# --- memory ---


def test_memory_stays_below_one_tensor_and_holes_stay_holes(tmp_path: Path) -> None:
    """A sparse checkpoint whose largest tensor has 128 MB, as stored and converted."""
    widths = Widths(layers=1, text_layers=1, image_layers=1, vocabulary=4_000_000)
    total = benchmark.write_sparse(tmp_path / "public", widths)
    largest = 4_000_000 * widths.text * 2
    for dtype in (None, "float32"):
        with benchmark.Watch() as watch:
            out = import_checkpoint(
                tmp_path / "public", tmp_path / f"{dtype}", options=ImportOptions(dtype=dtype)
            )
        assert watch.above("RssAnon") < largest // 2, dtype
        file = out / "text_encoder/model.safetensors"
        assert file.stat().st_size > largest and file.stat().st_blocks * 512 < total // 10
    with benchmark.Watch() as watch:
        module = load_component(tmp_path / "None", "text_encoder")
    destination = sum(p.nbytes for p in module.parameters())
    assert destination > largest
    assert watch.above("RssAnon") - destination < largest // 2


def test_benchmark_runs_in_a_process_of_its_own(shallow: Path, tmp_path: Path) -> None:
    memory = benchmark.measure_import(shallow, tmp_path / "ours")
    assert memory.written == inspect_checkpoint(shallow).bytes
    assert 0 < memory.above < memory.bound and memory.destination == 0
    assert benchmark.widths_for(46.0) == FULL and benchmark.widths_for(1.0).layers == 1


# --- headers that nobody should trust ---


@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.integers(0, 40))
def test_damaged_headers_are_one_line_or_read_alike(
    at: int, byte: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One byte changed and the end cut off: a UserError, or a header that still describes the file."""
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "model.safetensors"
    write_release(folder, {"a": torch.ones(2, 3), "b": torch.zeros((), dtype=torch.bfloat16)})
    data = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[at % header] = byte
    path.write_bytes(data[: len(data) - cut])
    try:
        weights = Weights.open(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert cut == 0
        assert sum(weights.tensor(name).nbytes for name in weights) == 26


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
