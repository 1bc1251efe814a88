"""``dreamzero bench engine``: a large model's path at toy width, refusals, and what it must not claim."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from dreamzero.cli import main
from dreamzero.errors import UserError
from dreamzero.flow import SamplerConfig
from dreamzero.inference import Engine, EngineConfig, WorldActionPolicy, benchmark, synthetic
from dreamzero.inference.benchmark import Bench, Report
from dreamzero.inference.ceilings import Ceilings, Work
from dreamzero.model.bundle import WorldActionModel

QUICK = ("--steps", "2", "--chunks", "2", "--repeats", "1")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small operands for the ceilings, and nothing compiled: this is about what is reported."""
    monkeypatch.setattr(Ceilings, "measure", lambda *_: Ceilings(1e11, 1e10))
    monkeypatch.setattr(torch, "compile", lambda call, **_: call)


def test_everything_at_toy_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What fills the table on a GPU runs here: first frame, features, VAE, all variants."""
    assert main(["bench", "engine", "--preset", synthetic.TOY, "--all", *QUICK, "--json",
                 "--out", str(tmp_path)]) == 0  # fmt: skip
    record = json.loads(capsys.readouterr().out)
    (path,) = tmp_path.glob("*_toy_i2v.json")
    assert json.loads(path.read_text())["notes"] == record["notes"]
    assert {"commit", "dirty"} <= set(record["git"]) and "torch" in record["versions"]
    report = record["notes"]["report"]
    assert not report["disagreements"] and not report["unmeasured"]
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in report["rows"]:
        rows.setdefault((row["what"], row["path"]), []).append(row)
    for what, path in (("chunk", "reference"), ("chunk", "kept"), ("chunk", "engine"),
                       ("canvas", "engine"), ("encode", "engine"), ("KV write", "engine"),
                       ("scheduler", "engine"), ("decode", "engine")):  # fmt: skip
        assert [row["cached_frames"] for row in rows[what, path]] == [1, 3, 5, 7]
    (compiled,) = rows["evaluation", "compiled"]
    assert compiled["cached_frames"] == 7
    assert report["errors"]["compiled"] < 1e-5
    (fp8,) = rows["evaluation", "fp8"]
    assert fp8["cached_frames"] == 7 and fp8["tier"] == "numeric"
    (guided,) = rows["whole chunk", "guided chunk, step cache"]
    held = [guided[k] for k in ("evaluations", "branches", "kv_writes", "tier")]
    assert held == [4, 2, 1, "approximate"]
    (flash,) = rows["whole chunk", "flash chunk"]
    assert [flash[k] for k in ("evaluations", "branches")] == [1, 1]
    assert 1e-4 < report["errors"]["fp8 video"] < 0.2
    assert record["metrics"]["speedup_over_reference"]["value"] > 0


def test_bench_alone_prints_the_table_of_the_shipped_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``make bench``: no argument is needed."""
    torch.set_num_threads(2)
    assert main(["bench", "engine", *QUICK]) == 0
    assert torch.get_num_threads() == 1, "beside other programs a second thread costs minutes"
    out = capsys.readouterr().out
    assert out.startswith("tiny_so101 on cpu")
    for wanted in ("measured ceilings", "chunks/s (2 evaluations, 1 branch, 1 KV write; exact)",
                   "times as long as the engine", "not measured"):  # fmt: skip
        assert wanted in out


