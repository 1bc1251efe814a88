"""Every kernel in Triton's CPU interpreter, in one process of its own (see ``interpreted.py``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dreamzero_kernels.problems import NEEDS_FP8, PROBLEMS, TOLERANCE

from .samples import ODD

pytest.importorskip("triton")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@pytest.fixture(scope="module")
def found(root: Path) -> dict[str, Any]:
    """What ``interpreted.py`` prints."""
    script = Path(__file__).with_name("interpreted.py")
    command = [sys.executable, "-W", "error", str(script)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=root,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, Any] = json.loads(done.stdout)
    return results


@pytest.mark.parametrize("short", DTYPES)
@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in NEEDS_FP8])
def test_operation_equals_its_reference(found: dict[str, Any], name: str, short: str) -> None:
    sizes = ODD if not name.startswith("fp8_linear") else ODD.keys() - {"wide"}
    for size in sizes:
        errors = found["operations"][f"{name} {size} {short}"]
        assert errors and max(errors) < TOLERANCE[DTYPES[short]], (size, errors)


@pytest.mark.parametrize("name", ["adaln", "quantize_rows"])
def test_rows_with_scales(found: dict[str, Any], name: str) -> None:
    value, scale = found["writers"][name]
    assert value < TOLERANCE[torch.float16] and scale < TOLERANCE[torch.float32]


@pytest.mark.parametrize("steps", [1, 2, 4, 16])
def test_solver_equals_diffusers(found: dict[str, Any], steps: int) -> None:
    errors = [v for k, v in found["solver"].items() if k.startswith(f"{steps} steps")]
    assert errors and max(errors) < 2e-6


def test_block_of_operations_equals_the_model(found: dict[str, Any]) -> None:
    assert found["block"]["fp32"] < TOLERANCE[torch.float32]
    # The model rounds to half precision between operations that are one here.
    assert found["block"]["fp16"] < 3 * TOLERANCE[torch.float16]


def test_fifty_training_steps_agree(found: dict[str, Any]) -> None:
    plain, fused = found["training"]
    assert len(plain) == len(fused) == 50
    assert plain[-1] < 0.2 * plain[0], "it learns"
    assert max(abs(a - b) / a for a, b in zip(plain, fused, strict=True)) < 1e-4
    assert plain != fused, "the kernels were not used"
