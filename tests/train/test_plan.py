"""The plan of a training agrees with what others measured, and its formula with bytes counted here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamzero.errors import UserError
from dreamzero.model import attention, blocks
from dreamzero.model.presets import preset
from dreamzero.model.transformer import DreamZeroTransformer
from dreamzero.train.config import Source, TrainSettings
from dreamzero.train.flops import layout_of
from dreamzero.train.plan import activations, count, plan
from dreamzero.train.recompute import LiveBytes, set_recompute
from dreamzero.train.stacks import GPUS, PUBLISHED, Published, Stack

ONE_EACH = TrainSettings(
    optimizer="adamw", full=Source(batch=8), first=Source(blocks=1, batch=0), sharding="full",
    recompute="full", steps=100_000,
)  # fmt: skip


@pytest.mark.parametrize("point", PUBLISHED, ids=lambda p: p.source)
def test_within_a_fifth_of_what_was_published(point: Published) -> None:
    found = plan(
        point.preset, point.settings, point.gpu, 8, stack=point.stack,
        utilisation=point.utilisation,
    )  # fmt: skip
    assert point.seconds or point.gb
    if point.seconds:
        assert found.step_s == pytest.approx(point.seconds, rel=0.2)
    if point.gb:
        assert found.total_gb == pytest.approx(point.gb, rel=0.2)


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention as GPUs run it; on CPUs the model writes its products out."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("ffn", [512, 1024])
def test_activations_are_those_that_live(
    monkeypatch: pytest.MonkeyPatch, recompute: str, ffn: int
) -> None:
    """Bytes that wait for the backward pass, by blocks: the difference of 4 and 2 of them."""
    monkeypatch.setattr(attention, "attend", fused)
    monkeypatch.setattr(blocks, "attend", fused)
    held, n = [], 3
    for layers in (2, 4):
        torch.manual_seed(0)
        config: dict[str, Any] = preset("tiny") | {
            "dim": 192, "ffn_dim": ffn, "num_layers": layers, "num_heads": 3,
            "position_grid": None, "image_dim": 16,
        }  # fmt: skip
        transformer = DreamZeroTransformer(**config)
        set_recompute(transformer.blocks, recompute)
        with LiveBytes() as live:
            with torch.autocast("cpu", torch.bfloat16):
                context = transformer.embed_context(torch.randn(1, 4, 128), torch.randn(1, 4, 16))
                out = transformer(
                    torch.randn(1, 24, 2 * n, 12, 12), torch.randn(1, 24, 1 + 2 * n, 12, 12),
                    torch.full((1, 2 * n), 500.0), context, torch.randn(1, 8 * n, 8),
                    torch.full((1, 8 * n), 500.0), torch.randn(1, n, 8),
                )  # fmt: skip
            held.append(live.now)
        del out
    layout = layout_of(config, (12, 12), n)
    seen = sum(layout.past(i).stop + layout.block + 9 for i in range(n))
    seen += sum(layout.clean(i).stop for i in range(-1, layout.clean_blocks))
    a_block = activations(config | {"num_layers": 1}, layout.length, seen, recompute)[0]
    if recompute == "none":  # autocast's copies of a block's matrices, which the plan lists apart
        a_block += 2 * sum(p.numel() for p in transformer.blocks[0].parameters() if p.ndim == 2)
    assert (held[1] - held[0]) / 2 == pytest.approx(a_block, rel=0.1)


def test_parameters_are_counted_without_making_any() -> None:
    whole = count("wan2.1-14b-droid")
    assert whole.all == whole.trained == 16_484_292_448
    assert count("wan2.1-14b-droid", "lora").trained == 19_169_280 + 89_413_664
    assert count("wan2.1-14b-droid", "coders").trained == 89_413_664


def test_what_makes_a_training_fit() -> None:
    def gb(gpus: int = 8, **changes: Any) -> float:
        return plan("wan2.1-14b-droid", replace(ONE_EACH, **changes), gpus=gpus).total_gb

    assert gb() < 80 < gb(recompute="selective") < gb(recompute="none")
    assert gb() < gb(recompute="full", recompute_every=2)
    assert 4 * gb() < gb(sharding="none")
    assert gb(full=Source(batch=32), accumulate=4) == pytest.approx(gb(), rel=1e-6)
    assert gb(full=Source(batch=16)) > gb() > gb(gpus=8, trained="lora")
    assert gb(gpus=16, full=Source(batch=16)) < gb()
    assert gb(optimizer="muon") < gb()


def test_time_follows_the_work() -> None:
    base = plan("wan2.1-14b-droid", ONE_EACH)
    assert base.days == pytest.approx(100_000 * base.step_s / 86400)
    assert base.useful_attention < 0.5 and base.fits
    plain = plan("wan2.1-14b-droid", replace(ONE_EACH, recompute="none"))
    assert base.pflop_a_step == pytest.approx(plain.pflop_a_step * 4 / 3, rel=0.01)
    twice = plan("wan2.1-14b-droid", replace(ONE_EACH, full=Source(batch=16)))
    assert twice.seconds["arithmetic"] == pytest.approx(2 * base.seconds["arithmetic"])
    assert plan("wan2.1-14b-droid", ONE_EACH, utilisation=0.42).step_s < base.step_s
    far = plan("wan2.1-14b-droid", replace(ONE_EACH, full=Source(batch=16)), gpus=16)
    assert far.seconds["communication"] > 5 * base.seconds["communication"]
    small = plan("wan2.1-14b-droid", ONE_EACH, canvas_px=(176, 320))
    assert small.tokens_a_window < base.tokens_a_window / 3


def test_every_gpu_and_preset_can_be_planned() -> None:
    for gpu in GPUS:
        assert plan("wan2.2-5b", ONE_EACH, gpu).step_s > 0
    for name in ("tiny", "small", "wan2.1-1.3b"):
        assert plan(name, ONE_EACH, stack=Stack(encoders=True)).total_gb > 2


def test_what_cannot_be_planned() -> None:
    with pytest.raises(UserError, match="--gpu H3000: known are A100"):
        plan("tiny", ONE_EACH, "H3000")
    with pytest.raises(UserError, match="batch of 8 cannot be cut into 16 pieces .16 GPUs"):
        plan("tiny", ONE_EACH, gpus=16)
    with pytest.raises(UserError, match="unknown preset"):
        plan("huge", ONE_EACH)


def test_the_command(cli: Callable[..., tuple[int, str, str]]) -> None:
    options = ["--set", "train.full.batch=8", "--set", "train.first.batch=0", "--gpu", "H200"]
    status, out, _ = cli("train", "--plan", "--preset", "wan2.1-14b-droid", *options)
    assert status == 0 and "of 141: does not fit" in out and "to make it fit: train.shard" in out
    more = ["--set", "train.sharding=full", "--set", "train.recompute=full", "--json"]
    status, out, _ = cli("train", "--plan", "--preset", "wan2.1-14b-droid", *options, *more)
    found = json.loads(out)
    assert status == 0 and found["fits"] and found["gpus"] == 8
    assert found["total_gb"] == pytest.approx(sum(found["memory_gb"].values()))
    status, _, error = cli("train", "--plan", "--card", "nowhere")
    assert status == 2 and "unknown embodiment" in error
