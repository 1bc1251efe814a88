"""Signals that tell early whether a training is worth its time: sampled, not teacher-forced.

The loss of a noisy action beside a noisy video of the true future falls while a policy stays useless.
So at every evaluation actions are sampled as a policy would, on held-out episodes, and their error over
the horizon is set against that of an arm that holds its state (1: as good as not moving); and the dreamed
video is set against the true one and against repeating the last frame that was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.mixture import Feed
from ..embodiments import Embodiment
from ..flow import SamplerConfig
from ..model.bundle import WorldActionModel
from ..types import Batch
from .config import TrainSettings
from .distributed import Processes
from .objective import Objective, draw, generators
from .trained import on_device


@dataclass
class OpenLoopSums:
    """Errors of sampled actions and of holding the state, added up; rad, root mean square of joints.

    Attributes:
        error, hold: over all steps of the horizon; error_end, hold_end: at its last step.
    """

    error: float = 0.0
    hold: float = 0.0
    error_end: float = 0.0
    hold_end: float = 0.0
    chunks: int = 0

    def add(self, predicted: np.ndarray, true: np.ndarray, held: np.ndarray) -> None:
        """Joint angles ``[b, k, j]``; ``held [b, 1, j]``."""
        error = np.sqrt(np.square(predicted - true).mean(-1))
        hold = np.sqrt(np.square(held - true).mean(-1))
        self.error += float(error.mean(1).sum())
        self.hold += float(hold.mean(1).sum())
        self.error_end += float(error[:, -1].sum())
        self.hold_end += float(hold[:, -1].sum())
        self.chunks += len(error)

    def row(self) -> dict[str, float]:
        """Ratios and the error itself; empty where nothing was sampled."""
        if not self.chunks or not self.hold:
            return {}
        return {
            "open_loop": self.error / self.hold,
            "open_loop_end": self.error_end / max(self.hold_end, 1e-12),
            "open_loop_rad": self.error / self.chunks,
        }


@dataclass
class Dream:
    """uint8 videos ``[t, h, w, 3]`` of one window: the truth through the codec, and what was dreamed."""

    true: np.ndarray
    dreamed: np.ndarray


class Early:
    """Measures the signals on held-out windows.

    All processes measure the same: under FSDP none can go forward alone.

    Args:
        model: codec, cards and statistics.
        feeds: of all robots.
    """

    def __init__(
        self, model: WorldActionModel, feeds: Sequence[Feed], settings: TrainSettings
    ) -> None:
        self.model, self.settings, self.last = model, settings, feeds[-1]
        flash = settings.stage == "flash"
        self.sampler = (
            SamplerConfig.flash()
            if flash
            else SamplerConfig(steps=settings.sampling_steps, shift=settings.shift, guidance=1.0)
        )
        self.feeds: dict[str, Feed] = {}
        for feed in feeds:
            name = feed.windows.embodiment
            if name not in model.robots or not len(feed.held_out):
                continue
            card = model.robots[name][0]
            if not card.joint_columns()[0] or not bool(
                feed.windows.has_action[feed.held_out].any()
            ):
                continue
            # Short windows begin everywhere in an episode, long ones not near its end.
            best = self.feeds.get(name)
            if best is None or feed.source.blocks < best.source.blocks:
                self.feeds[name] = feed

    def _pieces(self, feed: Feed, count: int, processes: Processes) -> list[Tensor]:
        """Up to ``count`` held-out windows, evenly spread, as many at a time as in training."""
        held = feed.held_out
        pick = torch.linspace(0, len(held) - 1, min(count, len(held))).round().long().unique()
        parts = processes.count * self.settings.accumulate
        return list(held[pick].split(max(1, feed.source.batch // parts)))

    def loss(self, objective: Objective, processes: Processes) -> dict[str, float]:
        """The training loss on held-out windows of the last feed, at fixed noise."""
        feed, sums, count = self.last, torch.zeros(2), 0
        if not len(feed.held_out):
            return {}
        per_block = self.model.transformer.config.frames_per_block
        for index in self._pieces(feed, 4 * max(self.settings.chunks, 1), processes):
            batch = feed.windows.batch(index)
            sources = generators(0, 0, range(count, count + len(index)))
            noise = draw(batch, self.settings, per_block, sources).to(processes.device)
            with_action = bool(feed.windows.has_action[feed.held_out].any())
            losses = objective(batch.to(processes.device), noise, with_action)
            sums += len(index) * torch.stack(losses).float().cpu()
            count += len(index)
        video, action = (sums / count).tolist()
        return {"held_out_video": video, "held_out_action": action}

    def measure(
        self, objective: Objective, processes: Processes
    ) -> tuple[dict[str, float], list[Dream]]:
        """A row of numbers, and dreams of the first robot; with averaged weights in place."""
        row: dict[str, float] = {}
        whole, dreams, errors = OpenLoopSums(), list[Dream](), np.zeros(3)
        for name, feed in self.feeds.items() if self.settings.chunks else ():
            sums, card = OpenLoopSums(), self.model.robots[name][0]
            blocks = self._blocks(card, feed)
            wanted, done = max(1, self.settings.chunks // len(blocks)), 0
            count = min(wanted, len(feed.held_out))
            shown = torch.linspace(0, count - 1, min(self.settings.dreams, count)).round().tolist()
            for index in self._pieces(feed, wanted, processes):
                batch = feed.windows.batch(index).to(processes.device)
                for block in blocks:
                    latents, action = objective.imagine(batch, block, self.sampler, done)
                    self._actions(card, batch, block, action, (sums, whole))
                picked = [i for i in range(len(index)) if done + i in shown]
                done += len(index)
                if picked and latents.shape[2] and name == next(iter(self.feeds)):
                    found, each = self._dreams(batch, blocks[-1], latents, picked, processes.device)
                    errors += each
                    dreams += found
            if len(self.feeds) > 1:
                row |= {f"{key}/{name}": value for key, value in sums.row().items()}
        row |= whole.row()
        if errors[2]:
            row["dream_psnr"], row["still_psnr"] = (
                float(-10 * np.log10(max(e / errors[2], 1e-12))) for e in errors[:2]
            )
        return row, dreams

    @staticmethod
    def _blocks(card: Embodiment, feed: Feed) -> list[int]:
        """How many observed blocks to predict from, one after the other; 0: the newest frame alone."""
        most = feed.source.blocks - 1
        return list(
            range(1 + min(most, most if card.memory_blocks is None else card.memory_blocks))
        )

    def _actions(
        self,
        card: Embodiment,
        batch: Batch,
        block: int,
        action: Tensor,
        sums: Sequence[OpenLoopSums],
    ) -> None:
        columns, anchors = card.joint_columns()
        normalizer = self.model.normalizer(card.name)
        width = card.action_dim
        state = normalizer.unstate(batch.state[:, block, : card.state_dim].cpu().numpy())
        span = slice(block * card.horizon, (block + 1) * card.horizon)
        recorded, mask = batch.action[:, span, :width], batch.action_mask[:, span, :width]
        keep = (batch.has_action & mask.flatten(1).all(1)).cpu().numpy()
        true, predicted = (
            normalizer.unaction(x.float().cpu().numpy(), state)[keep][..., columns]
            for x in (recorded, action[..., :width])
        )
        for each in sums:
            each.add(predicted, true, state[keep][:, None, anchors])

    def _dreams(
        self,
        batch: Batch,
        block: int,
        latents: Tensor,
        picked: Sequence[int],
        device: torch.device,
    ) -> tuple[list[Dream], np.ndarray]:
        """Decoded windows, and squared errors of dream and of repetition (of the range 0 to 1)."""
        from ..model.codecs import to_uint8

        codec = self.model.codec
        start = 1 + block * latents.shape[2]
        found, errors = [], np.zeros(3)
        with on_device([codec], device), torch.no_grad():  # type: ignore[list-item]
            for i in picked:
                true = batch.latents[i : i + 1, :, : start + latents.shape[2]]
                dreamed = torch.cat([true[:, :, :start], latents[i : i + 1].to(true)], dim=2)
                a, b = (to_uint8(codec.decode(x)[0]) for x in (true, dreamed))
                first = 1 + codec.temporal_factor * (start - 1)
                unit = (v.astype(np.float32) / 255 for v in (b[first:], a[first:], a[first - 1]))
                dream, wanted, last = unit
                errors += (
                    np.square(dream - wanted).sum(),
                    np.square(last[None] - wanted).sum(),
                    wanted.size,
                )
                found.append(Dream(a[first - 1 :], b[first - 1 :]))
        return found, errors


GAP_PX = 4


def strip(dreams: Sequence[Dream], columns: int = 8) -> np.ndarray:
    """One picture: for each dream a row of true frames and below it one of dreamed frames.

    The first column is the frame seen last; time runs to the right. uint8 ``[h, w, 3]``.
    """
    rows: list[np.ndarray] = []
    for dream in dreams:
        if rows:  # white between dreams
            rows.append(np.full((GAP_PX, *rows[0].shape[1:]), 255, np.uint8))
        index = np.unique(np.linspace(0, len(dream.true) - 1, columns).round().astype(int))
        for video in (dream.true, dream.dreamed):
            rows.append(np.concatenate([video[i] for i in index], axis=1))
    return np.concatenate(rows, axis=0)


def save_strip(dreams: Sequence[Dream], path: Path, scale: int = 2) -> Path:
    """As a PNG, enlarged without blur; written beside and renamed."""
    from PIL import Image

    image = Image.fromarray(strip(dreams))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    image.save(temporary, format="PNG")
    temporary.replace(path)
    return path
