"""Train the small video codec on clips, and measure it on clips it has not seen."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..model.codecs.base import Codec, to_float
from ..model.codecs.tiny import GROUP, STRIDE, TinyCodec
from .config import CodecTraining
from .muon import Muon
from .precision import in_bf16

MOVED = 0.1  # of the range 0..1, any channel


def moving(video: Tensor, previous: bool = True) -> Tensor:
    """Pixels that move: any channel more than 0.1 (of 0..1) away from a reference frame.

    Args:
        video: ``[b, 3, t, h, w]`` in [-1, 1], t = 1 + 4 n.
        previous: the reference is the previous key frame (the last frame before the group of
            four, frames 0, 4, 8 ...); otherwise the clip's first frame.

    Returns:
        bool ``[b, 1, t, h, w]``; false in the first frame.
    """
    reference = video[:, :, :1]
    if previous:
        reference = video[:, :, :-1:GROUP].repeat_interleave(GROUP, dim=2)
    moved = (video[:, :, 1:] - reference).abs().amax(1, keepdim=True) > 2 * MOVED
    return torch.cat([torch.zeros_like(moved[:, :, :1]), moved], 2)


@torch.no_grad()
def measure(
    codec: Codec | _PatchPCA, clips: np.ndarray, noise: float = 0.0, seed: int = 0
) -> dict[str, float]:
    """PSNR in dB (peak: the full range; squared errors pooled over all clips).

    Args:
        clips: uint8 ``[n, t, h, w, 3]``; noise: std of Gaussian noise on the latents.

    Returns:
        ``psnr`` of all pixels, ``psnr_moving`` of those away from the previous key frame,
        ``psnr_changed`` of those away from the first frame (see ``moving``), ``share_moving``.
    """
    generator = torch.Generator().manual_seed(seed)
    sums = np.zeros((3, 2))
    for start in range(0, len(clips), 8):
        video = to_float(clips[start : start + 8])
        latents = codec.encode(video)
        latents = latents + noise * torch.randn(latents.shape, generator=generator)
        error = (codec.decode(latents) - video).square().div_(4)
        every = torch.ones_like(video[:, :1], dtype=torch.bool)
        for row, mask in enumerate((every, moving(video), moving(video, previous=False))):
            sums[row] += float((error * mask).sum()), 3 * float(mask.sum())
    psnr = [-10 * math.log10(max(e, 1e-12) / n) if n else math.nan for e, n in sums]
    share = float(sums[1, 1] / sums[0, 1])
    return dict(zip(("psnr", "psnr_moving", "psnr_changed"), psnr)) | {"share_moving": share}


def train_codec(
    clips: np.ndarray | Iterable[np.ndarray],
    config: CodecTraining | None = None,
    out: Path | str | None = None,
    progress: bool = True,
    start: Path | str | None = None,
    whole: bool = False,
) -> dict[str, Any]:
    """Train a ``TinyCodec`` and write it to the folder ``out``.

    Args:
        clips: uint8 ``[n, t, h, w, 3]`` (a memmap is read piecewise), or an iterable of such.
        out: folder for ``config.json`` and weights; None trains for the figures only.
        start: folder of a codec to go on from; the architecture is that codec's.
        whole: with ``start``, train its encoder too. Otherwise the decoder alone learns, and every
            latent that a model has learnt stays as it is.

    Returns:
        Held-out figures of the codec as stored: those of ``measure``, the same with N(0, 0.1) on
        the latents as ``noisy_*``; seconds, steps, parameters, clips and the configuration.

    Raises:
        UserError: clips too few, too short, of another type, or sides no multiple of 8.
    """
    config = config or CodecTraining()
    train, held = _split(clips, config)
    torch.manual_seed(config.seed)
    if start is not None:
        codec = TinyCodec.from_pretrained(start, torch_dtype=torch.float32)
        codec.encoder.requires_grad_(whole)
        return _finish(codec, train, held, config, out, progress)
    codec = TinyCodec(
        **{
            name: getattr(config, name)
            for name in (
                "latent_channels", "width_half", "width_quarter", "width_eighth", "blocks"
            )
        }
    )  # fmt: skip
    return _finish(codec, train, held, config, out, progress)


def _finish(
    codec: TinyCodec,
    train: np.ndarray,
    held: np.ndarray,
    config: CodecTraining,
    out: Path | str | None,
    progress: bool,
) -> dict[str, Any]:
    """Fit, standardise (unless the encoder is frozen), write and measure."""
    started = time.perf_counter()
    losses = _fit(codec, train, config, progress)
    if _encoder_learns(codec):
        _standardise(codec, train[:: max(1, len(train) // 100)])
    # As stored: what a reader of the folder gets has passed through float16.
    for parameter in codec.parameters():
        parameter.data = parameter.data.half().float()
    if out is not None:
        codec.save_pretrained(out)
    metrics: dict[str, Any] = measure(codec, held)
    noisy = measure(codec, held, noise=0.1)
    metrics |= {f"noisy_{k}": v for k, v in noisy.items() if k.startswith("psnr")}
    return metrics | {
        "loss": float(np.mean(losses[-50:])),
        "seconds": time.perf_counter() - started,
        "parameters": sum(p.numel() for p in codec.parameters()),
        "clips": len(train),
        "held_out_clips": len(held),
        "config": asdict(config),
    }


def _split(
    clips: np.ndarray | Iterable[np.ndarray], config: CodecTraining
) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out clips, by the seed."""
    if not isinstance(clips, np.ndarray):
        pieces = list(clips)
        if not pieces:
            raise UserError("no clips to train a codec on")
        clips = np.concatenate(pieces)
    if clips.ndim != 5 or clips.dtype != np.uint8 or clips.shape[-1] != 3:
        raise UserError(f"clips are uint8 [n, t, h, w, 3], got {clips.dtype} {list(clips.shape)}")
    n, t, h, w, _ = clips.shape
    if n < 2 or t < 1 + GROUP or (t - 1) % GROUP:
        raise UserError(f"a codec needs >= 2 clips of 1 + 4 n frames (n >= 1), got {n} of {t}")
    if h % STRIDE or w % STRIDE:
        raise UserError(f"frames of {h} x {w} px: sides must be multiples of {STRIDE}")
    order = np.random.default_rng(config.seed).permutation(n)
    held = min(config.most_held_out, max(1, round(n * config.held_out)))
    return clips[np.sort(order[held:])], clips[np.sort(order[:held])]


