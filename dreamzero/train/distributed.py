"""One code path for a CPU, a GPU, several of them (DDP or FSDP2) and several machines.

accelerate finds out where this process is (`accelerate launch`, `torchrun` or neither) and connects it
with the others; torch's ``fully_shard`` divides the weights, because accelerate offers its own on
GPUs alone and what is sharded should be tested where there are none. A step's batch is one for all
processes: each takes its rows, and sums of errors are divided by the whole batch's counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..errors import UserError
from .config import TrainSettings
from .objective import Objective
from .precision import in_bf16


class Processes:
    """The processes of one training.

    Args:
        device: "cpu", "cuda" or "cuda:i"; with several processes each takes its own GPU.

    Attributes:
        count, rank: how many, and which this one is; main: whether it writes and speaks.
        local: how many of them are on this machine.
        device: of this process; sharded: whether the weights are divided.

    Raises:
        UserError: accelerate is not installed.
    """

    def __init__(self, device: str, settings: TrainSettings) -> None:
        try:
            from accelerate import Accelerator, InitProcessGroupKwargs
            from accelerate.state import AcceleratorState, PartialState
        except ImportError as error:
            raise UserError("training needs accelerate: pip install 'dreamzero[train]'") from error
        cpu = torch.device(device).type == "cpu"
        known = PartialState._shared_state.get("device")
        if known is not None and (known.type == "cpu") != cpu:
            # accelerate keeps the first device of a process for good; a second training may differ.
            AcceleratorState._reset_state(reset_partial_state=True)
        # Mixed precision is the objective's own autocast. While one process trains a codec or
        # encodes windows, the others wait.
        patient = InitProcessGroupKwargs(timeout=timedelta(hours=12))
        self.accelerator = Accelerator(
            cpu=cpu, mixed_precision="no", kwargs_handlers=[patient], device_placement=False
        )
        self.count, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.main = self.rank == 0
        self.local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        own = self.accelerator.device if self.count > 1 else torch.device(device)
        self.device = torch.device("cpu") if cpu else own
        self.settings = settings
        self.sharded = settings.sharding == "full"
        if self.sharded and self.count == 1:
            raise UserError(
                "train.sharding=full divides a model among processes and there is one: start it with "
                "`torchrun --nproc_per_node N -m dreamzero train ...`, or leave it out"
            )

    def wrap(
        self, objective: Objective, ready: Callable[[nn.Module], None], unused: bool = False
    ) -> nn.Module:
        """The objective where and how it is trained.

        Args:
            ready: called on each part before it is divided (makes trained weights float32), so that
                the whole model is never there twice.
            unused: whether some steps leave weights out (video without actions).
        """
        if not self.sharded:
            ready(objective)
            objective.to(self.device)
            if self.count == 1:
                return objective
            from accelerate import DistributedDataParallelKwargs

            self.accelerator.ddp_handler = DistributedDataParallelKwargs(
                find_unused_parameters=unused, gradient_as_bucket_view=True
            )
            return self.accelerator.prepare_model(objective)  # type: ignore[no-any-return]
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import (
            MixedPrecisionPolicy,
            fully_shard,
            register_fsdp_forward_method,
        )

        half = torch.bfloat16 if in_bf16(self.settings.bf16, self.device) else None
        # Inputs stay as they are: timesteps up to 1000 are no numbers for 8 bits of mantissa.
        policy = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False)
        mesh = init_device_mesh(self.device.type, (self.count,))
        for block in objective.transformer.blocks:
            ready(block)
            fully_shard(block, mesh=mesh, mp_policy=policy)
        ready(objective)
        fully_shard(objective, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        register_fsdp_forward_method(objective, "imagine")
        return objective

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through the block, then the others do and find what it left.

        On a CPU it has the threads of those that wait.
        """
        if not self.main:
            self.wait()
            yield
            return
        threads = torch.get_num_threads()
        if self.device.type == "cpu":
            torch.set_num_threads(threads * self.local)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
        self.wait()

    @property
    def cut(self) -> Callable[[int], list[list[int]]]:
        """See ``cut``; without this object, so that other processes may have it."""
        return partial(cut, count=self.count, rank=self.rank, accumulate=self.settings.accumulate)

    def hold(self, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Around all but the last piece: gradients are added up here before they travel.

        Sharded ones travel after each piece: kept whole they would be as large as the model.
        """
        alone = last or self.sharded or self.count == 1
        return nullcontext() if alone else self.accelerator.no_sync(module)

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        if self.count == 1:
            return [float(v) for v in values]
        found = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        return list(self.accelerator.reduce(found, "sum").tolist())

    def gather(self, value: Any) -> list[Any]:
        """One object from each process."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until all are here."""
        self.accelerator.wait_for_everyone()

    def raise_together(self, problem: UserError | None) -> None:
        """One process's problem ends all of them: the main one says it, the others leave quietly."""
        found = [text for text in self.gather(problem and str(problem)) if text]
        if found:
            raise UserError(found[0]) if self.main else SystemExit(2)


def cut(rows: int, count: int, rank: int, accumulate: int) -> list[list[int]]:
    """Places in a batch of one of ``count`` processes, cut into what it computes at a time.

    Raises:
        UserError: fewer samples than pieces.
    """
    parts = count * accumulate
    if rows < parts:
        raise UserError(
            f"a batch of {rows} cannot be cut into {parts} pieces ({count} processes, "
            f"train.accumulate={accumulate}): make train.full.batch and train.first.batch larger, or "
            "the pieces fewer"
        )
    pieces = torch.arange(rows).tensor_split(parts)
    return [piece.tolist() for piece in pieces[rank * accumulate :][:accumulate]]


def whole(tensor: Tensor) -> Tensor:
    """A tensor in its whole shape, without sharding; all processes have to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def norm_of(gradients: Sequence[Tensor]) -> Tensor:
    """Norm of some gradients together, over all processes; a scalar."""
    return whole(torch.nn.utils.get_total_norm(gradients))


def group_of(name: str) -> str:
    """Which part of the network a parameter belongs to, for gradient norms."""
    for mark, group in {
        ".attn1.": "attention", ".attn2.": "cross_attention", ".ffn.": "ffn",
        "action_": "actions", "state_encoder": "states",
    }.items():  # fmt: skip
        if mark in name:
            return group
    return "rest"


def gradient_norms(parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """Gradient norm of every part of the network that has one."""
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            groups.setdefault(group_of(name), []).append(parameter.grad)
    return {f"gradient/{name}": norm_of(found).item() for name, found in sorted(groups.items())}
