"""On a GPU: kernels, graphs and 8-bit floats against the same chunk without them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from dreamzero.errors import UserError
from dreamzero.flow import Reuse, SamplerConfig
from dreamzero.inference import Engine, EngineConfig, WorldActionPolicy
from dreamzero.model.bundle import WorldActionModel

from .toys import episode

pytestmark = pytest.mark.gpu
SAMPLERS = [
    SamplerConfig(steps=4, guidance=1.0),
    SamplerConfig(steps=4, guidance=3.0, guidance_interval=(0.9, 1.0)),
    SamplerConfig(steps=8, guidance=3.0, video_final_noise=0.8),
    SamplerConfig(steps=16, guidance=3.0, reuse=Reuse(((-1.0, 4),))),
]


@pytest.fixture(scope="module")
def there(model: WorldActionModel) -> WorldActionModel:
    moved = copy.deepcopy(model)
    for part in (moved.transformer, moved.codec, moved.text_encoder):
        part.to("cuda")
    return moved


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("kernels", "graphs"), [("off", "on"), ("on", "off"), ("on", "on")])
def test_fast_is_plain(
    there: WorldActionModel, sampler: SamplerConfig, kernels: str, graphs: str
) -> None:
    """Over the end of a window, twice: captured graphs are replayed for other frames."""
    plain = WorldActionPolicy(
        there, sampler=sampler, engine=EngineConfig(kernels="off", graphs="off")
    )
    config = EngineConfig(kernels=kernels, graphs=graphs)  # type: ignore[arg-type]
    fast = WorldActionPolicy(there, sampler=sampler, engine=config)
    wanted = episode(plain, 6)
    for _ in range(2):
        for a, b in zip(episode(fast, 6), wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


def test_eight_bits_and_offload(there: WorldActionModel) -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no fp8 products below compute capability 8.9")
    own = copy.deepcopy(there)
    engine = Engine(own.transformer, EngineConfig(precision="fp8", keep_originals=False))
    assert engine.errors is not None
    assert 0 < engine.errors.decoded < 0.1
    wanted = episode(WorldActionPolicy(there), 3)
    got = episode(WorldActionPolicy(own, engine=engine), 3)
    assert max(np.abs(a - b).max() for a, b in zip(wanted, got, strict=True)) < 0.2
    assert own.transformer.blocks[0].ffn.net[2].weight.device.type == "cpu"


def test_projections_are_in_memory_once(there: WorldActionModel) -> None:
    own = copy.deepcopy(there)
    first = Engine(own.transformer)
    joined = first.network.layers[0].qkv.weight
    assert own.transformer.blocks[0].attn1.to_q.weight.data_ptr() == joined.data_ptr()
    second = Engine(own.transformer)
    assert second.network.layers[0].qkv.weight.data_ptr() == joined.data_ptr()


def test_more_sessions_than_memory(there: WorldActionModel) -> None:
    engine = Engine(there.transformer, EngineConfig(memory_gib=1e-3))
    with pytest.raises(UserError, match="GiB are left"):
        WorldActionPolicy(there, engine=engine)
