"""A block's parts on ``dreamzero_kernels``: Triton on a GPU, its plain references elsewhere."""

from __future__ import annotations

from dreamzero_kernels.adaln import adaln, adaln_fp8
from dreamzero_kernels.cached_attention import HEAD_DIMS, cached_attention
from dreamzero_kernels.common import choose
from dreamzero_kernels.cross_attention import cross_attention
from dreamzero_kernels.gated_residual_norm import gated_residual_norm, gated_residual_norm_fp8
from dreamzero_kernels.qk_norm_rope import qk_norm_rope, rms_norm
from torch import Tensor

from ..model.blocks import ContextKV
from .ops import Context, Layout, PlainOps, attend_context
from .weights import Activation, Layer


class KernelOps:
    """``dreamzero_kernels``: Triton on a GPU, its plain references elsewhere."""

    unit = 0.0

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def modulate(
        self, x: Tensor, scale: Tensor, shift: Tensor, at: Layout, fp8: bool
    ) -> Activation:
        norm = adaln_fp8 if fp8 else adaln
        return norm(x, _rows(scale, x), _rows(shift, x), at.groups, self.eps)

    def residual(
        self,
        x: Tensor,
        y: Tensor,
        gate: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        at: Layout,
        fp8: bool,
    ) -> tuple[Tensor, Activation]:
        gate = None if gate is None else _rows(gate, x)
        scale, shift = _rows(scale, x), _rows(shift, x)
        if fp8:
            total, *rows = gated_residual_norm_fp8(x, y, gate, scale, shift, at.groups, self.eps)
            return total, (rows[0], rows[1])
        return gated_residual_norm(x, y, gate, scale, shift, at.groups, self.eps)

    def operands(
        self, qkv: Tensor, layer: Layer, at: Layout, keys: Tensor, values: Tensor
    ) -> Tensor:
        q, k, v = qkv.chunk(3, dim=-1)
        gain_q, gain_k = layer.norm_qk
        return qk_norm_rope(q, k, v, gain_q, gain_k, at.rope, keys, values, at.offset, self.eps)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, at: Layout) -> Tensor:
        if q.shape[-1] not in HEAD_DIMS:  # toy models
            return PlainOps(self.eps).attend(q, keys, values, at)
        # A library takes the number (a graph belongs to one position), the kernel reads the tensor.
        library = choose("cached_attention", q, "auto", library=True) == "library"
        return cached_attention(q, keys, values, at.cached if library else at.offset)

    def prepare(self, layer: Layer, context: ContextKV) -> Context:
        """Nothing: the kernel reads keys and values."""
        return context

    def cross(self, query: Tensor, layer: Layer, context: Context) -> Tensor:
        assert isinstance(context, ContextKV)
        q = rms_norm(query, layer.norm_query, self.eps).unflatten(-1, context.text[0].shape[2:])
        if q.shape[-1] not in HEAD_DIMS:
            return layer.cross_out(attend_context(q, context).flatten(2))
        return layer.cross_out(cross_attention(q, context.text, context.image).flatten(2))


def _rows(table: Tensor, x: Tensor) -> Tensor:
    """A table ``[1, g, d]`` for every row of the batch; an affine norm's ``[d]`` as it is."""
    return table if table.ndim == 1 else table.expand(len(x), -1, -1)
