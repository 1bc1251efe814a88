"""``dreamzero bench kernels``: what it says on a CPU, and when it gives no speed-up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dreamzero_kernels import bench, common, tiles
from dreamzero_kernels.bench import Ceilings, Row, Timing
from dreamzero_kernels.problems import PROBLEMS, Maker, Problem

Cli = Callable[..., tuple[int, str, str]]


def timed(name: str = "fp8_linear_bias", **ms: float) -> Row:
    row = Row(name, "1x2")
    row.timings = {backend: Timing(value, value, value, 10) for backend, value in ms.items()}
    return row


def test_cpu_run(cli: Cli, tmp_path: Path) -> None:
    status, out, _ = cli(
        "bench", "kernels", "--device", "cpu", "--no-compile", "--ops",
        "rms_norm,cached_attention_int", "--out", tmp_path, "--json",
    )  # fmt: skip
    assert status == 0
    record = json.loads(out)
    (file,) = tmp_path.glob("kernels-cpu-*.json")
    saved = json.loads(file.read_text())
    assert saved["metrics"] == record["metrics"]
    assert saved["git"]["commit"] and saved["versions"]["torch"] and "cpu" in saved["device"]
    times = {name for name in saved["metrics"] if saved["metrics"][name]["unit"] == "ms"}
    assert times == {
        "rms_norm_reference", "cached_attention_int_reference", "cached_attention_int_library"
    }  # fmt: skip
    assert not any("speedup" in name for name in saved["metrics"])
    assert saved["notes"]["missing"]["rms_norm"] == {"triton": "needs a GPU and triton"}


def test_table_says_what_is_missing(cli: Cli) -> None:
    status, out, _ = cli("bench", "kernels", "--no-compile", "--ops", "rms_norm", "--device", "cpu")
    assert status == 0
    assert "triton: needs a GPU and triton" in out and "rms_norm" in out


def test_wrong_result_gives_no_speedup_and_status_1(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(make: Maker, sizes: Any) -> Problem:
        problem = PROBLEMS["cached_attention_int"](make, sizes)
        right = problem.function

        def function(*, backend: str, **arguments: Any) -> Any:
            return right(**arguments, backend=backend) * (1.05 if backend == "library" else 1)

        problem.function = function
        return problem

    monkeypatch.setitem(bench.PROBLEMS, "rms_norm", broken)
    status, out, _ = cli("bench", "kernels", "--no-compile", "--ops", "rms_norm", "--device", "cpu")
    assert status == 1
    assert "library: differs from the reference by 5.0e-02" in out


def test_speedup_is_over_the_fastest_other() -> None:
    row = timed(reference=8.0, compiled=3.0, library=2.0, triton=1.0)
    assert row.speedup == 2.0
    row.failed["library"] = "differs"
    assert row.speedup == 3.0
    row.failed["triton"] = "differs"
    assert row.speedup is None
    assert timed(reference=8.0).speedup is None


def test_what_makes_a_run_fail() -> None:
    row = timed(reference=1.0)
    row.failed = {"triton": "needs a GPU and triton", "library": "failed: takes multiples of 16"}
    assert not row.wrong
    for failed in ({"compiled": "differs from the reference"}, {"triton": "failed: no PTX"}):
        row.failed = failed
        assert row.wrong


def test_refusing_library_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no kernel image\nat a.cpp:12")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", refuse)
    _, (row,) = bench.measure("cpu", ["cross_attention"], compiled=False, seconds=0.01)
    assert row.failed["library"] == "failed: no kernel image"
    assert row.timings.keys() == {"reference"}


def test_percent_of_the_ceilings() -> None:
    problem = PROBLEMS["cached_attention"](
        Maker(torch.bfloat16, "cpu"), bench.Sizes(frames=1, frame=4, dim=64, heads=1, cached=8, capacity=40)
    )  # fmt: skip
    row = timed("cached_attention", triton=1.0)
    peak = {torch.bfloat16: problem.flops * 4000}
    bench._percent(row, problem, Ceilings(problem.bytes * 2000, peak))
    assert row.bandwidth["triton"] == pytest.approx(50)
    assert row.matrix["triton"] == pytest.approx(25)


def test_prefer_keeps_the_faster_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "preferred.json"
    file.write_text(common.PREFERRED_FILE.read_text())
    for module in (bench, common):
        monkeypatch.setattr(module, "PREFERRED_FILE", file)
    common.preferred.cache_clear()
    rows = [
        timed("fp8_linear_bias", library=1.0, triton=2.0),
        timed("fp8_linear_gelu", library=2.0, triton=0.5),
        timed("cross_attention", library=2.0, triton=1.0),
        timed("adaln", reference=2.0, triton=1.0),
    ]
    rows[2].failed["triton"] = "differs"
    try:
        # "cpu" stands for the device here: there is no other.
        assert bench.prefer(rows, "cpu") == {"fp8_linear": "triton"}
        saved = json.loads(file.read_text())
        assert saved["cpu"] == {**common.preferred()["cpu"], "fp8_linear": "triton"}
        assert saved["cpu"]["cached_attention"] == "library", "what was there stays"
    finally:
        common.preferred.cache_clear()


def test_tune_keeps_the_fastest_tile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "tiles.json"
    file.write_text('{"sm_80": {"cross_attention": {"BLOCK_M": 64}}}')
    monkeypatch.setattr(tiles, "TILES_FILE", file)
    monkeypatch.setattr(bench, "TUNED", {"cached_attention": "cached_attention_int"})
    monkeypatch.setattr(bench, "WAN_14B", bench.TINY)

    def attempt(name: str, *_: Any) -> float:
        tile = tiles.pick("cached_attention", 90, {})
        if tile["num_stages"] == 4:
            return float("inf")
        return abs(tile["BLOCK_N"] - 64) + abs(tile["BLOCK_M"] - 64) + tile["num_stages"]

    monkeypatch.setattr(bench, "_attempt", attempt)
    tiles.measured.cache_clear()
    try:
        best = {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 2}
        assert bench.tune("cpu") == {"cached_attention": best}
        assert json.loads(file.read_text()) == {
            "sm_80": {"cross_attention": {"BLOCK_M": 64}},
            "sm_90": {"cached_attention": best},
        }
        assert tiles.pick("cached_attention", 90, {}) == best
        assert tiles.pick("cached_attention", 100, {"BLOCK_M": 1}) == {"BLOCK_M": 1}
    finally:
        tiles.measured.cache_clear()


def test_every_problem_belongs_to_an_operation() -> None:
    import dreamzero_kernels

    for name in PROBLEMS:
        folder = Path(dreamzero_kernels.__path__[0]) / bench.operation(name)
        known = ("rms_norm", "quantize_rows")  # second functions of another operation's folder
        assert folder.is_dir() or folder.name in known, name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ops", "adaln,warp"], "--ops: no operation 'warp'"),
        (["--device", "cuda"], "torch sees no GPU"),
        (["--tune", "--device", "cpu"], "--tune keeps what is faster on a GPU"),
        (["--prefer", "--device", "cpu"], "--prefer keeps what is faster on a GPU"),
    ],
)
def test_refusals(cli: Cli, flags: list[str], message: str) -> None:
    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    status, _, err = cli("bench", "kernels", *flags)
    assert status == 2 and message in err and err.count("\n") == 1