def _sample(
    clips: np.ndarray, config: CodecTraining, whole: bool, rng: np.random.Generator
) -> Tensor:
    """A batch of clips, or of more crops around something that moves ``[b, 3, t, h, w]``."""
    n, t, h, w, _ = clips.shape
    side = min(config.crop, h, w)
    whole = whole or side == 0
    batch = config.batch if whole else config.batch * max(1, h * w // side**2)
    length = 1 + GROUP * min(config.groups, (t - 1) // GROUP)
    picked = []
    for i in rng.integers(n, size=batch):
        start = rng.integers(t - length + 1)
        clip = clips[i, start : start + length]
        if not whole:
            y, x = rng.integers(h), rng.integers(w)
            # One frame against the first is enough to find the place, and cheap.
            frame = clip[rng.integers(1, length)].astype(np.int16)
            spots = np.flatnonzero(np.abs(frame - clip[0]).max(-1) > 255 * MOVED)
            if len(spots) and rng.random() < 0.8:
                y, x = divmod(int(rng.choice(spots)), w)
            top = int(np.clip(y - rng.integers(side), 0, h - side))
            left = int(np.clip(x - rng.integers(side), 0, w - side))
            clip = clip[:, top : top + side, left : left + side]
        picked.append(clip[:, :, ::-1] if rng.random() < 0.5 else clip)
    video = to_float(np.stack(picked))
    shape = (batch, 3, 1, 1, 1)
    gain = 1 + 2 * config.jitter * torch.from_numpy(rng.standard_normal(shape)).float()
    offset = config.jitter * torch.from_numpy(rng.standard_normal(shape)).float()
    return (video * gain + offset).clamp_(-1.0, 1.0)


def _fit(codec: TinyCodec, clips: np.ndarray, config: CodecTraining, progress: bool) -> list[float]:
    """The loop; returns the loss of every step."""
    from tqdm.auto import trange

    codec.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if not _encoder_learns(codec):
        codec.norm.eval()
    learning = [p for p in codec.parameters() if p.requires_grad]
    kernels = [p for p in learning if p.ndim == 4]
    # Muon takes matrices: in channels_last, [out, h * w * in] is a view of the kernel.
    matrices = [nn.Parameter(_matrix(p.detach())) for p in kernels]
    muon = Muon(matrices, lr=config.matrix_lr, weight_decay=0.0)
    biases = [p for p in learning if p.ndim != 4]
    adamw = torch.optim.AdamW(biases, lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0)
    rng = np.random.default_rng(config.seed)
    losses, half = [], in_bf16(config.bf16, torch.device("cpu"))
    bar = trange(config.steps, desc="codec", disable=not progress)
    for step in bar:
        done = step / config.steps
        if done >= 0.8:
            codec.norm.eval()  # the decoder settles on the statistics that it will be used with
        video = _sample(clips, config, done >= 1 - config.whole, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = codec(video, config.noise)
        weight = 1 + config.moving_weight * moving(video)
        loss = ((out.float() - video).square() * weight).mean()
        codec.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learning, 1.0)
        for matrix, kernel in zip(matrices, kernels):
            assert kernel.grad is not None
            matrix.grad = _matrix(kernel.grad)
        rate = min(1.0, (step + 1) / config.warmup) * max(
            0.02, 0.5 + 0.5 * math.cos(math.pi * done)
        )
        for optimiser, peak in ((muon, config.matrix_lr), (adamw, config.lr)):
            optimiser.param_groups[0]["lr"] = peak * rate
            optimiser.step()
        losses.append(loss.item())
        if step % 20 == 0:
            bar.set_postfix(loss=f"{np.mean(losses[-20:]):.4f}")
    codec.eval()
    return losses


def _encoder_learns(codec: TinyCodec) -> bool:
    return any(p.requires_grad for p in codec.encoder.parameters())


def _matrix(kernel: Tensor) -> Tensor:
    """``[out, in, h, w]`` in channels_last -> ``[out, h * w * in]`` without a copy."""
    return kernel.permute(0, 2, 3, 1).flatten(1)


@torch.no_grad()
def _standardise(codec: TinyCodec, clips: np.ndarray) -> None:
    """Measure mean and std of every latent channel and store them in the codec."""
    latents = torch.cat(
        [codec.analyse(to_float(clips[i : i + 8])) for i in range(0, len(clips), 8)]
    ).double()
    codec.latents_mean.copy_(latents.mean((0, 2, 3, 4)))
    codec.latents_std.copy_(latents.std((0, 2, 3, 4)).clamp_min(1e-3))


def pca_baseline(
    clips: np.ndarray, channels: int = 24, config: CodecTraining | None = None
) -> dict[str, float]:
    """Held-out figures of the best linear codec: principal components of 4 x 8 x 8 patches.

    Args:
        clips: uint8 ``[n, t, h, w, 3]``, split as ``train_codec`` does with the same config.

    Returns:
        What ``measure`` returns.
    """
    train, held = _split(clips, config or CodecTraining())
    patches = _PatchPCA.patches(to_float(train[:: max(1, len(train) // 60)]))[0]
    return measure(_PatchPCA(patches[:: max(1, len(patches) // 20000)], channels), held)


class _PatchPCA:
    """Just as much of a codec as ``measure`` calls; latents are ``[b, patches, c]``."""

    def __init__(self, patches: Tensor, channels: int) -> None:
        self.mean = patches.mean(0)
        self.basis = torch.linalg.svd(patches - self.mean, full_matrices=False)[2][:channels]

    @staticmethod
    def patches(video: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """``[b, 3, t, h, w]`` -> rows of 768 numbers, and the shape before they were flattened."""
        video = torch.cat([video[:, :, :1].expand(-1, -1, GROUP - 1, -1, -1), video], 2)
        cut = video.unflatten(4, (-1, STRIDE)).unflatten(3, (-1, STRIDE)).unflatten(2, (-1, GROUP))
        cut = cut.permute(0, 2, 4, 6, 1, 3, 5, 7)
        return cut.flatten(4).flatten(0, 3), tuple(cut.shape)

    def encode(self, video: Tensor) -> Tensor:
        rows, self.shape = self.patches(video)
        return (rows - self.mean) @ self.basis.T

    def decode(self, latents: Tensor) -> Tensor:
        cut = (latents @ self.basis + self.mean).view(self.shape).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return cut.flatten(6).flatten(4, 5).flatten(2, 3)[:, :, GROUP - 1 :].clamp(-1.0, 1.0)
