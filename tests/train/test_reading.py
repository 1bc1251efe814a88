"""From memory, from disk, from video: the same steps bit for bit, however often a run is killed."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamzero.cli import main
from dreamzero.data.reader import Dataset
from dreamzero.data.windows import WindowDataset
from dreamzero.errors import UserError
from dreamzero.train.arguments import check_arguments
from dreamzero.train.cache import CachedWindows
from dreamzero.train.checkpoint import latest
from dreamzero.train.config import Source, TrainSettings
from dreamzero.train.distributed import Processes
from dreamzero.train.features import FeatureEncoder
from dreamzero.train.latents import LatentWindows
from dreamzero.train.reading import VideoWindows, free_bytes, memory_bound, open_windows

from .readings import CARD, DIMS, reading, small_codec, write
from .test_distributed import furthest, together
from .test_loop import said
from .toys import QUICK, command, plain

LENGTHS = (70, 60, 95, 80, 64, 90)
BASE = replace(
    QUICK,
    full=Source(blocks=2, batch=4, begin=0.25),
    first=Source(blocks=1, batch=3),
    open_episodes=2,
)
BY_EPISODE = replace(BASE, shuffle="episodes")
Run = Any


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A recording, a codec, and a folder for features."""
    root = tmp_path_factory.mktemp("readings")
    small_codec().save_pretrained(root / "vae")
    return write(root / "recording", LENGTHS), root / "vae", root / "features"


