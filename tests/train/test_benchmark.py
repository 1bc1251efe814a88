"""The benchmark of a training step, in its shortest form."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dreamzero.model import presets
from dreamzero.model.attention import TeacherForcing
from dreamzero.train import benchmark


@pytest.fixture
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        presets.PRESETS, "tiny", presets.PRESETS["tiny"] | {"dim": 96, "num_layers": 1}
    )


def test_bench_train(smaller: None, cli: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = cli("bench", "train", "--repeats", "1", "--device", "cpu", "--json")
    assert status == 0
    record: dict[str, Any] = json.loads(out)
    found = {name: metric["value"] for name, metric in record["metrics"].items()}
    assert found["attention_error"] < 2e-2 and record["notes"]["agrees"]
    assert found["attention_useful_blocks"] == 1.0 and found["attention_useful_mask"] < 0.5
    ratio = found["attention_mask"] / found["attention_blocks"]
    assert found["attention_mask_over_blocks"] == pytest.approx(ratio)
    assert record["notes"]["tokens"]["long"] > 3000 > record["notes"]["tokens"]["attention"]
    assert found["full_memory"] <= found["selective_memory"] < found["none_memory"] == 1.0
    assert found["tokens_per_s"] > 0 and found["mfu"] > 0 and found["none_time"] == 1.0


def test_attentions_that_disagree_are_told(
    smaller: None, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., tuple[int, str, str]]
) -> None:
    whole = torch.ones_like
    monkeypatch.setattr(benchmark, "dense_mask", lambda layout, device: whole(real(layout, device)))
    status, out, _ = cli("bench", "train", "--repeats", "1", "--device", "cpu")
    assert status == 1 and "attention_error" in out


def real(layout: TeacherForcing, device: torch.device) -> torch.Tensor:
    from dreamzero.model.attention import dense_mask

    return dense_mask(layout, device)


def test_calls_take_turns() -> None:
    seen: list[str] = []
    calls = {name: lambda name=name: seen.append(name) for name in "ab"}
    found = benchmark.interleaved(calls, 3, torch.device("cpu"))
    assert seen == ["a", "b"] * 4
    assert found["a"].n == 3 and found["a"].low <= found["a"].ms <= found["a"].high
