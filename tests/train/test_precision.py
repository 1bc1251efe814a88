"""Where bfloat16 pays."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dreamzero.report import machine
from dreamzero.train import precision
from dreamzero.train.precision import in_bf16


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    """Every test reads its own flags, and none leaves them behind."""
    precision._multiplies.cache_clear()
    yield
    precision._multiplies.cache_clear()


@pytest.mark.parametrize(
    "flags, fast",
    [
        ("flags : fpu sse avx2 f16c", False),
        ("flags : avx2 avx512f avx512_vnni", False),
        ("flags : avx512f avx512_bf16 avx512vl", True),
        ("flags : amx_bf16 amx_tile", True),
        ("Features : asimd bf16 i8mm", True),
    ],
)
def test_a_cpu_that_would_emulate_it_computes_in_float32(
    flags: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(flags + "\n", encoding="utf-8")
    monkeypatch.setattr(machine, "CPUINFO", cpuinfo)
    assert in_bf16(True, torch.device("cpu")) is fast
    assert in_bf16(True, torch.device("cuda")) and not in_bf16(False, torch.device("cuda"))
    assert not in_bf16(False, torch.device("cpu"))


def test_without_a_list_of_flags_it_is_not_risked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    assert not in_bf16(True, torch.device("cpu"))
