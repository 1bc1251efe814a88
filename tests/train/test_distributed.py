"""Two processes on the CPU take the steps of one: DDP and FSDP2, with pieces, mixtures and resuming."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dreamzero.data.reader import Dataset
from dreamzero.data.windows import WindowDataset
from dreamzero.model.bundle import WorldActionModel
from dreamzero.report.machine import multiplies_bf16
from dreamzero.train.checkpoint import Checkpoint, latest
from dreamzero.train.config import Source, TrainSettings
from dreamzero.train.latents import encode_windows

from .toys import QUICK, command, model, plain, rows, store, trainer
from .worker import mixed, tuning

STEPS = 20
BASE = replace(
    QUICK, steps=STEPS, optimizer="adamw", evaluate_every=10, save_every=10, chunks=4, dreams=1
)
SHARDED = replace(BASE, sharding="full", accumulate=2, recompute="selective")
# Pieces of one sample are cut from batches of 3 to 6; video alone leaves coders without a gradient.
MIXED = replace(BASE, steps=6, evaluate_every=6, full=Source(blocks=2, batch=4), chunks=0)
MUON = replace(BASE, steps=3, optimizer="muon", sharding="full", evaluate_every=4, chunks=0)


LORA = replace(
    BASE, steps=4, trained="lora", lr=1e-2, evaluate_every=4, full=Source(blocks=2, batch=2),
    chunks=0,
)  # fmt: skip


def together(count: int, jobs: list[dict[str, Any]]) -> None:
    """As torchrun starts them: one process each, that find each other by the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    common = os.environ | {k: str(v) for k, v in world.items()} | {"MASTER_ADDR": "127.0.0.1"}
    started = [
        subprocess.Popen(
            command(jobs),
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0] * count, "\n".join(errors)


def job(out: Path, settings: TrainSettings, **more: Any) -> dict[str, Any]:
    return {"out": str(out), "settings": plain(settings), **more}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, imported: Path, droid_recording: Path) -> Path:
    """All runs of this module: one process, and two that share everything."""
    out = tmp_path_factory.mktemp("runs")
    start = WorldActionModel.load(imported)
    cut = WindowDataset(Dataset.open(droid_recording), start.card(), blocks=2)
    encoded = encode_windows(
        cut, start.codec, 32, 64, False, first_frame=True, image_encoder=start.image_encoder
    )
    store(encoded, out / "windows.safetensors")
    given = imported, out / "windows.safetensors"
    jobs = [
        job(out / "ddp", replace(BASE, accumulate=2)),
        job(out / "fsdp", SHARDED, stop=10),
        job(out / "mixed", replace(MIXED, sharding="full"), mixture=True),
        job(out / "mixed-ddp", MIXED, mixture=True),
        job(out / "muon", MUON),
        job(out / "lora", replace(LORA, sharding="full"), imported=str(imported),
            latents=str(given[1])),
    ]  # fmt: skip
    together(2, jobs)
    trainer(out / "one", BASE).run(progress=False)
    trainer(out / "one-mixed", MIXED, source=mixed()).run(progress=False)
    tuning(*given, LORA, out / "one-lora").run(progress=False)
    trainer(out / "one-muon", replace(MUON, sharding="none")).run(progress=False)
    return out


def furthest(a: Path, b: Path, *names: str) -> float:
    """Largest relative difference of two logs."""
    pairs = list(zip(rows(a), rows(b), strict=True))
    assert all(x["step"] == y["step"] for x, y in pairs)
    found = [
        abs(x[name] - y[name]) / max(abs(x[name]), 1e-3)
        for x, y in pairs
        for name in names or ("video", "action", "gradient")
        if name in x
    ]
    return max(found)


def test_two_processes_equal_one(runs: Path) -> None:
    """Each with two pieces of a batch of four."""
    assert len(rows(runs / "one")) == len(rows(runs / "ddp")) == STEPS
    assert furthest(runs / "one", runs / "ddp") < 1e-5
    signals = ("held_out_video", "open_loop", "dream_psnr", "gradient/ffn", "gradient/actions")
    assert furthest(runs / "one", runs / "ddp", *signals) < 1e-4


def test_sharded_and_in_pieces_it_is_the_same(runs: Path) -> None:
    """FSDP2, gradients of two pieces added up, activations computed twice.

    One of the two hears SIGTERM in step 10: both save and end.
    """
    assert latest(runs / "fsdp") == runs / "fsdp" / "checkpoints" / "step-00000010"
    once = rows(runs / "one")[:10]
    for a, b in zip(once, rows(runs / "fsdp"), strict=True):
        for name in ("video", "action", "gradient"):
            assert b[name] == pytest.approx(a[name], rel=1e-5)


def test_mixtures_with_video_alone_agree(runs: Path) -> None:
    for name in ("mixed", "mixed-ddp"):
        assert furthest(runs / "one-mixed", runs / name) < 1e-5
    kinds = [row["action"] == 0.0 for row in rows(runs / "one-mixed")]
    assert any(kinds) and not all(kinds)


def test_muon_turns_sharded_matrices(runs: Path) -> None:
    """In bfloat16, so that it agrees less closely."""
    assert furthest(runs / "one-muon", runs / "muon", "video", "action") < 5e-3


def test_a_sharded_adapter_is_the_same(runs: Path) -> None:
    """What is frozen and what is trained are divided together."""
    assert furthest(runs / "one-lora", runs / "lora") < 1e-4
    found, wanted = (
        load_file(runs / n / "adapter_model.safetensors") for n in ("lora", "one-lora")
    )
    assert found.keys() == wanted.keys()
    # Adam's first steps go by the sign of a gradient, and where it is all but zero by its rounding.
    atol = 1e-4 if multiplies_bf16() else 3e-4
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=atol)


def test_another_number_of_processes_goes_on(runs: Path) -> None:
    """From two, sharded, in pieces, to one that does neither."""
    path = runs / "fsdp" / "checkpoints" / "step-00000010"
    assert json.loads((path / "state.json").read_text())["processes"] == 2
    assert len(list(path.glob("shard-*.safetensors"))) == 2
    trainer(runs / "fsdp", BASE).run(resume=True, progress=False)
    found = rows(runs / "fsdp")
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    assert furthest(runs / "one", runs / "fsdp") < 1e-4


def test_shards_put_together_are_the_whole(runs: Path) -> None:
    whole = Checkpoint(runs / "one" / "checkpoints" / "step-00000010")
    parts = Checkpoint(runs / "fsdp" / "checkpoints" / "step-00000010")
    names = whole.names("")
    assert sorted(names) == sorted(parts.names("")) and len(names) > 100
    for name in names:
        torch.testing.assert_close(
            parts.read(name, torch.empty(0)), whole.read(name, torch.empty(0)), rtol=1e-4, atol=1e-5
        )
    copies = runs / "ddp" / "checkpoints" / "step-00000010"
    assert [p.name for p in copies.glob("shard-*")] == ["shard-00000.safetensors"]
    assert sorted(Checkpoint(copies).names("")) == sorted(names)


def test_the_model_of_a_sharded_run_is_whole(runs: Path) -> None:
    """Gathered on one process, and saved as any other."""
    found = load_file(runs / "mixed" / "transformer" / "diffusion_pytorch_model.safetensors")
    wanted = load_file(runs / "one-mixed" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert found.keys() == wanted.keys() == model().transformer.state_dict().keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
