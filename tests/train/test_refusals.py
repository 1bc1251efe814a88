"""What training refuses, it refuses before it makes its folder or trains a codec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamzero.errors import UserError, make_folder
from dreamzero.flow import SamplerConfig
from dreamzero.shipped import FOLDER, NAME
from dreamzero.train.config import TrainSettings
from dreamzero.train.run import _check_start, preset_arguments, train


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "is no folder"),
        ({"preset": "huge"}, "unknown preset 'huge'"),
        ({"device": "tpu"}, "must be cpu or cuda"),
        ({"resume": True}, "holds no state.pt"),
    ],
)
def test_nothing_is_left_behind(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        train([tmp_path / "nowhere"], tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_preset_is_refused() -> None:
    from dreamzero.model.bundle import WorldActionModel

    start = WorldActionModel.load(FOLDER / NAME)
    settings = TrainSettings()
    _check_start(start, "tiny", preset_arguments("tiny"), settings)
    with pytest.raises(UserError, match="the model of --init has dim 192, this preset 384"):
        _check_start(start, "small", preset_arguments("small"), settings)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be made .File exists."):
        make_folder(tmp_path / "file")


def test_no_steps_are_refused() -> None:
    with pytest.raises(UserError, match="at least 1 step"):
        SamplerConfig(steps=0)
