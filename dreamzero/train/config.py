"""Settings of a training run; every field can be changed with ``--set train.name=value``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..errors import UserError


@dataclass(frozen=True)
class Source:
    """One kind of batch; the loop takes the kinds in turn.

    Attributes:
        blocks: blocks a window. Windows of one block train the first chunk, which decides most.
        batch: windows a batch.
        stride: action steps between window starts; 0 means one block.
        idle: windows of which more than half the blocks move less than this share of the range are
            left out; 0 keeps all.
        begin: share of a batch that is drawn from the first window of each episode, where the
            instruction alone says which way to go. The rest is drawn from all windows.
    """

    blocks: int = 4
    batch: int = 16
    stride: int = 0
    idle: float = 0.0
    begin: float = 0.0


@dataclass(frozen=True)
class TrainSettings:
    """The loop.

    Attributes:
        steps: optimiser steps.
        trained: "all" of the transformer (and of a small model's word encoder); the action and state
            "coders" alone; or "lora": pairs of low rank beside q k v o and both ffn matrices of
            every block, and the coders whole, as the release fine-tunes. Both need a model to start
            from. "all" and "coders" write a policy, "lora" writes an adapter, which
            `dreamzero checkpoint merge-lora` adds to its base.
        lora_rank, lora_alpha: of the pairs; their product counts alpha / rank. The release has 4
            and 4.
        full, first: the two kinds of batch; ``first.batch = 0`` leaves the second out.
        matrix_lr: Muon's rate for the blocks' matrices; lr: AdamW's for everything else, which
            counts the pairs of "lora". The defaults are for training from scratch.
        warmup: steps of linear warm-up; then a cosine to ``final_lr`` of the peak.
        weighting: "bell" is the release's (zero at pure noise); "uniform" weighs all noise alike,
            which few-step sampling from pure noise needs.
        shift: flow shift of the training schedule.
        pure: share of blocks at pure noise (see ``CoupledNoise``); a small model learns to follow
            instructions many times sooner with some.
        action_scale: factor of the action loss.
        first_frame: train on the noisy first frame as the release does.
        prompt_dropout: share of samples that see an empty prompt (for guidance).
        ema: decay of the averaged weights, which are what is saved.
        clip: gradient norm.
        bf16, compile: speed on CPUs with AVX512-BF16 and on GPUs; the loss curve stays.
        validation: share of the episodes held out.
        evaluate_every, log_every, save_every: steps.
    """

    steps: int = 3000
    trained: Literal["all", "coders", "lora"] = "all"
    lora_rank: int = 4
    lora_alpha: float = 4.0
    full: Source = field(default_factory=Source)
    first: Source = field(default_factory=lambda: Source(blocks=1, batch=48))
    matrix_lr: float = 0.02
    lr: float = 1.5e-3
    weight_decay: float = 0.01
    warmup: int = 100
    final_lr: float = 0.02
    weighting: Literal["bell", "uniform"] = "uniform"
    shift: float = 5.0
    pure: float = 0.0
    action_scale: float = 1.0
    first_frame: bool = False
    prompt_dropout: float = 0.05
    ema: float = 0.998
    clip: float = 1.0
    bf16: bool = True
    compile: bool = False
    validation: float = 0.02
    evaluate_every: int = 500
    log_every: int = 10
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lora_rank < 1 or self.lora_alpha <= 0:
            raise UserError(
                f"train.lora_rank {self.lora_rank} and train.lora_alpha {self.lora_alpha:g} must "
                "be positive; the release has 4 and 4"
            )
