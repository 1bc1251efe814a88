"""What training refuses, it refuses before it makes its folder or trains a codec."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamzero.errors import UserError, make_folder
from dreamzero.flow import SamplerConfig
from dreamzero.shipped import FOLDER, NAME
from dreamzero.train.config import TrainSettings
from dreamzero.train.run import _check_start, preset_arguments, train

FLASH = TrainSettings(stage="flash")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"data": "nowhere"}, "nowhere is no folder"),
        ({"preset": "huge"}, "unknown preset 'huge'"),
        ({"device": "tpu"}, "must be cpu or cuda"),
        ({"resume": True}, "holds no checkpoint"),
        ({"weights": [1.0, 2.0]}, "--weights 1 2: give one above 0 for each of the 1 folders"),
        ({"settings": FLASH}, "train.stage=flash is a last stage: name the trained model"),
        ({"init": "nowhere"}, "nowhere: no such model folder"),
        ({"card": "mine.toml"}, "card mine.toml: there is no such file"),
    ],
)
def test_nothing_is_left_behind(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    data = tmp_path / options.pop("data", "")
    with pytest.raises(UserError, match=says):
        train([data], tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_plain_mistakes_are_told_without_torch(tmp_path: Path) -> None:
    """In a tenth of the seconds that importing it takes."""
    (tmp_path / "file").touch()
    good = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    mistakes = [
        (["--data", "nowhere", "--out", "out"], "--data nowhere is no folder"),
        ([*good, "--preset", "huge"], "unknown preset 'huge'"),
        ([*good, "--set", "train.stpes=3"], "did you mean steps"),
        ([*good, "--set", "train.trained=lora"], "name the model with --init"),
        (["--data", str(tmp_path), "--out", str(tmp_path / "file" / "x")], "file is a file"),
    ]
    code = (
        "import json, sys\nfrom dreamzero.cli import main\n"
        "states = [main(['train', *a]) for a in json.loads(sys.argv[1])]\n"
        "assert states == [2] * len(states), states\n"
        "assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules)"
    )
    given = json.dumps([arguments for arguments, _ in mistakes])
    done = subprocess.run(
        [sys.executable, "-c", code, given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for line, (_, says) in zip(done.stderr.splitlines(), mistakes, strict=True):
        assert line.startswith("dreamzero: ") and says in line


def test_a_model_of_another_preset_is_refused() -> None:
    from dreamzero.model.bundle import WorldActionModel

    start = WorldActionModel.load(FOLDER / NAME)
    _check_start(start, "tiny", preset_arguments("tiny"))
    with pytest.raises(UserError, match="the model of --init has dim 192, this preset 384"):
        _check_start(start, "small", preset_arguments("small"))


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be made .File exists."):
        make_folder(tmp_path / "file")


def test_no_steps_are_refused() -> None:
    with pytest.raises(UserError, match="at least 1 step"):
        SamplerConfig(steps=0)


def test_an_unfinished_run_is_not_begun_anew(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    """Hours of work are not thrown away because a flag was forgotten."""
    kept = tmp_path / "out" / "checkpoints" / "latest"
    kept.parent.mkdir(parents=True)
    kept.write_text("step-00000500")
    status, _, error = cli("train", "--data", tmp_path, "--out", tmp_path / "out")
    assert status == 2 and "holds a run that was not finished: go on with --resume" in error
    assert kept.read_text() == "step-00000500"
