"""Settings of a training run; the command line changes any with ``--set GROUP.NAME=VALUE``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ..errors import UserError

# Where a run keeps what it can be resumed from: a folder a checkpoint, and the name of the last good one.
CHECKPOINTS = "checkpoints"
LATEST = "latest"


# Matrices that may get a pair of low rank, in the release's words -> our modules within a block.
LORA_TARGETS = {
    "q": r"attn[12]\.to_q",
    "k": r"attn[12]\.to_k",
    "v": r"attn[12]\.to_v",
    "o": r"attn[12]\.to_out\.0",
    "ffn.0": r"ffn\.net\.0\.proj",
    "ffn.2": r"ffn\.net\.2",
    "k_img": r"attn2\.add_k_proj",
    "v_img": r"attn2\.add_v_proj",
}


@dataclass(frozen=True)
class Source:
    """One kind of batch; the loop takes the kinds in turn.

    Attributes:
        blocks: blocks a window. Windows of one block train the first chunk, which decides most.
        batch: windows a batch.
        stride: action steps between window starts; 0 means one block, -1 one block or less: half of
            it, and so on, until there are 256 windows.
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
    """The loop. What a step sees and does depends on these, and not on how many processes do it.

    Attributes:
        steps: optimiser steps.
        trained: "all" of the transformer (and of a small model's word encoder); the action and state
            "coders" alone; or "lora": pairs of low rank beside q k v o and both ffn matrices of
            every block, and the coders whole, as the release fine-tunes. Both need a model to start
            from. "all" and "coders" write a policy, "lora" writes an adapter, which
            `dreamzero checkpoint merge-lora` adds to its base.
        lora_rank, lora_alpha: of the pairs; their product counts alpha / rank. The release has 4
            and 4.
        lora_targets: which matrices get one: q k v o (of both attentions), ffn.0 and ffn.2 as in the
            release; k_img and v_img would be more.
        stage: "coupled" noise, shared by a block's video and actions; or "flash", which starts from
            a trained model and teaches it to act in one step of denoising (``FlashNoise``).
        dream, objective: of the transformer (``model.transformer``); empty keeps those of the model
            it starts from, or the world action model's.
        timesteps: of a block's video and actions: "shared", as the paper has it, or "independent".
        full, first: the two kinds of batch, taken in turn; ``first.batch = 0`` leaves the second
            out. A batch is what all processes see together in one step.
        shuffle: "windows" draws each window for itself, with replacement; "episodes" draws those of a
            few episodes at a time, each once an epoch: for recordings that are read from disk or video.
        open_episodes: of "episodes": how many windows are mixed from at a time, in each of four lanes
            that take the steps in turn.
        reading: where windows are read from. "memory": encoded once, all kept; "cache": encoded
            once, read from disk; "video": decoded and encoded at every step; "auto": memory if they fit
            into ``memory_gb``, else cache. All take the same steps.
        workers: processes that read, of each training process; 0 reads in a thread. One, two or four
            decode no episode twice.
        memory_gb: what encoded windows, or decoded frames, may take on this machine; 0: a quarter of
            what is free.
        augment: how much videos are varied, as a share of the release's recipe (crops to 95 %, colours):
            1 is all, 0 nothing. With "video" only.
        accumulate: pieces each process cuts its share of a batch into: less memory, same step.
        optimizer: "muon" takes the blocks' matrices and AdamW the rest; "adamw" takes all. Muon
            turns whole matrices: where they are sharded, every product of its iteration is a
            conversation, so that large models are better off with AdamW.
        matrix_lr: Muon's rate; lr: AdamW's, which counts the pairs of "lora". The defaults are
            for training from scratch.
        warmup: steps of linear warm-up; then a cosine to ``final_lr`` of the peak.
        weighting: "bell" is the release's (zero at pure noise); "uniform" weighs all noise alike,
            which few-step sampling from pure noise needs.
        shift: flow shift of the training schedule.
        pure: share of blocks at pure noise (see ``CoupledNoise``).
        action_scale: factor of the action loss.
        first_frame: train on the noisy first frame as the release does.
        prompt_dropout: share of samples that see an empty prompt (for guidance).
        ema: decay of the averaged weights, which are what is saved.
        clip: gradient norm.
        bf16: where it is fast (``precision.in_bf16``); compile: fused passes. The loss curve stays.
        sharding: "none", every process has the whole model (DDP); "full", weights, gradients,
            optimiser and average are divided among them (FSDP2).
        recompute: activations thrown away in the forward pass and computed again in the backward
            pass: "none"; "selective", all but products and attention; "full", all of a block.
        recompute_every: of so many blocks, one.
        validation: share of the episodes held out.
        evaluate_every, log_every, save_every: steps; keep: checkpoints that stay.
        chunks: held-out chunks that actions are sampled for at every evaluation; 0 samples none.
        dreams: of these, how many are decoded and shown beside the truth.
        sampling_steps: of the solver, in these evaluations.
        tensorboard: also write its event files, where it is installed.
    """

    steps: int = 1200
    trained: Literal["all", "coders", "lora"] = "all"
    lora_rank: int = 4
    lora_alpha: float = 4.0
    lora_targets: tuple[str, ...] = ("q", "k", "v", "o", "ffn.0", "ffn.2")
    stage: Literal["coupled", "flash"] = "coupled"
    dream: Literal["", "seen", "apart", "none"] = ""
    objective: Literal["", "flow", "regression", "diffusion"] = ""
    timesteps: Literal["shared", "independent"] = "shared"
    full: Source = field(default_factory=lambda: Source(stride=-1))
    first: Source = field(default_factory=lambda: Source(blocks=1, batch=48, stride=-1))
    shuffle: Literal["windows", "episodes"] = "windows"
    open_episodes: int = 8
    reading: Literal["auto", "memory", "cache", "video"] = "auto"
    workers: int = 0
    memory_gb: float = 0.0
    augment: float = 0.0
    accumulate: int = 1
    optimizer: Literal["muon", "adamw"] = "muon"
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
    sharding: Literal["none", "full"] = "none"
    recompute: Literal["none", "selective", "full"] = "none"
    recompute_every: int = 1
    validation: float = 0.1
    evaluate_every: int = 100
    log_every: int = 10
    save_every: int = 500
    keep: int = 2
    chunks: int = 32
    dreams: int = 2
    sampling_steps: int = 4
    tensorboard: bool = True
    seed: int = 0

    # What may differ when a run is resumed: rates, which a run that diverged needs lower, and what
    # decides where and when things are done, not what.
    FREE: ClassVar = frozenset(
        [
            "steps",
            "lr",
            "matrix_lr",
            "clip",
            "reading",
            "workers",
            "memory_gb",
            "accumulate",
            "compile",
            "sharding",
            "recompute",
            "recompute_every",
            "evaluate_every",
            "log_every",
            "save_every",
            "keep",
            "chunks",
            "dreams",
            "sampling_steps",
            "tensorboard",
        ]
    )

    def __post_init__(self) -> None:
        if self.lora_rank < 1 or self.lora_alpha <= 0:
            raise UserError(
                f"train.lora_rank {self.lora_rank} and train.lora_alpha {self.lora_alpha:g} must "
                "be positive; the release has 4 and 4"
            )
        unknown = [target for target in self.lora_targets if target not in LORA_TARGETS]
        if unknown or not self.lora_targets:
            raise UserError(
                f"train.lora_targets={','.join(self.lora_targets)}: choose from "
                f"{', '.join(LORA_TARGETS)}"
            )
        counts = "steps open_episodes accumulate recompute_every evaluate_every log_every save_every keep"
        for name in (*counts.split(), "sampling_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name}={getattr(self, name)}: must be at least 1")
        for name in ("workers", "memory_gb", "augment"):
            if getattr(self, name) < 0:
                raise UserError(f"train.{name}={getattr(self, name):g}: must be at least 0")
        if self.augment > 1:
            raise UserError(
                f"train.augment={self.augment:g}: must be at most 1, the release's recipe"
            )
        if self.objective in ("regression", "diffusion") and self.dream != "none":
            raise UserError(
                f"train.objective={self.objective} predicts actions alone: add train.dream=none"
            )
        if self.stage == "flash" and self.pure > 0:
            raise UserError(
                f"train.pure={self.pure:g} is of coupled noise; leave it out with train.stage=flash"
            )


