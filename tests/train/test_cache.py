"""The cache is what the encoders would say: found again, never stale, whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamzero.cli import main
from dreamzero.data.convert import convert
from dreamzero.data.reader import Dataset
from dreamzero.data.windows import WindowDataset
from dreamzero.errors import UserError
from dreamzero.model.codecs.tiny import TinyCodec
from dreamzero.model.text import WordEncoder
from dreamzero.train.cache import CachedWindows, FeatureCache
from dreamzero.train.features import FeatureEncoder
from dreamzero.train.prompts import PromptTable

from .readings import CARD, small_codec, write


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("c") / "recording")


@pytest.fixture(scope="module")
def codec() -> TinyCodec:
    return small_codec()


def cut(recording: Path, blocks: int = 2, stride: int = 8) -> WindowDataset:
    return WindowDataset(Dataset.open(recording), CARD, blocks=blocks, stride=stride)


def encoder(codec: TinyCodec) -> FeatureEncoder:
    return FeatureEncoder(codec, action_dim=4, state_dim=5)


def files(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (folder / "windows").iterdir()}


def test_a_killed_run_goes_on_where_it_stopped(
    recording: Path, codec: TinyCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows, features, cache = cut(recording), encoder(codec), FeatureCache(tmp_path)
    real, calls = features.encode, []

    def dies(video: Tensor) -> dict[str, Tensor]:
        calls.append(len(video))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(video)

    monkeypatch.setattr(features, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        cache.precompute(windows, features, progress=False)
    done = files(tmp_path)
    assert len(done) == 1
    with pytest.raises(UserError, match="lacks the features of 2 of 3 episodes"):
        cache.open(windows, features)
    # A file that a full disk cut short does not count either.
    (only,) = (tmp_path / "windows").iterdir()
    only.write_bytes(only.read_bytes()[:-100])
    cache.precompute(windows, features, progress=False)
    assert len(calls) == 2 + 3 and len(files(tmp_path)) == 3
    before = files(tmp_path)
    FeatureCache(tmp_path).precompute(windows, features, progress=False)
    assert len(calls) == 5 and files(tmp_path) == before
    assert isinstance(cache.open(windows, features), CachedWindows)
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_workers_decode_the_same(recording: Path, codec: TinyCodec, tmp_path: Path) -> None:
    windows, features = cut(recording), encoder(codec)
    one = FeatureCache(tmp_path / "one").precompute(windows, features, progress=False)
    two = FeatureCache(tmp_path / "two").precompute(windows, features, False, workers=1)
    every = list(range(len(windows)))
    assert torch.equal(one.batch(every).latents, two.batch(every).latents)
    assert files(tmp_path / "one").keys() == files(tmp_path / "two").keys()


def test_a_key_is_of_the_content(recording: Path, codec: TinyCodec, tmp_path: Path) -> None:
    """Moving or converting a recording changes nothing; anything that a feature depends on does."""
    features, cache = encoder(codec), FeatureCache(tmp_path / "cache")
    keys = cache.keys(cut(recording), features)
    moved = shutil.copytree(recording, tmp_path / "moved")
    assert cache.keys(cut(moved), features) == keys
    convert(recording, "v2.1", tmp_path / "v2", progress=False)
    assert cache.keys(cut(tmp_path / "v2"), features) == keys
    # Other statistics, other limits, another name: the video is the same.
    named = WindowDataset(
        Dataset.open(recording), CARD.with_(name="other", upper=(1, 1)), blocks=2, stride=8
    )
    assert cache.keys(named, features) == keys
    canvas = WindowDataset(
        Dataset.open(recording), CARD.with_(canvas_px=(16, 16)), blocks=2, stride=8
    )
    for other in (cut(recording, blocks=1), cut(recording, stride=4), canvas):
        assert not set(cache.keys(other, features).values()) & set(keys.values())
    first = FeatureEncoder(codec, 4, 5, first_frame=True)
    assert not set(cache.keys(cut(recording), first).values()) & set(keys.values())
    changed = TinyCodec(latent_channels=4, width_half=8, width_quarter=8, width_eighth=16)
    changed.load_state_dict(codec.state_dict())
    with torch.no_grad():
        next(changed.parameters()).mul_(1.01)
    assert cache.keys(cut(recording), encoder(changed.eval())) != keys
    # One more episode leaves the others as they are.
    for path in (tmp_path / "v2").rglob("episode_000000.*"):
        shutil.copy(path, path.with_stem("episode_000003"))
    with (tmp_path / "v2/meta/episodes.jsonl").open("a") as lines:
        lines.write(json.dumps({"episode_index": 3, "tasks": ["lift it"], "length": 70}) + "\n")
    more = cache.keys(cut(tmp_path / "v2"), features)
    assert more == {**keys, (0, 3): keys[0, 0]}


def test_verify_and_prune(recording: Path, codec: TinyCodec, tmp_path: Path) -> None:
    cache, features = FeatureCache(tmp_path), encoder(codec)
    cache.precompute(cut(recording), features, progress=False)
    cache.precompute(cut(recording, blocks=1), features, progress=False)
    assert cache.verify() == [] and len(files(tmp_path)) == 6
    path = sorted((tmp_path / "windows").iterdir())[2]
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(bytes(data))
    assert cache.verify() == [path]
    keep = set(cache.keys(cut(recording), features).values())
    assert len(cache.prune(keep)) == 3
    assert {Path(name).stem for name in files(tmp_path)} == keep


def test_prompts_are_embedded_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = WordEncoder.fit(["push the red block", "lift it"], dim=8).eval()
    asked: list[str] = []
    real = words.encode

    def counted(prompts: Any) -> Tensor:
        asked.extend(prompts)
        return real(prompts)

    words.encode = counted  # type: ignore[method-assign]
    first = PromptTable(words, ["push the red block"], "cpu", cache=tmp_path)
    assert sorted(asked) == ["", "push the red block"]
    again = PromptTable(words, ["push the red block", "lift it"], "cpu", cache=tmp_path)
    assert asked[2:] == ["lift it"] and len(again) == 3
    for table, prompts in ((first, ["push the red block", ""]), (again, ["lift it", ""])):
        assert torch.equal(table.encode(prompts), real(prompts))
    assert len(list((tmp_path / "prompts").iterdir())) == 2
    with torch.no_grad():
        next(words.parameters()).mul_(2)
    PromptTable(words, ["lift it"], "cpu", cache=tmp_path)
    assert asked[3:] == ["", "lift it"]


def test_command_line(
    recording: Path, codec: TinyCodec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codec.save_pretrained(tmp_path / "vae")
    card = tmp_path / "arm.toml"
    from dreamzero.embodiments.files import dumps

    card.write_text(dumps(CARD))
    given = ["data", "precompute", str(recording), "--card", str(card), "--codec",
             str(tmp_path / "vae"), "--out", str(tmp_path / "features"),
             "--set", "train.full.blocks=2"]  # fmt: skip
    assert main([*given, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["files"] == 6 and facts["windows"] > 20 and facts["prompts"] == 0
    before = files(tmp_path / "features")
    assert len(before) == 6
    path = tmp_path / "features/windows" / min(before)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    assert main([*given, "--verify", "--prune"]) == 1
    assert "1 damaged files were removed: run again" in capsys.readouterr().out
    assert main([*given, "--verify"]) == 0
    capsys.readouterr()
    assert main([*given, "--set", "train.first.batch=0", "--verify", "--prune"]) == 0
    assert "3 files that these recordings do not need" in capsys.readouterr().out
    assert len(files(tmp_path / "features")) == 3
    assert main(given[:5] + given[7:]) == 2
    assert "--init DIR (a model) or --codec DIR" in capsys.readouterr().err
