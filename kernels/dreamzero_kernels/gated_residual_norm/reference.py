"""What gated_residual_norm computes, in plain PyTorch and float32."""

from __future__ import annotations

from torch import Tensor

from ..adaln.reference import modulated, normalise, quantize, spread


def gated_residual_norm(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    gain: Tensor,
    offset: Tensor,
    groups: Tensor | None,
    eps: float,
    quantized: bool,
) -> tuple[Tensor, ...]:
    """(sum, its norm ``[b, l, d]``, and quantised its row scales ``[b, l]``) of ``x, y [b, l, d]``.

    ``gain, offset`` are ``[d]`` (affine norm) or ``[b, g, d]`` (modulation); ``gate [b, g, d]``.
    """
    branch = y.float()
    if gate is not None:
        assert groups is not None
        branch = branch * spread(gate, groups)
    # Rounded before the norm reads it: the next operation starts from the stored value as well.
    total = (x.float() + branch).to(x.dtype)
    if gain.ndim == 1:
        normed = normalise(total, eps) * gain.float() + offset.float()
    else:
        assert groups is not None
        normed = modulated(total, gain, offset, groups, eps)
    return (total, *(quantize(normed) if quantized else (normed.to(x.dtype),)))
