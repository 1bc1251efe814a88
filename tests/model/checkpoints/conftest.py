"""Miniatures in the public layout; imports of them are shared, so tests leave them as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dreamzero.model.checkpoints.importer import import_checkpoint
from dreamzero.model.checkpoints.miniature import write_miniature

from .samples import SHALLOW, tensors, wan_config, write_wan


@pytest.fixture(scope="package")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 2146 names."""
    return write_miniature(tmp_path_factory.mktemp("public") / "droid")


@pytest.fixture(scope="package")
def imported(public: Path) -> Path:
    return import_checkpoint(public, public.parent / "ours")


@pytest.fixture(scope="package")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers: quick to break and to import."""
    return write_miniature(tmp_path_factory.mktemp("shallow") / "droid", SHALLOW)


@pytest.fixture
def broken(shallow: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(shallow, tmp_path / "in" / "droid"))


@pytest.fixture
def wan(shallow: Path, tmp_path: Path) -> Path:
    return write_wan(tmp_path / "wan" / "Wan2.1", tensors(shallow), wan_config(SHALLOW))
