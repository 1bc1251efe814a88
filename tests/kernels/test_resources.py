"""The static performance gate: kernels compiled without a GPU, against ``resources.json``."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import pytest
from dreamzero_kernels.problems import PROBLEMS

triton = pytest.importorskip("triton")


@pytest.fixture(scope="module")
def resources() -> ModuleType:
    from dreamzero_kernels import resources

    return resources


@pytest.mark.parametrize("name", PROBLEMS)
def test_kernel_takes_no_more_than_the_table_says(resources: ModuleType, name: str) -> None:
    known = json.loads(resources.TABLE.read_text(encoding="utf-8"))["triton"]
    if known != triton.__version__:
        pytest.skip(f"resources.json is of triton {known}, here is {triton.__version__}")
    assert resources.compare(name, resources.read_table()[name]) == []


def test_table_fits_the_hardware(resources: ModuleType) -> None:
    table = resources.read_table()
    assert list(table) == list(PROBLEMS), "python -m dreamzero_kernels.resources --write"
    for name, rows in table.items():
        assert {"sm_90", "sm_100"} <= {key.split()[1] for key in rows}, name
        for key, row in rows.items():
            capability = int(key.split("sm_")[1])
            assert row.shared <= resources.SHARED_LIMIT[capability], (name, key)
            assert row.registers * row.warps * 32 <= 65536, (name, key)
            if capability >= 90:
                assert row.stack == 0, (name, key, "spills")
            if "attention" in name or "linear" in name:
                native = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}
                assert row.matrix == native[capability], (name, key)


@pytest.mark.parametrize("capability", [86, 89, 120])
def test_consumer_gpus_get_tiles_that_fit(resources: ModuleType, capability: int) -> None:
    for name in ("cached_attention", "cross_attention", "fp8_linear_bias", "fp8_linear_gate"):
        if capability < 89 and "fp8" in name:
            continue
        (launch,) = resources.launches(name, capability)
        found = resources.compile_launch(launch, capability)
        assert found.shared <= 99 * 1024, name


def test_gate_complains(resources: ModuleType) -> None:
    known = resources.read_table()["cached_attention"]["cached_attention sm_90"]
    assert known.worse_than(known) == []
    assert known.worse_than(replace(known, registers=known.registers + 40)) == []
    for change in ({"registers": 255}, {"shared": 200_000}, {"stack": 8}, {"matrix": "mma.sync"}):
        assert len(replace(known, **change).worse_than(known)) == 1, change
