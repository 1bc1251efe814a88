"""Names of the release and ours: each of 2146 has its place, and comes back bit for bit.

The list of names is looked for in the folder that ``DREAMZERO_FACTS`` names.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dreamzero.errors import UserError
from dreamzero.model.checkpoints import names
from dreamzero.model.checkpoints.configs import empty_module
from dreamzero.model.checkpoints.rules import RULES
from dreamzero.model.presets import ENCODERS, WAN22_VAE, preset

FACTS = Path(
    os.environ.get(
        "DREAMZERO_FACTS", Path(__file__).resolve().parents[3] / "shared" / "checkpoint_facts"
    )
)
LIST = FACTS / "state_dict_keys_derived.json"
needs_list = pytest.mark.skipif(not LIST.is_file(), reason=f"no list of the release at {LIST}")
IMAGE = names.PREFIXES["image_encoder"]
EXTRA = {IMAGE + "visual.head", IMAGE + "log_scale"}


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    listed = json.loads(LIST.read_text())["shapes"]
    return {name: tuple(shape) for name, shape in listed.items()}


@pytest.fixture(scope="module")
def modules() -> dict[str, nn.Module]:
    configs = {"transformer": preset("wan2.1-14b-droid"), **ENCODERS["wan2.1-14b-droid"]}
    return {component: empty_module(component, config) for component, config in configs.items()}


@needs_list
def test_every_name_of_the_release_is_one_place_here(
    shapes: dict[str, tuple[int, ...]], modules: dict[str, nn.Module]
) -> None:
    ours = {
        (component, name): tuple(parameter.shape)
        for component, module in modules.items()
        for name, parameter in module.named_parameters()
    }
    assert len(shapes) == 2146
    extra, split = set(), Counter[str]()
    for release, shape in shapes.items():
        parts = names.pieces(release)
        split[f"{names.split(release)[0]} {len(parts)}"] += 1
        for piece in parts:
            assert names.to_release(piece.component, piece.name) == release
            if piece.component == names.EXTRA:
                extra.add(piece.name)
            else:
                # pop: no two tensors of the release claim one parameter of ours.
                assert ours.pop((piece.component, piece.name)) == piece.shape(shape)
        if len(parts) == 1:
            assert names.to_ours(release) == (parts[0].component, parts[0].name)
        taken = [piece.take(torch.empty(shape, device="meta")) for piece in parts]
        assert tuple(names.join(parts, taken).shape) == shape
    assert not ours
    assert extra == EXTRA
    assert split == {
        "transformer 1": 1317,
        "text_encoder 1": 242,
        "image_encoder 1": 393 - 64,
        "image_encoder 3": 64,  # joint query-key-value weight and bias of 32 layers
        "vae 1": 194,
    }


def test_every_parameter_of_wan22s_codec_has_a_name() -> None:
    module = empty_module("vae", WAN22_VAE)
    ours = [name for name, _ in module.named_parameters()]
    release = [names.to_release("vae", name, names.vae_version(ours)) for name in ours]
    assert names.vae_version(ours) == names.vae_version(release) == "2.2"
    assert len(set(release)) == len(ours) == 196
    assert [names.to_ours(name) for name in release] == [("vae", name) for name in ours]


def test_rules_do_not_overlap() -> None:
    values = {"n": "3", "p": "bias", "qk": "k", "kv": "v", "qkv": "q", "qkvo": "o"}
    for component, rules in RULES.items():
        filled = [rule.release.format(**values) for rule in rules]
        assert len(set(filled)) == len(filled)
        for name in filled:
            assert names.split(names.PREFIXES[component] + name) == (component, name)
            matching = [r for p, r, _ in names._compiled(component) if p.fullmatch(name)]
            # The flat and the grouped lists of video codecs are told apart by the rest of the name.
            assert len(matching) == 1, name


CASES = {
    "transformer": ("blocks.3.self_attn.q.weight", "head.modulation", "action_encoder.W2.W"),
    "text_encoder": ("token_embedding.weight", "blocks.1.ffn.gate.0.weight"),
    "image_encoder": (
        "visual.cls_embedding",
        "visual.pos_embedding",
        "visual.transformer.0.attn.to_qkv.weight",
        "visual.transformer.0.attn.to_qkv.bias",
        "log_scale",
    ),
    "vae": ("encoder.downsamples.5.time_conv.weight", "decoder.upsamples.7.resample.1.bias"),
}


def shape_of(name: str, width: int, rows: int) -> tuple[int, ...]:
    return {
        "log_scale": (),
        "visual.cls_embedding": (1, 1, width),
        "visual.pos_embedding": (1, rows, width),
        "visual.transformer.0.attn.to_qkv.weight": (3 * rows, width),
        "visual.transformer.0.attn.to_qkv.bias": (3 * rows,),
    }.get(name, (rows, width))


@given(
    st.sampled_from([(c, n) for c, found in CASES.items() for n in found]),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    st.integers(0, 2**31),
)
def test_round_trip_is_bit_exact(
    name: tuple[str, str], width: int, rows: int, dtype: torch.dtype, seed: int
) -> None:
    """Any bit pattern, not-a-number included; and without a copy on the way out."""
    whole = names.PREFIXES[name[0]] + name[1]
    shape = shape_of(name[1], width, rows)
    generator = torch.Generator().manual_seed(seed)
    size = (*shape, dtype.itemsize) if shape else (dtype.itemsize,)
    raw = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    tensor = raw.view(dtype).reshape(shape)
    parts = names.pieces(whole)
    taken = [piece.take(tensor) for piece in parts]
    storage = tensor.untyped_storage().data_ptr()
    assert all(part.untyped_storage().data_ptr() == storage for part in taken)
    assert [tuple(t.shape) for t in taken] == [piece.shape(shape) for piece in parts]
    back = names.join(parts, taken)
    assert back.dtype == dtype
    assert back.shape == tensor.shape
    assert torch.equal(back.contiguous().view(-1).view(torch.uint8), raw.view(-1))


def test_whole_components_convert_and_revert() -> None:
    for component, found in CASES.items():
        release = {n: torch.randn(shape_of(n, 4, 2)) for n in found}
        ours = names.convert(component, release)
        back = names.revert(component, ours)
        assert back.keys() == {n for n in found if IMAGE + n not in EXTRA}
        assert all(torch.equal(release[n], tensor) for n, tensor in back.items())


def test_query_key_value_order() -> None:
    joint = torch.arange(6.0).unsqueeze(1)
    ours = names.convert("image_encoder", {"visual.transformer.2.attn.to_qkv.weight": joint})
    layer = "encoder.layers.2.self_attn."
    assert {n.removeprefix(layer): t.flatten().tolist() for n, t in ours.items()} == {
        "q_proj.weight": [0, 1],
        "k_proj.weight": [2, 3],
        "v_proj.weight": [4, 5],
    }


def test_names_as_other_versions_wrote_them() -> None:
    old = "vision_model.encoder.layers.0.mlp.fc1.bias"
    assert names.to_release("image_encoder", old) == f"{IMAGE}visual.transformer.0.mlp.0.bias"
    token = names.PREFIXES["text_encoder"] + "token_embedding.weight"
    assert names.to_release("text_encoder", "encoder.embed_tokens.weight") == token
    assert names.to_release(names.EXTRA, f"{IMAGE}log_scale") == f"{IMAGE}log_scale"


def test_clips_text_tower_is_not_read() -> None:
    assert names.unused("textual.token_embedding.weight")
    assert names.unused(IMAGE + "textual.head.0.weight")
    assert not names.unused(IMAGE + "visual.head")
    assert not names.convert("image_encoder", {"textual.norm.weight": torch.zeros(2)})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model.blocks.0.self_attn.q.weight", "has no prefix of the release"),
        ("action_head.model.blocks.0.self_attn.q.scale", "no tensor of the release's transformer"),
        ("action_head.model.xblocks.0.modulation", "no tensor of the release's transformer"),
        ("action_head.vae.model.decoder.upsamples.15.resample.1.bias", "no tensor"),
        (IMAGE + "visual.transformer.0.attn.to_qkv.bias", "is several tensors here"),
    ],
)
def test_unknown_release_names(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        names.to_ours(name)


def test_tensors_of_the_wrong_form() -> None:
    q = names.pieces(IMAGE + "visual.transformer.0.attn.to_qkv.weight")[0]
    with pytest.raises(UserError, match="7 rows, which are not 3 equal parts"):
        q.take(torch.zeros(7, 2))
    token = names.pieces(IMAGE + "visual.cls_embedding")[0]
    with pytest.raises(UserError, match="first 2 axes should have length 1"):
        token.shape((2, 1, 4))


def test_incomplete_or_foreign_weights_of_ours() -> None:
    weight: dict[str, Tensor] = {"encoder.layers.0.self_attn.k_proj.weight": torch.zeros(2, 2)}
    with pytest.raises(UserError, match=r"lacks encoder\.layers\.0\.self_attn\.q_proj\.weight"):
        names.revert("image_encoder", weight)
    with pytest.raises(UserError, match="nothing for 'positions.rows'"):
        names.to_release("transformer", "positions.rows")
    with pytest.raises(UserError, match="no component 'audio'"):
        names.to_release("audio", "x")
