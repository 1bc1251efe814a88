"""Activation checkpointing: the same gradients from fewer bytes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dreamzero.model.presets import preset
from dreamzero.model.transformer import DreamZeroTransformer
from dreamzero.train.recompute import LiveBytes, set_recompute


def test_bytes_that_live() -> None:
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100)
        assert live.now == 4000
        c = b + 1
        assert live.now == live.peak == 8000
        c.add_(1)
        del a, b
        assert live.now == 4000
    assert live.peak == 8000 and c.sum() == 2000


@pytest.fixture(scope="module")
def transformer() -> DreamZeroTransformer:
    torch.manual_seed(0)
    small = {"dim": 48, "ffn_dim": 128, "num_layers": 4, "num_heads": 2, "position_grid": (2, 2)}
    return DreamZeroTransformer(**preset("tiny") | small)


def gradients(
    transformer: DreamZeroTransformer, how: str, every: int = 1
) -> tuple[Tensor, int, int]:
    """All gradients in a row, bytes held between the passes, and at most."""
    set_recompute(transformer.blocks, how, every)
    transformer.zero_grad()
    g = torch.Generator().manual_seed(1)
    sizes = [(2, 24, 8, 4, 4), (2, 24, 9, 4, 4), (2, 12, 128), (2, 32, 8), (2, 4, 8)]
    noisy, clean, text, action, state = (torch.randn(s, generator=g) for s in sizes)
    with LiveBytes() as live:
        context = transformer.embed_context(text)
        times = torch.full((2, 8), 500.0), torch.full((2, 32), 500.0)
        video, actions = transformer(noisy, clean, times[0], context, action, times[1], state)
        loss = video.square().mean() + actions.square().mean()
        held = live.now
        loss.backward()
    found = torch.cat([p.grad.flatten() for p in transformer.parameters() if p.grad is not None])
    return found, held, live.peak


def test_less_memory_and_the_same_gradients(transformer: DreamZeroTransformer) -> None:
    wanted, plain, most = gradients(transformer, "none")
    bars = {("selective", 1): 0.45, ("full", 1): 0.15, ("full", 2): 0.65}
    for (how, every), bar in bars.items():
        found, held, peak = gradients(transformer, how, every)
        assert torch.equal(found, wanted), how
        assert held < bar * plain and peak < most, (how, every, held / plain)


def test_selective_computes_no_product_twice(transformer: DreamZeroTransformer) -> None:
    """The forward pass again takes norms and gates, not matrices."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = {}
    for how in ("none", "selective", "full"):
        with FlopCounterMode(display=False) as counter:
            gradients(transformer, how)
        counts[how] = {str(k): v for k, v in counter.get_flop_counts()["Global"].items()}
    assert counts["selective"]["aten.addmm"] == counts["none"]["aten.addmm"]
    assert counts["full"]["aten.addmm"] > 1.5 * counts["none"]["aten.addmm"]


def test_blocks_that_are_not_trained_run_plainly(transformer: DreamZeroTransformer) -> None:
    set_recompute(transformer.blocks, "full", 2)
    flags = [block.gradient_checkpointing for block in transformer.blocks]
    assert flags == [True, False, True, False]
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    block: nn.Module = transformer.blocks[0]
    block._gradient_checkpointing_func = count  # type: ignore[assignment]
    with torch.no_grad():
        transformer(
            torch.zeros(1, 24, 2, 4, 4), torch.zeros(1, 24, 3, 4, 4), torch.zeros(1, 2),
            transformer.embed_context(torch.zeros(1, 3, 128)),
        )  # fmt: skip
    assert calls == 0