def test_a_disagreement_forbids_speedups(
    model: WorldActionModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(synthetic, "random_model", lambda *_: model)
    evaluate = Engine(model.transformer).network.evaluate.__func__

    def wrong(*given: Any, **options: Any) -> Any:
        video, action = evaluate(*given, **options)
        return video * 1.01, action

    monkeypatch.setattr("dreamzero.inference.network.Network.evaluate", wrong)
    assert main(["bench", "engine", "--preset", "tiny", *QUICK]) == 1
    out = capsys.readouterr().out
    assert "no speed-up is claimed: engine differs from the reference by" in out
    assert "times as long" not in out
    assert "not measured: torch.compile" in out


def test_speedups_compare_the_same_position() -> None:
    report = Report()
    for path, times in (("reference", (30.0, 60.0)), ("engine", (10.0, 15.0))):
        for frames, ms in zip((1, 3), times, strict=True):
            report.rows.append(benchmark.Row("chunk", path, frames, ms, ms, ms, 1, "exact"))
    assert report.speedups("chunk") == {"reference": [3.6, 3.0, 4.0]}
    report.disagreements.append("engine differs")
    assert report.speedups("chunk") == {}


def test_work_of_a_forward(model: WorldActionModel) -> None:
    """Against the count by hand for the tiny model behind one frame."""
    bench = Bench(WorldActionPolicy(model), repeats=1)
    session = bench.policy.session
    with torch.inference_mode():
        bench.policy.reset("push the red block")
        at = bench.engine.network.layout(1, 2, session.size, 8, 1)
        work = Work.of(bench.engine, session, at)
    tokens, text = 2 * 16 + 8 + 1, session.branches[0].text.shape[1]
    matrices = 6 * 192 * 192 + 2 * 192 * 512
    attention = 2 * 192 * (16 + tokens + text)
    assert work.flops == 6 * tokens * 2 * (matrices + attention)
    assert work.bytes == 4 * 6 * (matrices + 2 * 192 * (16 + tokens + text))
    matmul, bandwidth = Ceilings(flops=work.flops, bytes=work.bytes * 2).percent(work, 1.0)
    assert (matmul, bandwidth) == (100.0, 50.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--preset", "huge"), "unknown preset 'huge'; known: micro, tiny"),
        (("--preset", "wan2.1-14b-droid"), "61 GiB of weights"),
        (("--repeats", "0"), "must be at least 1"),
        (("--threads", "0"), "must be at least 1"),
        (("--device", "cuda"), "no CUDA GPU"),
    ],
)
def test_mistakes_are_one_line(
    given: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**34))
    assert main(["bench", "engine", *given]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("kernels", ["off", "on"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
@torch.inference_mode()
def test_the_large_preset_without_memory(kernels: Any, guidance: float) -> None:
    """14B in shapes alone: a whole window, every forward at its real size."""
    model = synthetic.random_model("wan2.1-14b-droid", "meta", torch.bfloat16)
    size, sampler = model.latent_size(), SamplerConfig(steps=1, guidance=guidance)
    assert model.card().canvas_px == (352, 640)
    assert size == (44, 80)
    assert {p.dtype for p in model.transformer.parameters()} == {torch.bfloat16}
    engine = Engine(model.transformer, EngineConfig(kernels=kernels, memory_gib=20))
    session = engine.open(size, sampler)
    kept = session.cache.buffer.nbytes
    assert kept == sampler.branches * 40 * 2 * (9 * 880 + 25) * 5120 * 2
    assert kept < session.bytes < 1.2 * kept

    def some(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    session.reset([some(1, 512, 4096)] * sampler.branches)
    session.begin(some(1, 257, 1280), some(1, 20, 9, *size))
    session.write(some(1, 16, 1, *size))
    for block in range(4):
        chunk = session.chunk(some(1, 1, 64))
        given = chunk.inputs(some(1, 16, 2, *size), some(1, 24, 32), 999, 999)
        video, action = session.evaluate(given, sampler.branches)
        assert video.shape == (sampler.branches, 16, 2, *size)
        assert action.shape == (1, 24, 32)
        assert session.cache.length == (1 + 2 * block) * 880
        session.write(some(1, 16, 2, *size))
    with pytest.raises(UserError, match="close one, switch guidance off"):
        engine.open(size, SamplerConfig(steps=1, guidance=5.0))
        engine.open(size, SamplerConfig(steps=1, guidance=5.0))
