"""What ends a training ends it in one line that names the last good checkpoint."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamzero.errors import UserError
from dreamzero.train import checkpoint
from dreamzero.train.checkpoint import latest
from dreamzero.train.loop import Trainer
from dreamzero.train.monitor import Divergence

from .toys import QUICK, rows, trainer, windows

GOOD = r"the last good checkpoint is .*step-00000004"


def at_step(run: Trainer, step: int, act: Callable[[], Any]) -> None:
    """Do something before a step."""
    one = run.one_step

    def then(*given: Any) -> Any:
        if run.step == step:
            act()
        return one(*given)

    run.one_step = then  # type: ignore[method-assign]


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    weight = run.model.transformer.proj_out.weight
    at_step(run, 6, lambda: weight.data.fill_(float("nan")))
    with pytest.raises(
        UserError, match=f"diverged: not finite at step 6: .*{GOOD}: lower train.lr"
    ):
        run.run(progress=False)
    # With a lower rate it may go on from there.
    trainer(tmp_path, replace(QUICK, lr=1e-5)).run(resume=True, progress=False)
    assert rows(tmp_path)[-1]["step"] == 8


def test_a_loss_that_rises_and_stays() -> None:
    seen = Divergence(warmup=0)
    for step in range(200):
        assert seen.check(step, {"video": 0.3, "action": 0.1 + (step % 50 == 0)}) is None
    again = Divergence(warmup=0)
    again.state = dict(seen.state)  # as a resumed run goes on with it
    found = [again.check(200 + i, {"video": 2.0, "action": 1.0}) for i in range(40)]
    assert found[0] is None and found[-1] is not None and "and had been 0.4" in found[-1]


def test_single_windows_do_not_look_like_divergence() -> None:
    """Batches of one, whose noise level decides their loss; the first losses may be anything."""
    rng = np.random.default_rng(0)
    for first in (0.001, 50.0):
        seen = Divergence(warmup=0)
        for step in range(2000):
            loss = first * 0.9**step + rng.exponential(0.3)
            assert seen.check(step, {"video": loss, "action": 0.0}) is None


@pytest.mark.parametrize("name", ["latents", "action", "state"])
def test_a_bad_sample_is_named(tmp_path: Path, name: str) -> None:
    given = windows()
    run = trainer(tmp_path, given=given)
    draws = [set(run.source.draw(step).index.tolist()) for step in range(8)]
    step, bad = next(
        (step, i)
        for step in (5, 6, 7)
        for i in sorted(draws[step])
        if not any(i in before for before in draws[:step])
    )
    getattr(given, name)[bad] = float("nan")
    where = f"{name} of recordings/mine, episode {bad}, frame {10 * bad}"
    with pytest.raises(UserError, match=f"bad sample at step {step}: {where} is not .*{GOOD}"):
        run.run(progress=False)


def test_a_full_disk_while_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file = checkpoint.save_file

    def full(pieces: Any, path: Path, *rest: Any) -> None:
        if "step-00000008" in str(path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save_file(pieces, path, *rest)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(
        UserError, match=rf"disk is full while writing .*shard.*; {GOOD}: free some"
    ):
        trainer(tmp_path).run(progress=False)
    kept = tmp_path / "checkpoints"
    assert sorted(p.name for p in kept.iterdir()) == ["latest", "step-00000004"]
    assert latest(tmp_path) == kept / "step-00000004"


def test_a_full_disk_while_logging(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match="disk is full .*; there is no checkpoint yet: free some"):
        trainer(tmp_path).run(progress=False)


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    trainer(tmp_path).run(progress=False)
    shard = tmp_path / "checkpoints" / "step-00000008" / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(UserError, match="step-00000008 is damaged .*name an earlier one in latest"):
        trainer(tmp_path).run(resume=True, progress=False)
    (tmp_path / "checkpoints" / "latest").write_text("step-00000004")
    trainer(tmp_path).run(resume=True, progress=False)


def test_too_few_samples_for_the_pieces(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="batch of 4 cannot be cut into 8 pieces .1 processes, train.acc"
    ):
        trainer(tmp_path, replace(QUICK, accumulate=8)).run(progress=False)


def test_one_process_shards_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="divides a model among processes and there is one: start it"
    ):
        trainer(tmp_path, replace(QUICK, sharding="full"))


def test_nonsense_settings() -> None:
    with pytest.raises(UserError, match="train.keep=0: must be at least 1"):
        replace(QUICK, keep=0)
    with pytest.raises(UserError, match="train.pure=0.5 is of coupled noise"):
        replace(QUICK, stage="flash", pure=0.5)