def weights(out: Path) -> bytes:
    return (out / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.mark.parametrize("shuffle", ["windows", "episodes"])
def test_all_readings_take_the_same_steps(
    given: tuple[Path, Path, Path], tmp_path: Path, shuffle: Any
) -> None:
    ways = (("memory", 0), ("cache", 0), ("cache", 1), ("video", 0), ("video", 2))
    kinds = {"memory": LatentWindows, "cache": CachedWindows, "video": VideoWindows}
    for way, workers in ways:
        settings = replace(BASE, shuffle=shuffle, reading=way, workers=workers)  # type: ignore[arg-type]
        run = reading(tmp_path / f"{way}{workers}", settings, *given)
        assert all(type(feed.windows) is kinds[way] for feed in run.source.feeds)
        run.run(progress=False)
    first = tmp_path / "memory0"
    assert len(said(first)) == BASE.steps and "held_out_video" in said(first)[3]
    for way, workers in ways[1:]:
        out = tmp_path / f"{way}{workers}"
        assert said(out) == said(first), out.name
        assert weights(out) == weights(first), out.name


@pytest.mark.parametrize(("way", "workers"), [("cache", 0), ("video", 1)])
def test_killed_it_goes_on_bit_for_bit_in_another_way(
    given: tuple[Path, Path, Path], tmp_path: Path, way: Any, workers: int
) -> None:
    """kill -9, workers and all; then --resume, reading in another way."""
    settings = replace(BY_EPISODE, steps=12, save_every=3, reading=way, workers=workers)
    out, names = tmp_path / "killed", ("recording", "codec", "features")
    told = {"out": str(out), "settings": plain(settings), "slow": 0.1}
    told |= {name: str(path) for name, path in zip(names, given, strict=True)}
    process = subprocess.Popen(command([told]), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "log.jsonl").exists() or len(said(out)) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    found = latest(out)
    assert found is not None and found.name < "step-00000012", "killed too late to show anything"
    torch.set_num_threads(1)
    other = replace(settings, reading="memory" if way == "video" else "video", workers=0)
    reading(out, other, *given).run(resume=True, progress=False)
    reading(tmp_path / "whole", settings, *given).run(progress=False)
    assert said(out) == said(tmp_path / "whole")
    assert weights(out) == weights(tmp_path / "whole")


def test_two_processes_equal_one_however_they_read(
    given: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    names = ("recording", "codec", "features")
    folders = {name: str(path) for name, path in zip(names, given, strict=True)}
    ways = {"memory": 0, "cache": 1, "video": 1}
    base = replace(BY_EPISODE, optimizer="adamw")
    jobs = [
        {
            "out": str(tmp_path / way),
            "settings": plain(replace(base, reading=way, workers=workers)),  # type: ignore[arg-type]
            **folders,
        }
        for way, workers in ways.items()
    ]
    together(2, jobs)
    reading(tmp_path / "one", replace(base, reading="memory"), *given).run(progress=False)
    for way in ways:
        assert furthest(tmp_path / "one", tmp_path / way) < 1e-5, way


def test_automatically_in_memory_where_it_fits(given: tuple[Path, Path, Path]) -> None:
    encoder = FeatureEncoder(small_codec(), *DIMS)
    sets = [WindowDataset(Dataset.open(given[0]), CARD, blocks=b, stride=8) for b in (2, 1)]
    for bound, kind in ((0.0, LatentWindows), (1e-6, CachedWindows)):
        settings = replace(BASE, memory_gb=bound)
        found = open_windows(sets, encoder, settings, given[2], Processes("cpu", settings), False)
        assert [type(windows) for windows in found] == [kind, kind]
    assert isinstance(found[0], CachedWindows) and found[0].bytes > 1e3
    assert memory_bound(replace(BASE, memory_gb=2.0), 4) == 0.5e9
    assert 1e6 < memory_bound(BASE) <= free_bytes()
    one = found[0].batch([2])
    assert found[0].where(2) == f"{given[0]}, episode 0, frame 16" and len(one.prompt) == 1


def test_augmentation_is_of_video_alone(given: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """It changes the steps, not what is held out, and not with the number of workers."""
    varied = replace(BY_EPISODE, reading="video", augment=1.0, lr=0.0, matrix_lr=0.0)
    for name, settings in {
        "none": replace(varied, augment=0.0), "some": varied, "two": replace(varied, workers=2),
    }.items():  # fmt: skip
        reading(tmp_path / name, settings, *given).run(progress=False)
    none, some, two = (said(tmp_path / name) for name in ("none", "some", "two"))
    assert some == two and all(a["video"] != b["video"] for a, b in zip(none, some, strict=True))
    assert none[3]["held_out_video"] == some[3]["held_out_video"]
    with pytest.raises(UserError, match="set train.reading=video too"):
        check_arguments(
            [], tmp_path / "o", None, TrainSettings(augment=0.5), None, None, resume=False
        )
    with pytest.raises(UserError, match="augment differ from the run"):
        reading(tmp_path / "some", replace(varied, augment=0.0), *given).run(resume=True)


def test_a_video_that_breaks_ends_a_run_in_one_line(
    given: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(BY_EPISODE, reading="video", workers=1)
    run = reading(tmp_path, settings, *given)

    def broken(*_: Any) -> Any:
        raise UserError("episode 1: cannot be read; mend or leave out the episode")

    monkeypatch.setattr(VideoWindows, "read", broken)
    with pytest.raises(UserError, match="^episode 1: cannot be read; mend or leave out"):
        run.run(progress=False)


def test_the_command_line_reads_video(
    given: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dreamzero.embodiments.files import dumps

    card = tmp_path / "arm.toml"
    card.write_text(dumps(CARD))
    told = ["train", "--data", str(given[0]), "--card", str(card), "--codec", str(given[1]), "--json",
            "--out", str(tmp_path / "run")]  # fmt: skip
    for change in (
        "steps=2", "full.batch=1", "full.blocks=2", "first.batch=1", "bf16=false", "chunks=0",
        "reading=video", "augment=1", "shuffle=episodes", "workers=1",
    ):  # fmt: skip
        told += ["--set", f"train.{change}"]
    assert main(told) == 0
    assert not (tmp_path / "run" / "latents").exists()  # nothing was encoded beforehand
    assert main([*told, "--set", "train.reading=cache"]) == 2
    assert "set train.reading=video too" in capsys.readouterr().err
    assert main([*told, "--set", "train.workers=-1"]) == 2
    assert "train.workers=-1: must be at least 0" in capsys.readouterr().err
