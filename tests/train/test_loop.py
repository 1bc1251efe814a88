"""The loop, mostly on synthetic latents: it learns, resumes exactly, and shows early what it is worth."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dreamzero.data.mixture import EPISODES
from dreamzero.data.reader import Dataset
from dreamzero.data.windows import WindowDataset
from dreamzero.errors import UserError
from dreamzero.model.codecs.tiny import TinyCodec
from dreamzero.report.record import load
from dreamzero.sim import record
from dreamzero.train.cache import FeatureCache
from dreamzero.train.checkpoint import latest
from dreamzero.train.config import Source
from dreamzero.train.early import GAP_PX
from dreamzero.train.features import FeatureEncoder
from dreamzero.train.latents import LatentWindows
from dreamzero.train.monitor import Stopped
from dreamzero.train.reading import in_memory
from dreamzero.train.resume import store
from dreamzero.train.run import _weights, cut_windows

from .toys import CARD, QUICK, command, plain, rows, trainer

# What a row says of the training, and not of the machine.
TIMES = {"seconds", "cpu_seconds", "tokens_per_s", "data_wait", "mfu"}


def test_resume_continues_bit_for_bit(tmp_path: Path) -> None:
    """Also where the checkpoint falls between two log rows, and whatever has been logged since."""
    settings = replace(QUICK, log_every=3, save_every=4, evaluate_every=5)
    trainer(tmp_path / "whole", settings).run(progress=False)
    half = trainer(tmp_path / "parts", settings)
    for _ in range(4):  # as if killed after the checkpoint at step 4
        half.recent.append(half.one_step(half.prepare(half.step))[0])
        half.step += 1
        if half.step == 3:
            half.recent = []
    store(half)
    kept, lost = rows(tmp_path / "whole")[0], '{"step": 6, "video": 9}\n{"step": 7, "vi'
    (half.out / "log.jsonl").write_text(json.dumps(kept) + "\n" + lost)
    trainer(tmp_path / "parts", settings).run(resume=True, progress=False)
    assert said(tmp_path / "parts") == said(tmp_path / "whole")


def said(out: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows(out)]


def test_killed_at_any_step_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Data order, chance, optimisers, averages, schedule: kill -9, then --resume."""
    settings = replace(QUICK, steps=16, save_every=3, log_every=2, evaluate_every=8, chunks=4)
    out, after = tmp_path / "killed", random.Random(os.getpid()).randint(6, 12)
    process = subprocess.Popen(
        command([{"out": str(out), "settings": plain(settings), "slow": 0.05}]),
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (out / "log.jsonl").exists() or len(rows(out)) < after // 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    step = latest(out)
    assert step is not None and step.name < "step-00000016", "killed too late to show anything"
    trainer(out, settings).run(resume=True, progress=False)
    trainer(tmp_path / "whole", settings).run(progress=False)
    assert said(out) == said(tmp_path / "whole"), f"killed after {after} steps"
    ours, theirs = (
        f / "transformer" / "diffusion_pytorch_model.safetensors" for f in (out, tmp_path / "whole")
    )
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_signal_ends_a_run_in_good_order(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    step = run.one_step

    def interrupted(*given: Any) -> Any:
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*given)

    run.one_step = interrupted  # type: ignore[method-assign]
    with pytest.raises(
        Stopped, match="at step [34]; the last good checkpoint is .*step-0000000"
    ) as end:
        run.run(progress=False)
    assert end.value.status == 128 + signal.SIGTERM
    trainer(tmp_path).run(resume=True, progress=False)
    trainer(tmp_path / "whole").run(progress=False)
    assert said(tmp_path) == said(tmp_path / "whole")


def test_another_run_in_the_same_folder_takes_nothing_over(tmp_path: Path) -> None:
    trainer(tmp_path).run(progress=False)
    trainer(tmp_path, replace(QUICK, steps=4, ema=0.5)).run(progress=False)
    assert [p.name for p in (tmp_path / "checkpoints").glob("step-*")] == ["step-00000004"]
    assert load(tmp_path).metrics["steps"].value == 4 and len(rows(tmp_path)) == 4


def test_checkpoints_are_few_and_the_last_is_named(tmp_path: Path) -> None:
    settings = replace(QUICK, save_every=1, keep=3)
    trainer(tmp_path, settings).run(progress=False)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", *(f"step-{n:08d}" for n in (6, 7, 8))]
    assert latest(tmp_path) == tmp_path / "checkpoints" / "step-00000008"
    facts = json.loads((tmp_path / "checkpoints/step-00000008/state.json").read_text())
    assert facts["step"] == 8 and facts["settings"]["ema"] == QUICK.ema


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    trainer(tmp_path).run(progress=False)
    with pytest.raises(UserError, match="ema differ from the run"):
        trainer(tmp_path, replace(QUICK, ema=0.9)).run(resume=True, progress=False)
    with pytest.raises(UserError, match="holds no checkpoint"):
        trainer(tmp_path / "nowhere").run(resume=True, progress=False)


def test_training_learns_and_says_so_early(tmp_path: Path) -> None:
    """Sampled actions against holding still, dreams against the truth, gradients, speed."""
    settings = replace(
        QUICK, steps=100, full=Source(blocks=2, batch=16), evaluate_every=50, log_every=10,
        action_scale=4.0, chunks=8, ema=0.9, validation=0.25, tensorboard=True,
    )  # fmt: skip
    record = trainer(tmp_path, settings).run(progress=False)
    found = rows(tmp_path)
    assert sum(r["action"] for r in found[-3:]) < 0.5 * sum(r["action"] for r in found[:3])
    first, last = (row for row in found if "open_loop" in row)
    assert last["open_loop"] < 0.6 and last["open_loop"] < first["open_loop"]
    assert {"gradient/attention", "gradient/ffn", "gradient/actions"} <= last.keys()
    assert 0 <= last["data_wait"] <= 1 and last["tokens_per_s"] > 0 and last["mfu"] > 0
    # Latents are noise here, so that nothing can be dreamed; it is measured all the same.
    assert last["dream_psnr"] > 0 and last["still_psnr"] > 0
    # Two windows of two rows: the frame seen last and the 8 of a block, 32 px, drawn twice as large.
    with Image.open(tmp_path / "dreams" / "step-00000100.png") as picture:
        assert picture.size == (2 * 8 * 32, 2 * (4 * 32 + GAP_PX))
    assert any((tmp_path / "tensorboard").iterdir())
    kept = load(tmp_path)
    assert kept.metrics["open_loop"].value == last["open_loop"]
    assert kept.metrics["open_loop_rad"].unit == "rad" and kept.parameters["steps"] == 100
    assert record.notes["processes"] == 1 and record.notes["peak_flops"]["per_process"] > 0
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").exists()


def test_holding_still_counts_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(tmp_path, replace(QUICK, chunks=8, validation=0.25))
    found: dict[str, float] = {}
    # Normalised zero is the state itself: statistics of the toy reach as far up as down.
    for answer, ratio in ((torch.zeros_like, 1.0), (lambda x: x, 0.0)):

        def imagine(batch: Any, block: int, *_: Any, answer: Any = answer) -> Any:
            action = batch.action[:, block * CARD.horizon : (block + 1) * CARD.horizon]
            return batch.latents[:, :, 1:3], answer(action)

        monkeypatch.setattr(run.objective, "imagine", imagine)
        found = run.evaluate()
        assert found["open_loop"] == pytest.approx(ratio, abs=1e-6)
        assert found["open_loop_end"] == pytest.approx(ratio, abs=1e-6)


def test_encoded_windows_are_found_again_and_never_stale(tmp_path: Path) -> None:
    recordings = [
        Dataset.open(record(tmp_path / name, episodes=2, seed=seed, progress=False))
        for name, seed in (("a", 1), ("b", 2))
    ]
    codec, folder = TinyCodec().eval(), tmp_path / "latents"

    def encode(**cut: int) -> LatentWindows:
        cuts = WindowDataset(recordings, CARD, **{"blocks": 1, "stride": 32} | cut)  # type: ignore[arg-type]
        encoder = FeatureEncoder(codec, 8, 8)
        return in_memory(FeatureCache(folder).precompute(cuts, encoder, progress=False))

    roots = [dataset.root for dataset in recordings]
    both = WindowDataset(recordings, CARD)
    assert _weights([roots[1], roots[0]], [5.0, 1.0], both) == [1.0, 5.0]
    assert _weights(roots, None, both) is None
    for stride, cut in ((0, CARD.horizon), (4, 4), (-1, 1)):  # -1: as many windows as there are
        found = cut_windows(recordings, CARD, Source(blocks=4, stride=stride))
        assert len(found) == len(WindowDataset(recordings, CARD, stride=cut))
    first = encode()
    times = {path: path.stat().st_mtime_ns for path in folder.glob("windows/*")}
    assert len(times) == 4 and first.episode.unique().tolist() == [0, 1, EPISODES, EPISODES + 1]
    again = encode()
    assert {path: path.stat().st_mtime_ns for path in folder.glob("windows/*")} == times
    assert torch.equal(again.latents, first.latents) and torch.equal(again.episode, first.episode)
    assert len(encode(stride=16)) > len(first) and len(list(folder.glob("windows/*"))) == 8
    with torch.no_grad():
        next(codec.parameters()).mul_(1.01)
    assert not torch.equal(encode().latents, first.latents)
    assert len(list(folder.glob("windows/*"))) == 12
