"""Adapters of the release: imported for one base, applied and merged there, refused elsewhere."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamzero.errors import UserError
from dreamzero.model.checkpoints import lora, robots
from dreamzero.model.checkpoints.exporter import export_checkpoint
from dreamzero.model.checkpoints.fingerprint import fingerprint
from dreamzero.model.checkpoints.importer import import_checkpoint
from dreamzero.model.checkpoints.layouts import CODERS
from dreamzero.model.checkpoints.loading import load_component
from dreamzero.model.checkpoints.lora import load_adapter, merge_lora
from dreamzero.model.checkpoints.miniature import (
    FULL,
    Widths,
    lora_shapes,
    random_tensors,
    release_shapes,
    write_miniature,
    write_release,
    write_text_files,
)
from dreamzero.model.checkpoints.peft_names import MERGED, AdapterName, adapter_name
from dreamzero.model.checkpoints.plan import ImportOptions
from dreamzero.model.checkpoints.shards import Weights, open_indexed
from dreamzero.model.checkpoints.summary import inspect_checkpoint

SHALLOW = Widths(layers=2, text_layers=2, image_layers=4)
RANK = 4
SHAPES = lora_shapes(SHALLOW, RANK)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DROID and LoRA saves in the public layout; base and adapter, imported."""
    root = tmp_path_factory.mktemp("lora")
    write_miniature(root / "droid", SHALLOW)
    write_miniature(root / "save", SHALLOW, seed=1, rank=RANK)
    import_checkpoint(root / "droid", root / "base")
    import_checkpoint(root / "save", root / "adapter", base=root / "base")
    return root


@pytest.fixture
def save(folder: Path, tmp_path: Path) -> Path:
    """A LoRA save to break."""
    return Path(shutil.copytree(folder / "save", tmp_path / "in" / "save"))


def transformer(folder: Path) -> dict[str, Tensor]:
    weights = open_indexed(folder / "transformer", "diffusion_pytorch_model")
    assert weights is not None
    return {name: weights.tensor(name).clone() for name in weights}


def rewrite(save: Path, **changes: Tensor | None) -> None:
    """Replace or remove (None) tensors whose names end so."""
    weights = Weights.open(save / "model.safetensors")
    tensors = {name: weights.tensor(name).clone() for name in weights}
    for end, value in changes.items():
        (name,) = [n for n in tensors if n.endswith(end.replace("__", "."))]
        del tensors[name]
        if value is not None:
            tensors[name] = value
    write_release(save, tensors)


def test_the_published_counts() -> None:
    shapes = lora_shapes(FULL)
    numbers = {n: torch.Size(s).numel() for n, s in shapes.items()}
    low_rank = [n for n in shapes if ".lora_" in n]
    assert (len(shapes), sum("lora_B" in n for n in shapes)) == (814, 400)
    assert sum(numbers[n] for n in low_rank) == 19_169_280
    assert sum(numbers.values()) - 19_169_280 == 89_413_664


@pytest.mark.parametrize(
    "prefix",
    [
        "action_head.model.base_model.model.",
        "base_model.model.action_head.model.",
        "base_model.model.",
        "action_head.model.",
    ],
)
def test_names_however_the_model_was_wrapped(prefix: str) -> None:
    for rest, ours, side in (
        ("blocks.3.ffn.0.lora_A.default.weight", "blocks.3.ffn.net.0.proj.weight", "A"),
        ("blocks.3.cross_attn.o.lora_B.weight", "blocks.3.attn2.to_out.0.weight", "B"),
        ("action_encoder.W2.b", "action_encoder.W2.bias", ""),
        ("state_encoder.modules_to_save.default.layer1.W", "state_encoder.layer1.weight", ""),
    ):
        assert adapter_name(prefix + rest) == AdapterName(ours, side)
    with pytest.raises(UserError, match="no tensor of the release"):
        adapter_name(prefix + "blocks.3.unknown.lora_A.weight")


def test_merging_adds_the_product(folder: Path, tmp_path: Path) -> None:
    merged = merge_lora(folder / "base", folder / "adapter", tmp_path / "merged")
    before, after = transformer(folder / "base"), transformer(merged)
    saved = random_tensors(SHAPES, 1)
    assert before.keys() == after.keys()
    changed = 0
    for name, tensor in after.items():
        if name.startswith(CODERS):
            release = name.replace(".weight", ".W").replace(".bias", ".b")
            assert torch.equal(tensor, saved[f"action_head.model.base_model.model.{release}"])
            continue
        changed += not torch.equal(tensor, before[name])
    assert changed == SHALLOW.layers * 10
    pair = "action_head.model.base_model.model.blocks.1.ffn.2.lora_{}.default.weight"
    a, b = (saved[pair.format(side)].float() for side in "AB")
    name = "blocks.1.ffn.net.2.weight"
    assert torch.equal(after[name], (before[name].float() + b @ a).bfloat16())
    assert filecmp.cmp(merged / "vae/config.json", folder / "base/vae/config.json")
    notes = inspect_checkpoint(merged).notes
    assert "adapter adapter merged" in notes
    # Merged and given back: the base's shards, the changed bytes.
    back = export_checkpoint(merged, tmp_path / "back")
    assert back.same_shards
    again = import_checkpoint(back.path, tmp_path / "again")
    assert all(torch.equal(after[n], t) for n, t in transformer(again).items())


