"""What fp8_linear computes, in plain PyTorch and float32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..adaln.reference import spread


def finish(
    y: Tensor,
    gelu: bool,
    gate: Tensor | None,
    groups: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """What comes after the product and the bias ``y [b, l, n]``, float32; ``gate [b, g, n]``."""
    y = y.float()
    if gelu:
        y = F.gelu(y, approximate="tanh")
    if gate is not None:
        assert groups is not None
        y = y * spread(gate, groups)
    return y if residual is None else residual.float() + y


def fp8_linear(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    gelu: bool,
    gate: Tensor | None,
    groups: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """float32 ``[b, l, n]``."""
    product = (x.float() * x_scale.unsqueeze(-1)) @ (weight.float() * weight_scale[:, None]).t()
    if bias is not None:
        product = product + bias.float()
    return finish(product, gelu, gate, groups, residual)
