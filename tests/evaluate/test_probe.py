"""The probe counts every part, changes nothing and leaves nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamzero.data.reader import Dataset
from dreamzero.evaluate.openloop import predict, recorded
from dreamzero.evaluate.probe import PARTS, Probe, compare_cache
from dreamzero.flow import SamplerConfig
from dreamzero.inference import WorldActionPolicy


@pytest.mark.parametrize(("guidance", "branches"), [(1.0, 1), (3.0, 2)])
def test_counts_and_restores(
    recording: Dataset, policy: WorldActionPolicy, guidance: float, branches: int
) -> None:
    sampler = SamplerConfig(steps=3, guidance=guidance)
    watched = WorldActionPolicy(policy.model, sampler=sampler, dream=True)
    past = recorded(recording, watched.card, 0)
    plain = predict(watched, past)
    with Probe(watched, keep=True) as probe:
        seen = predict(watched, past)
    for a, b in zip(plain, seen, strict=True):
        np.testing.assert_array_equal(a.action, b.action)
    # ``predict`` sends the truth through the codec too: that is not the policy's time.
    assert probe.calls() == {
        "encode": 1, "KV write": 1, "evaluations": 3, "decode": 2
    }  # fmt: skip
    assert len(watched.session.branches) == branches  # both run in one batch
    assert tuple(probe.milliseconds()) == PARTS and min(probe.milliseconds().values()) >= 0
    assert probe.chunk_s > 0 and len(probe.total_s) == 4
    assert len(probe.evaluations) == 3 * 4
    assert probe.evaluations[0].sigma == pytest.approx(0.999)
    assert probe.evaluations[0].clean.shape == probe.evaluations[0].noisy.shape
    for owner, name in (
        (watched, "act"), (watched.session, "evaluate"), (watched.model.codec, "encode_next")
    ):  # fmt: skip
        assert name not in vars(owner)


def test_cache_equals_recomputing(policy: WorldActionPolicy) -> None:
    latents = torch.randn(1, 24, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    model = policy.model
    with torch.inference_mode():
        words = model.text_encoder.encode(["a so101 arm: go right"])
        context = model.transformer.encode_context(words)
        compared = compare_cache(model.transformer, context, latents, repeats=3)
    assert compared.difference < 1e-5
    assert (compared.cached_tokens, compared.new_tokens) == (5 * 16, 2 * 16 + 8 + 1)
    assert len(compared.cached_s) == len(compared.recomputed_s) == 3 and compared.ratio > 0
