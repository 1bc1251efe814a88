"""Two processes over gloo compute what one computes: a branch each, and a branch's tokens divided."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dreamzero.errors import UserError
from dreamzero.flow import SamplerConfig
from dreamzero.inference import Engine, WorldActionPolicy, parallel, synthetic
from dreamzero.inference.parallel import Tokens

GUIDED = SamplerConfig(steps=2, guidance=4.0, guidance_interval=(0.9, 1.0))
ALONE = SamplerConfig(steps=2, guidance=1.0)


def run(policy: WorldActionPolicy) -> list[np.ndarray]:
    """A first chunk, and one behind an observed block."""
    rng = np.random.default_rng(0)
    state = np.linspace(-1, 1, policy.card.state_dim, dtype=np.float32)

    def see(count: int) -> None:
        views = {
            v: rng.integers(0, 255, (count, 16, 32, 3), dtype=np.uint8) for v in policy.card.views
        }
        policy.observe(views, state)

    policy.reset("push")
    see(1)
    out = [policy.act().actions]
    see(8)
    return [*out, policy.act().actions]


def process(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
    }  # fmt: skip
    together = parallel.start()
    assert together is not None and together.rank == rank
    model = synthetic.random_model(synthetic.TOY, "cpu", torch.float32)
    engine = Engine(model.transformer, parallel=together)
    for name, sampler in (("guided", GUIDED), ("alone", ALONE)):
        policy = WorldActionPolicy(model, sampler=sampler, engine=engine)
        np.savez(Path(folder) / f"{name}{rank}.npz", *run(policy))
        kept = policy.session.cache.buffer
        # A branch each: one row of the window. Tokens divided: half of its heads.
        wanted = (1, 4) if name == "guided" else (1, 2)
        assert (kept.shape[2], kept.shape[4]) == wanted
        policy.session.close()
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(process, args=(port, str(tmp_path)), nprocs=2)
    model = synthetic.random_model(synthetic.TOY, "cpu", torch.float32)
    for name, sampler in (("guided", GUIDED), ("alone", ALONE)):
        wanted = run(WorldActionPolicy(model, sampler=sampler))
        for rank in (0, 1):
            with np.load(tmp_path / f"{name}{rank}.npz") as file:
                got = [file[key] for key in file.files]
            for a, b in zip(got, wanted, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5)


def test_tokens_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Tokens(None, rank, 3).mine(10) for rank in range(3)]  # type: ignore[arg-type]
    assert [list(range(10))[part] for part in parts] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert parallel.start() is None


@pytest.mark.parametrize(
    ("world", "branches", "heads", "message"),
    [(3, 2, 3, "an even number"), (2, 1, 3, "3 attention heads do not divide among 2")],
)
def test_what_does_not_divide_is_refused(
    world: int, branches: int, heads: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: world)
    monkeypatch.setattr(dist, "new_group", lambda members: tuple(members))
    with pytest.raises(UserError, match=message):
        parallel.Parallel().share(branches, heads)