def test_alpha_scales_the_change(save: Path, folder: Path, tmp_path: Path) -> None:
    config = save / "config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 4', '"lora_alpha": 8'))
    adapter = import_checkpoint(save, tmp_path / "adapter", base=folder / "base")
    once, twice = (
        {n: t.clone() for n, t, _ in lora.deltas(lora.open_layout(a))}
        for a in (folder / "adapter", adapter)
    )
    name = "blocks.0.attn2.to_out.0.weight"
    assert torch.allclose(twice[name], 2 * once[name]) and float(once[name].std()) > 0


def test_loading_is_merging(folder: Path, tmp_path: Path) -> None:
    merged = transformer(merge_lora(folder / "base", folder / "adapter", tmp_path / "merged"))
    module = load_component(folder / "base", "transformer")
    load_adapter(module, folder / "adapter", folder / "base")
    assert all(torch.equal(t, merged[n]) for n, t in module.state_dict().items())


@pytest.mark.peer
def test_peft_reads_the_adapter(folder: Path, tmp_path: Path) -> None:
    """peft's own loading and merging gives the same network."""
    peft = pytest.importorskip("peft")
    merged = transformer(merge_lora(folder / "base", folder / "adapter", tmp_path / "merged"))
    module = load_component(folder / "base", "transformer", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(module, folder / "adapter").merge_and_unload()
    for name, tensor in theirs.state_dict().items():
        assert torch.allclose(tensor, merged[name].float(), rtol=1e-2, atol=1e-2), name


def test_an_adapter_goes_back_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    export_checkpoint(folder / "adapter", tmp_path / "back")
    for path in (folder / "save").rglob("*.*"):
        other = tmp_path / "back" / path.relative_to(folder / "save")
        assert path.is_dir() or filecmp.cmp(path, other, shallow=False)


def test_the_fingerprint(folder: Path) -> None:
    base = open_indexed(folder / "base/transformer", "diffusion_pytorch_model")
    assert base is not None
    known = json.loads((folder / "adapter/adapter.json").read_text())["base"]
    assert len(known["without"]) == 14 and known["name"] == "base"
    assert known["fingerprint"] == fingerprint(base, known["without"]) != fingerprint(base)
    assert (
        inspect_checkpoint(folder / "adapter")
        .notes[-1]
        .endswith(f"(fingerprint {known['fingerprint'][:12]})")
    )


def test_another_base_is_refused(folder: Path, tmp_path: Path) -> None:
    """The release runs such a mistake silently and is ten times worse (MODEL.md 7.1)."""
    write_miniature(tmp_path / "agibot", SHALLOW, seed=7)
    agibot = import_checkpoint(tmp_path / "agibot", tmp_path / "base")
    for name in ("merged", "module"):
        with pytest.raises(UserError, match="was made for another base") as caught:
            if name == "merged":
                merge_lora(agibot, folder / "adapter", tmp_path / "out" / name)
            else:
                module = load_component(agibot, "transformer")
                load_adapter(module, folder / "adapter", agibot)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_one_changed_weight_is_another_base_but_other_coders_are_not(
    folder: Path, tmp_path: Path
) -> None:
    for name, accepted in (("action_decoder.layer2.weight", True), ("proj_out.weight", False)):
        other = Path(shutil.copytree(folder / "base", tmp_path / name))
        tensors = transformer(other)
        tensors[name] = tensors[name] + 1
        path = other / "transformer"
        write_release(path, tensors)
        (path / "model.safetensors").rename(path / "diffusion_pytorch_model.safetensors")
        if accepted:
            merge_lora(other, folder / "adapter", tmp_path / "out" / name)
        else:
            with pytest.raises(UserError, match="another base"):
                merge_lora(other, folder / "adapter", tmp_path / "out" / name)
        assert (tmp_path / "out" / name).exists() == accepted


def test_full_and_adapter_are_not_mistaken(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "x"
    for call, says in (
        (lambda: import_checkpoint(folder / "save", out), "is a LoRA save: name the imported"),
        (
            lambda: import_checkpoint(folder / "droid", out, base=folder / "base"),
            "is a full checkpoint, not a LoRA save",
        ),
        (
            lambda: import_checkpoint(folder / "save", out, base=folder / "adapter"),
            "is an adapter: the base is the full checkpoint",
        ),
        (
            lambda: import_checkpoint(folder / "save", out, base=folder / "droid"),
            "is not imported yet",
        ),
        (
            lambda: merge_lora(folder / "base", folder / "base", out),
            "is a full checkpoint, not an adapter",
        ),
        (
            lambda: merge_lora(folder / "base", folder / "save", out),
            "is a LoRA save that is not imported yet",
        ),
        (
            lambda: merge_lora(folder / "adapter", folder / "adapter", out),
            "is an adapter: the base",
        ),
    ):
        with pytest.raises(UserError, match=says):
            call()
        assert not out.parent.exists()


def test_broken_saves(save: Path, folder: Path, tmp_path: Path) -> None:
    whole = (save / "model.safetensors").read_bytes()
    config = (save / "config.json").read_text()
    half = "blocks__0__self_attn__q__lora_A__default__weight"
    for changes, says in (
        ({half: None}, r"has no second half \(A and B\)"),
        ({half: torch.zeros(8, 24)}, r"rank 4 on .* asks for \[4, 24\]"),
        ({"state_encoder__layer1__W": torch.zeros(2, 64, 8)}, r"belongs to another base"),
    ):
        (save / "model.safetensors").write_bytes(whole)
        rewrite(save, **changes)
        with pytest.raises(UserError, match=says):
            import_checkpoint(save, tmp_path / "out" / "x", base=folder / "base")
    (save / "model.safetensors").write_bytes(whole)
    (save / "config.json").write_text(config.replace("lora_alpha", "alpha"))
    with pytest.raises(UserError, match="says neither lora_rank nor lora_alpha"):
        import_checkpoint(save, tmp_path / "out" / "x", base=folder / "base")
    assert not (tmp_path / "out").exists()


def test_options_of_the_base_are_refused(folder: Path, tmp_path: Path) -> None:
    for options in (ImportOptions(dtype="float32"), ImportOptions(tokenizer=folder)):
        with pytest.raises(UserError, match="belongs to its base"):
            import_checkpoint(
                folder / "save", tmp_path / "no", base=folder / "base", options=options
            )


def test_a_save_of_base_and_adapter_is_imported_merged(folder: Path, tmp_path: Path) -> None:
    """What a LoRA training writes without save_lora_only: 2946 names at full depth."""
    release, saved = random_tensors(release_shapes(SHALLOW), 0), random_tensors(SHAPES, 1)
    prefix = "action_head.model."
    wrapped = {}
    for name, tensor in release.items():
        new = name.replace(prefix, prefix + "base_model.model.")
        if new.removesuffix(".weight") + ".lora_A.default.weight" in saved:
            new = new.removesuffix("weight") + "base_layer.weight"
        wrapped[new] = tensor
    wrapped |= saved
    assert len(wrapped) == len(release) + 2 * 10 * SHALLOW.layers
    path = tmp_path / "full"
    path.mkdir()
    write_release(path, wrapped)
    write_text_files(path, SHALLOW, RANK)
    assert inspect_checkpoint(path).layout == "release"
    assert inspect_checkpoint(path).notes == [MERGED]
    out = import_checkpoint(path, tmp_path / "ours")
    merged = transformer(merge_lora(folder / "base", folder / "adapter", tmp_path / "merged"))
    assert all(torch.equal(t, merged[n]) for n, t in transformer(out).items())
    assert MERGED in inspect_checkpoint(out).notes
    assert not export_checkpoint(out, tmp_path / "back").same_shards
    half = prefix + "base_model.model.blocks.0.self_attn.q.lora_B.default.weight"
    for change, says in (
        ({}, "lacks its base or its other half"),
        ({half: torch.zeros(7, 4)}, "fit"),
    ):
        del wrapped[half]
        wrapped |= change
        write_release(path, wrapped)
        with pytest.raises(UserError, match=says):
            import_checkpoint(path, tmp_path / "no")
        wrapped.setdefault(half, torch.zeros(1))


def test_whose_robots(save: Path, folder: Path, tmp_path: Path) -> None:
    """Its own where the save brings them, also after merging; else the base's."""
    path = save / "experiment_cfg/metadata.json"
    path.write_text(path.read_text().replace("-0.5", "-0.75"))
    own = import_checkpoint(save, tmp_path / "own", base=folder / "base")
    merged = merge_lora(folder / "base", own, tmp_path / "merged")
    card = robots.load(merged / "embodiment.json")["oxe_droid"]
    assert card[1].action["joint_position"].q01[0] == -0.75
    assert "-0.75" in (merged / "release/experiment_cfg/metadata.json").read_text()
    shutil.rmtree(save / "experiment_cfg")
    bare = import_checkpoint(save, tmp_path / "bare", base=folder / "base")
    assert not (bare / "embodiment.json").exists()
    merged = merge_lora(folder / "base", bare, tmp_path / "merged2")
    assert filecmp.cmp(merged / "embodiment.json", folder / "base/embodiment.json", shallow=False)
    with pytest.raises(UserError, match="leave --embodiment out"):
        options = ImportOptions(tags=("oxe_droid",))
        import_checkpoint(save, tmp_path / "no", base=folder / "base", options=options)
