"""The transformer's weights laid out for inference: projections joined, 8-bit where asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.blocks import Block
from ..model.transformer import DreamZeroTransformer

GELU = (2 / torch.pi) ** 0.5
# Activations: plain, or as (float8_e4m3fn rows, one float32 scale a row) from a norm that made them so.
Activation = Tensor | tuple[Tensor, Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU's tanh form. On a CPU as the logistic function it equals, which is twice as fast there."""
    if x.device.type != "cpu":
        return F.gelu(x, approximate="tanh")
    y = (x * x).mul_(2 * GELU * 0.044715).add_(2 * GELU)
    return y.mul_(x).sigmoid_().mul_(x)


@dataclass(frozen=True)
class Dense:
    """``x @ weight.T + bias`` in the weights' dtype; weight ``[n, k]``."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Activation, gelu: bool = False) -> Tensor:
        assert isinstance(x, Tensor)
        y = F.linear(x, self.weight, self.bias)
        return gelu_tanh(y) if gelu else y


@dataclass(frozen=True)
class Quantised:
    """The same in 8-bit floats: one scale a row of weights, one a row of activations.

    Off the GPU the values are rounded alike and multiplied in float32: slow, and as exact as there.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    dtype: torch.dtype

    def __call__(self, x: Activation, gelu: bool = False) -> Tensor:
        from dreamzero_kernels.fp8_linear import fp8_linear, quantize_rows

        value, scale = quantize_rows(x) if isinstance(x, Tensor) else x
        return fp8_linear(
            value, scale, self.weight, self.scale, self.bias, gelu=gelu, out_dtype=self.dtype
        )


Linear = Dense | Quantised


@dataclass(frozen=True)
class Layer:
    """One block. ``qkv [3 d, d]`` gives queries, keys and values in this order; ``norm_qk [2, d]``
    has the gains of both RMSNorms."""

    qkv: Linear
    norm_qk: Tensor
    out: Linear
    query: Linear
    norm_query: Tensor
    cross_out: Linear
    norm2: tuple[Tensor, Tensor]
    up: Linear
    down: Linear

    @property
    def fp8(self) -> bool:
        return isinstance(self.qkv, Quantised)


def joined(layers: list[nn.Linear], share: bool) -> nn.Linear:
    """Several layers with one input as one.

    Args:
        share: let the layers' own parameters become views of the joined one, so that the weights
            are in memory once; their values stay.
    """
    weight = _together([layer.weight.detach() for layer in layers])
    bias = _together([layer.bias.detach() for layer in layers])
    if share and weight.data_ptr() != layers[0].weight.data_ptr():
        start = 0
        for layer in layers:
            rows = slice(start, start := start + len(layer.weight))
            layer.weight.data, layer.bias.data = weight[rows], bias[rows]
    made = nn.Linear(weight.shape[1], len(weight), device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.bias = nn.Parameter(bias, requires_grad=False)
    return made


def _together(parts: list[Tensor]) -> Tensor:
    """The parts below one another; without a copy where they lie so already."""
    first, size = parts[0], sum(part.numel() for part in parts)
    ends = [first.data_ptr() + sum(p.nbytes for p in parts[:i]) for i in range(len(parts))]
    storages = {part.untyped_storage().data_ptr() for part in parts}
    whole = first.untyped_storage().nbytes() == size * first.element_size()
    if first.is_cuda and whole and len(storages) == 1 and [p.data_ptr() for p in parts] == ends:
        return first.as_strided((sum(len(p) for p in parts), *first.shape[1:]), first.stride())
    return torch.cat(parts)


def layers_of(transformer: DreamZeroTransformer, fp8: bool, offload: bool = False) -> list[Layer]:
    """Every block's weights; in 8-bit floats, the matrices are copies, else (on a GPU) they are
    the transformer's own.

    Args:
        offload: move what the 8-bit copies replace to main memory, block by block.
    """
    share = transformer.proj_out.weight.is_cuda and not fp8
    layers = []
    for block in cast("list[Block]", list(transformer.blocks)):
        layers.append(_layer(block, fp8, share))
        if fp8 and offload:
            for replaced in _replaced(block):
                replaced.weight.data = replaced.weight.data.cpu()
    return layers


def _replaced(block: Block) -> list[nn.Linear]:
    first, second = block.attn1, block.attn2
    found = [first.to_q, first.to_k, first.to_v, first.to_out[0], second.to_q, second.to_out[0]]
    return cast("list[nn.Linear]", [*found, block.ffn.net[0].proj, block.ffn.net[2]])


def _layer(block: Block, fp8: bool, share: bool) -> Layer:
    def linear(layer: nn.Linear) -> Linear:
        weight = layer.weight.detach()
        bias = None if layer.bias is None else layer.bias.detach()
        if not fp8:
            return Dense(weight, bias)
        from dreamzero_kernels.fp8_linear import quantize_rows

        value, scale = quantize_rows(weight)
        return Quantised(value, scale, bias, weight.dtype)

    first, second = block.attn1, block.attn2
    norm_qk = torch.stack([first.norm_q.weight, first.norm_k.weight]).detach()
    return Layer(
        qkv=linear(joined([first.to_q, first.to_k, first.to_v], share)),
        norm_qk=norm_qk,
        out=linear(cast(nn.Linear, first.to_out[0])),
        query=linear(second.to_q),
        norm_query=second.norm_q.weight.detach(),
        cross_out=linear(cast(nn.Linear, second.to_out[0])),
        norm2=(block.norm2.weight.detach(), block.norm2.bias.detach()),
        up=linear(block.ffn.net[0].proj),
        down=linear(block.ffn.net[2]),
    )
