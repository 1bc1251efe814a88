"""A recording of the simulated tabletop, made once: two cameras that see an arm move."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamzero.data.convert import convert


@pytest.fixture(scope="session")
def tabletop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v3.0; ten episodes of 65 rows at 15 fps, views front and side, state and action of six."""
    import torch._dynamo  # noqa: F401  (imports triton, which crashes if EGL came first: two LLVMs)

    from dreamzero.sim import record

    root = tmp_path_factory.mktemp("tabletop") / "recording"
    record(root, "so101", episodes=10, seed=5, views=("front", "side"), progress=False)
    return root


@pytest.fixture(scope="session")
def tabletop_v2(tabletop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a file for every episode, which is easier to damage."""
    root = tmp_path_factory.mktemp("tabletop") / "v2"
    convert(tabletop, "v2.1", root, progress=False)
    return root


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a recording, to be damaged."""

    def copy(root: Path) -> Path:
        return Path(shutil.copytree(root, tmp_path / "copy"))

    return copy
