"""`dreamzero train` on all cores by itself: how many processes, that they agree, and that none is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dreamzero.cli import main
from dreamzero.embodiments.files import dumps
from dreamzero.errors import UserError
from dreamzero.model.codecs.tiny import TinyCodec
from dreamzero.shipped import find
from dreamzero.train import launch
from dreamzero.train.config import CodecTraining, Source, TrainSettings
from dreamzero.train.run import _beginning

from .readings import CARD, small_codec, write

LONG = TrainSettings(full=Source(batch=16), first=Source(blocks=1, batch=48))


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "cores", lambda: 4)
    monkeypatch.delenv("RANK", raising=False)


@pytest.mark.usefixtures("four")
def test_how_many() -> None:
    assert launch.choose(None, LONG, "cpu") == 4
    assert launch.choose(3, LONG, "cpu") == 3
    assert launch.choose(None, LONG, "cuda") == 1
    assert launch.choose(None, replace(LONG, steps=20), "cpu") == 1
    # A batch is cut into whole samples, and one that is not used does not count.
    assert launch.choose(None, replace(LONG, full=Source(batch=2)), "cpu") == 2
    assert launch.choose(None, replace(LONG, full=Source(batch=0)), "cpu") == 4
    assert launch.choose(None, replace(LONG, accumulate=8), "cpu") == 2
    with pytest.raises(UserError, match="--processes 0"):
        launch.choose(0, LONG, "cpu")
    with pytest.raises(UserError, match="torchrun --nproc_per_node 2"):
        launch.choose(2, LONG, "cuda")


@pytest.mark.usefixtures("four")
def test_not_below_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launch.choose(None, LONG, "cpu") == launch.choose(2, LONG, "cpu") == 1
    with pytest.raises(UserError, match="launcher has started them"):
        launch.choose(3, LONG, "cpu")


def test_two_processes_are_one(tmp_path: Path) -> None:
    """The same losses; the second process writes nothing."""
    small_codec().save_pretrained(tmp_path / "vae")
    recording, card = write(tmp_path / "recording"), tmp_path / "arm.toml"
    card.write_text(dumps(CARD))
    rows = []
    for count in (1, 2):
        out = tmp_path / str(count)
        given = [
            "train", "--data", str(recording), "--card", str(card), "--codec", str(tmp_path / "vae"),
            "--out", str(out), "--processes", str(count), "--threads", "1", "--json",
        ]  # fmt: skip
        for change in (
            "steps=2", "full.batch=2", "full.blocks=2", "first.batch=2", "bf16=false", "chunks=0",
            "log_every=1", "tensorboard=false",
        ):  # fmt: skip
            given += ["--set", f"train.{change}"]
        if count == 1:
            assert main(given) == 0
        else:
            command = [sys.executable, "-m", "dreamzero", *given]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["notes"]["processes"] == 2
        rows.append([json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()])
    for one, two in zip(*rows, strict=True):
        assert two["video"] == pytest.approx(one["video"], rel=1e-4)
        assert two["action"] == pytest.approx(one["action"], rel=1e-4)


def test_the_others_end_with_the_first(tmp_path: Path) -> None:
    before = dict(os.environ)
    with (
        pytest.raises(RuntimeError, match="broken"),
        launch.together(2, ["train", "--help"], 1),
    ):
        assert os.environ["RANK"] == "0" and os.environ["WORLD_SIZE"] == "2"
        raise RuntimeError("broken")
    assert dict(os.environ) == before


def test_a_new_codec_begins_where_the_shipped_one_is(tmp_path: Path) -> None:
    assert _beginning(CodecTraining()) == find("tiny_so101") / "vae"
    assert _beginning(CodecTraining(init="")) is None
    assert _beginning(CodecTraining(latent_channels=16)) is None
    assert isinstance(TinyCodec.from_pretrained(find("tiny_so101") / "vae"), TinyCodec)
