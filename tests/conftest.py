"""Set-up for all tests: one thread a worker, no display, no network, no GPU unless asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Before torch, mujoco or matplotlib is imported; also inherited by the processes tests start.
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MUJOCO_GL": "egl",
    "MPLBACKEND": "Agg",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "JUPYTER_PREFER_ENV_PATH": "1",
    # A stop that somebody pressed on this machine is not for the arms of tests, nor theirs for others.
    "DREAMZERO_ESTOP": f"/tmp/dreamzero-estop-of-test-{os.getpid()}",
}.items():
    os.environ.setdefault(_name, _value)

NOTEBOOKS = "tests/notebooks"
ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Property tests take the same examples everywhere and are not timed (cores are shared)."""
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "house",
        deadline=None,
        derandomize=True,
        max_examples=40,
        suppress_health_check=[HealthCheck.too_slow],
        database=None,
    )
    settings.load_profile("house")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests stay on one worker, for what they share; those of all notebooks do.

    A browser and its kernel beside a notebook that drives an arm in real time are more than two cores.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return NOTEBOOKS if file.startswith(f"{NOTEBOOKS}/") else file

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the notebooks first, which take longest; skip what is marked gpu where torch sees none."""
    items.sort(key=lambda item: not item.nodeid.startswith(f"{NOTEBOOKS}/"))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: ``status, out, err = cli("data", "inspect", path)``."""
    from dreamzero.cli import main

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as leave:  # --help and --version
            status = int(leave.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
