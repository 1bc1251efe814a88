"""Import, forward, inspect and export of the public layout."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamzero.errors import UserError
from dreamzero.model.bundle import DreamZeroTransformer
from dreamzero.model.checkpoints import benchmark, robots
from dreamzero.model.checkpoints.exporter import export_checkpoint
from dreamzero.model.checkpoints.importer import import_checkpoint
from dreamzero.model.checkpoints.layouts import CODERS, open_layout
from dreamzero.model.checkpoints.loading import load_component
from dreamzero.model.checkpoints.miniature import (
    FULL,
    Widths,
    release_shapes,
    write_release,
)
from dreamzero.model.checkpoints.names import PREFIXES, convert
from dreamzero.model.checkpoints.plan import ImportOptions
from dreamzero.model.checkpoints.shards import PickledWeights, Weights
from dreamzero.model.checkpoints.summary import inspect_checkpoint

from .samples import change_json, same_bytes, tensors

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


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_pages_are_given_back(kind: str, tmp_path: Path) -> None:
    """Sixteen tensors of 4 MB are read one after the other and never stay mapped together."""
    ones = {f"t{i}": torch.ones(1 << 20) for i in range(16)}
    if kind == "pth":
        torch.save(ones, tmp_path / "t.pth")
        weights: Weights = PickledWeights(tmp_path / "t.pth")
    else:
        write_release(tmp_path, ones)
        weights = Weights.open(tmp_path / "model.safetensors")
    del ones
    with benchmark.Watch() as watch:
        for name in weights:
            assert float(weights.tensor(name).sum()) == 1 << 20
            weights.release(name)
            assert float(weights.tensor(name)[-1]) == 1.0  # it can be read again
    assert watch.above("RssFile") < 24 << 20


def test_benchmark_runs_in_a_process_of_its_own(shallow: Path, tmp_path: Path) -> None:
    memory = benchmark.measure_import(shallow, tmp_path / "ours")
    assert memory.written == inspect_checkpoint(shallow).bytes
    assert 0 < memory.above < memory.bound and memory.destination == 0
    assert benchmark.widths_for(46.0) == FULL and benchmark.widths_for(1.0).layers == 1