@dataclass(frozen=True)
class CodecTraining:
    """Architecture and recipe; the defaults take five minutes of one core at 64 x 64.

    Attributes:
        init: model whose codec is the beginning, if it has this architecture; a folder or a shipped
            model's name. Empty: noise, which needs thousands of steps.
        latent_channels, width_half, width_quarter, width_eighth, blocks: see ``TinyCodec``.
        steps: optimiser steps.
        batch: clips of full size a step; of crops there are as many more as they are smaller.
        groups: latents a clip besides the first.
        crop: side of the square cut out around something that moves, px; 0 trains on whole frames.
        whole: share of the steps, at the end, on whole frames.
        moving_weight: extra weight of the pixels that move (``moving``).
        noise: std of Gaussian noise on the unit-variance latents: small errors must stay small.
        jitter: std of the random gain, and twice that of the offset, of each colour channel.
        matrix_lr: Muon's rate for the kernels as matrices; lr: AdamW's for biases.
        bf16: where it is fast, twice as fast (``precision.in_bf16``).
        held_out: share of the clips for measuring, at most ``most_held_out``.
    """

    init: str = "tiny_so101"
    latent_channels: int = 24
    width_half: int = 64
    width_quarter: int = 64
    width_eighth: int = 160
    blocks: int = 1
    steps: int = 800
    batch: int = 8
    groups: int = 4
    crop: int = 32
    whole: float = 0.3
    moving_weight: float = 10.0
    noise: float = 0.1
    jitter: float = 0.1
    matrix_lr: float = 0.02
    lr: float = 2e-3
    warmup: int = 100
    bf16: bool = True
    held_out: float = 0.1
    most_held_out: int = 40
    seed: int = 0
