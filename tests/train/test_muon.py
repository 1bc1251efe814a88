"""Muon against torch's own, which is the reference."""

import pytest
import torch
from torch import nn

from dreamzero.train.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16), (3, 16, 40), (3, 40, 16)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    found = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
    assert found.min() > 0.3 and found.max() < 1.3


def test_one_matrix_or_several_are_turned_alike() -> None:
    torch.manual_seed(0)
    several = torch.randn(4, 12, 20)
    alone = torch.stack([orthogonalized(matrix) for matrix in several])
    torch.testing.assert_close(orthogonalized(several), alone, rtol=1e-4, atol=1e-5)


def test_takes_the_steps_of_torchs_own() -> None:
    torch.manual_seed(0)
    start = [torch.randn(24, 16), torch.randn(16, 24), torch.randn(16, 24)]
    gradients = [[torch.randn_like(p) for p in start] for _ in range(5)]
    ends = []
    for kind in (Muon, torch.optim.Muon):
        parameters = [nn.Parameter(p.clone()) for p in start]
        optimizer = kind(parameters, lr=0.02, weight_decay=0.01)
        for some in gradients:
            for p, g in zip(parameters, some, strict=True):
                p.grad = g.clone()
            optimizer.step()
        ends.append(parameters)
    for a, b, before in zip(*ends, start, strict=True):
        # Torch turns in bfloat16: 8 bits of mantissa.
        assert (a - b).norm() < 0.03 * (b - before).norm()


def test_leaves_alone_what_has_no_gradient_and_refuses_what_is_no_matrix() -> None:
    still, moved = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    optimizer = Muon([still, moved])
    moved.grad = torch.eye(4)
    optimizer.step()
    assert torch.equal(still, torch.ones(4, 4)) and not torch.equal(moved, torch.ones(4, 4))
    with pytest.raises(ValueError, match="matrices"):
        Muon([nn.Parameter(torch.ones(4))])
