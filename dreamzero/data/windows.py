"""Training samples: a first frame and n blocks, cut from recordings at the card's rates.

For a window that starts at time T (a row's timestamp), frame i is shown at T + i / video_hz, action j is
commanded at T + j / action_hz, and the state of block b is measured at T + b * block_s, the time of the block's
first action. Video and state take the row nearest in time; actions see ``resample.actions_at``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch.utils import data

from ..embodiments import Embodiment
from ..embodiments.layout import view_sizes
from ..errors import UserError
from .canvas import Augmentation, augment, compose, resize
from .frames import FrameCache
from .normalize import Normalizer, Statistics, compute
from .reader import Dataset
from .resample import actions_at, nearest, select, validate

_SLACK_S = 1e-3


@dataclass(frozen=True)
class Window:
    """One sample of n blocks.

    Attributes:
        video: uint8 ``[1 + n * frames per block, H, W, 3]``, the canvas.
        action: float32 ``[n * k, a]`` normalised, zero where ``has_action`` is false.
        state: float32 ``[n, s]`` normalised, at each block's first step; zero where not recorded.
        action_mask: bool ``[n * k, a]``, false on steps past the recording's end.
        frame_mask: bool ``[t]``, false on frames past the recording's end (the last one, held).
        has_action: false for video-only recordings.
        prompt: the card's template, filled in.
        dataset, episode, start_row: where it was cut.
    """

    video: np.ndarray
    action: np.ndarray
    state: np.ndarray
    action_mask: np.ndarray
    frame_mask: np.ndarray
    has_action: bool
    prompt: str
    dataset: int
    episode: int
    start_row: int


@dataclass
class WindowBatch:
    """Several windows of one robot and one length, as tensors.

    Attributes:
        video: uint8 ``[b, t, H, W, 3]``; action float32 ``[b, n * k, a]``; state ``[b, n, s]``;
            action_mask bool like action; has_action bool ``[b]``; the others as in ``Window``.
        embodiment: name of the card.
    """

    video: torch.Tensor
    action: torch.Tensor
    state: torch.Tensor
    action_mask: torch.Tensor
    frame_mask: torch.Tensor
    has_action: torch.Tensor
    prompt: list[str]
    embodiment: str

    def pin_memory(self) -> WindowBatch:
        """For faster copies to a GPU; torch's DataLoader calls it."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {k: v.pin_memory() for k, v in tensors.items() if isinstance(v, torch.Tensor)}
        return replace(self, **tensors)


class WindowDataset(data.Dataset[Window]):
    """All windows of some recordings of one robot, as a map-style torch dataset.

    Frames that were decoded are kept as long as they fit into ``cache_mb``, at their size on the canvas
    (as stored, where they are augmented). Windows of one episode share most of theirs, so taking
    an episode's windows one after the other, in any order, decodes each frame once (``warm``).

    Args:
        datasets: recordings of the robot the card describes.
        card: views, rates, fields, prompt.
        statistics: for normalising; computed from ``datasets`` where None and there are actions.
        blocks: blocks a window (1 to card.blocks, which is the default).
        stride: action steps between the starts of two windows; one block by default. A window
            may run past the end by less than a block.
        idle: a block is idle when no action dimension moves by more than this share of its
            range; windows of which more than half the blocks are idle are left out. 0: off.
        augmentation: varies the video of each sample; None: off.
        seed: of the augmentation; sample i of epoch e is always the same (``set_epoch``).
        cache_mb: decoded frames kept in each process.

    Attributes:
        normalizer: None where nothing is recorded to normalise.
        notes: what was left out, and the normaliser's notes.

    Raises:
        UserError: the card does not fit the recordings, or no window fits into them; later, that
            video cannot be decoded or that numbers are not finite, and where.
    """

    def __init__(
        self,
        datasets: Dataset | Sequence[Dataset],
        card: Embodiment,
        statistics: Statistics | None = None,
        *,
        blocks: int | None = None,
        stride: int | None = None,
        idle: float = 0.0,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache_mb: float = 512,
    ) -> None:
        self.datasets = [datasets] if isinstance(datasets, Dataset) else list(datasets)
        self.card = card
        self.blocks = card.blocks if blocks is None else blocks
        self.stride = card.horizon if stride is None else stride
        self.idle = idle
        self.augmentation, self.seed, self.epoch = augmentation, seed, 0
        self.frames = FrameCache(cache_mb)
        self.notes: list[str] = []
        if not 1 <= self.blocks <= card.blocks:
            raise UserError(f"blocks is {self.blocks}; card {card.name} allows 1 to {card.blocks}")
        if self.stride < 1:
            raise UserError(f"stride is {self.stride}; it must be at least 1 action step")
        for d in self.datasets:
            self._fits(d)
        self.normalizer = self._normalizer(statistics)
        if self.normalizer is not None:
            self.notes += self.normalizer.notes
        self._sizes = view_sizes(card.layout, len(card.views), card.canvas_px)
        self._index: list[tuple[int, int, float]] = []
        self._collect()

    def __len__(self) -> int:
        return len(self._index)

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from here on."""
        self.epoch = epoch

    def place(self, index: int) -> tuple[int, int, float]:
        """(dataset, episode, start in seconds) of a window, without reading it."""
        return self._index[index]

    def shard(self, index: int) -> tuple[int, int]:
        """(dataset, episode): windows with the same one lie together on disk."""
        return self._index[index][:2]

    def __getitem__(self, index: int) -> Window:
        """The window of that number, a few milliseconds at 64 x 64."""
        return self.get(index, self.epoch)

    def get(self, index: int, epoch: int = 0) -> Window:
        """The window of that number, augmented as in that epoch."""
        which, episode, start = self._index[index]
        dataset, card = self.datasets[which], self.card
        times = dataset.rows(episode)["timestamp"]
        shown = self.shown(index)
        views = [self._view(which, episode, i, shown) for i in range(len(card.views))]
        if self.augmentation is not None:
            rng = np.random.default_rng((self.seed, epoch, index))
            views = augment(views, self.augmentation, rng)
        action, state, mask, has_action = self.vectors(index)
        return Window(
            video=compose(views, card.layout, card.canvas_px),
            action=action,
            state=state,
            action_mask=mask,
            frame_mask=self._within(times, self._frame_times(start)),
            has_action=has_action,
            prompt=self.prompt(index),
            dataset=which,
            episode=episode,
            start_row=self.start_row(index),
        )

    def batch(self, indices: Sequence[int], epochs: Sequence[int] | None = None) -> WindowBatch:
        """Several windows at once; ``epochs`` (of the augmentation) default to the present one."""
        epochs = [self.epoch] * len(indices) if epochs is None else epochs
        windows = [self.get(i, e) for i, e in zip(indices, epochs, strict=True)]

        def stacked(name: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([getattr(w, name) for w in windows]))

        names = ("video", "action", "state", "action_mask", "frame_mask")
        return WindowBatch(
            **{name: stacked(name) for name in names},
            has_action=torch.tensor([w.has_action for w in windows]),
            prompt=[w.prompt for w in windows],
            embodiment=self.card.name,
        )

    def variant(
        self, augmentation: Augmentation | None = None, seed: int = 0, cache_mb: float = 512
    ) -> WindowDataset:
        """The same windows with other augmentation and decoded frames of its own."""
        other = copy.copy(self)
        other.augmentation, other.seed = augmentation, seed
        other.frames = FrameCache(cache_mb)
        return other

    def warm(self, shard: tuple[int, int], indices: Sequence[int]) -> None:
        """Decode once, in the order of the files, what windows of one shard show."""
        which, episode = shard
        rows = np.unique(np.concatenate([self.shown(i) for i in indices]))
        for i in range(len(self.card.views)):
            self._view(which, episode, i, rows)

    def shown(self, index: int) -> np.ndarray:
        """int64 ``[t]``: the rows whose frames a window shows."""
        which, episode, start = self._index[index]
        times = self.datasets[which].rows(episode)["timestamp"]
        return nearest(times, self._frame_times(start))

    def start_row(self, index: int) -> int:
        """The row of the episode that a window begins with."""
        which, episode, start = self._index[index]
        times = self.datasets[which].rows(episode)["timestamp"]
        return int(nearest(times, np.array([start]))[0])

    def prompt(self, index: int) -> str:
        """What the text encoder is given for a window."""
        return self.instruction(self.shard(index))

    def instruction(self, shard: tuple[int, int]) -> str:
        """What the text encoder is given for the windows of an episode."""
        which, episode = shard
        return self.card.render_prompt(self.datasets[which].episode(episode).task)

    def acts(self, which: int) -> bool:
        """Whether the windows of a recording have actions."""
        dataset, card = self.datasets[which], self.card
        if self.normalizer is None or (card.state_dim and not dataset.state_names):
            return False
        return card.has_action and dataset.has_action

    def _frame_times(self, start: float) -> np.ndarray:
        frames = 1 + self.blocks * self.card.frames_per_block
        return start + np.arange(frames) / self.card.video_hz

    def _view(self, which: int, episode: int, number: int, rows: np.ndarray) -> np.ndarray:
        """Frames of one view for these rows, as the canvas wants them; decoded or remembered."""
        view, size = self.card.views[number], self._sizes[number]

        def decode(missing: np.ndarray) -> Iterator[np.ndarray]:
            # A few at a time: at the size they are stored in they may be many times larger.
            for start in range(0, len(missing), 32):
                rows = missing[start : start + 32]
                try:
                    clip = self.datasets[which].frames(episode, view, rows)
                except (UserError, MemoryError):
                    raise
                except Exception as error:
                    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
                    raise UserError(
                        f"{self.datasets[which].root}, episode {episode}, {view}, frames {rows[0]} to "
                        f"{rows[-1]}: cannot be read ({line}); mend or leave out the episode"
                    ) from error
                yield clip if self.augmentation is not None else resize(clip, size)

        return self.frames.read((which, episode, view), rows, decode)

    def vectors(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
        """(action, state, action_mask, has_action) of a window, in the shapes of ``Window``."""
        which, episode, start = self._index[index]
        rows = self.datasets[which].rows(episode)
        card, n, k = self.card, self.blocks, self.card.horizon
        times = rows["timestamp"]
        action = np.zeros((n * k, card.action_dim), dtype=np.float32)
        state = np.zeros((n, card.state_dim), dtype=np.float32)
        mask = np.zeros((n * k, card.action_dim), dtype=bool)
        if self.normalizer is None or (card.state_dim and not rows["state"].shape[1]):
            return action, state, mask, False
        raw, first = self._raw(rows, start)
        state = self.normalizer.state(first)
        if raw is None:
            return action, state, mask, False
        action = self.normalizer.action(raw, first).reshape(n * k, -1)
        at = start + np.arange(n * k) / card.action_hz
        mask[:] = self._within(times, at)[:, None]
        for name, values in (("action", action), ("state", state)):
            if not np.isfinite(values).all():
                raise UserError(
                    f"{self.datasets[which].root}, episode {episode}, window from frame "
                    f"{self.start_row(index)}: {name} is not finite; mend or leave out the episode"
                )
        return action, state, mask, True

    @staticmethod
    def _within(times: np.ndarray, at: np.ndarray) -> np.ndarray:
        """bool: which instants still belong to the last row or to one before it."""
        half = 0.5 * float(times[-1] - times[-2]) if len(times) > 1 else 0.0
        return np.asarray(at <= times[-1] + half + _SLACK_S)

    def _raw(
        self, rows: dict[str, np.ndarray], start: float
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """(absolute actions ``[n, k, a]`` or None, states ``[n, s]`` at the blocks' starts), SI."""
        card, n, k = self.card, self.blocks, self.card.horizon
        times = rows["timestamp"]
        begins = nearest(times, start + np.arange(n) * card.block_s)
        first = select(card.state, rows["state"])[begins]
        if not (card.has_action and rows["action"].shape[1]):
            return None, first
        at = start + np.arange(n * k) / card.action_hz
        flat = actions_at(card.action, times, rows["action"], at)
        return flat.reshape(n, k, -1), first

    def _fits(self, dataset: Dataset) -> None:
        validate(dataset, self.card)
        absent = [view for view in self.card.views if view not in dataset.views]
        if absent:
            raise UserError(
                f"{dataset.root}: card {self.card.name} looks through {', '.join(absent)}; "
                f"the dataset has {', '.join(dataset.views) or 'no video'}"
            )

    def _normalizer(self, statistics: Statistics | None) -> Normalizer | None:
        if not self.card.state_dim and not self.card.action_dim:
            return None
        found = compute(self.datasets, self.card) if statistics is None else statistics
        if not found.state and not found.action:
            return None
        if self.card.action and not found.action:
            # Video with states only: the states are used, the actions never come up.
            return Normalizer(self.card.with_(action=()), found)
        return Normalizer(self.card, found)

    def _collect(self) -> None:
        card, idle = self.card, self.idle
        short = left_out = 0
        for which, dataset in enumerate(self.datasets):
            for episode in dataset.episodes:
                times = dataset.rows(episode.index)["timestamp"]
                span = float(times[-1] - times[0])
                # The window must begin its last block before the recording ends.
                last = span - (self.blocks - 1) * card.block_s - _SLACK_S
                count = int(np.floor(last * card.action_hz / self.stride)) + 1 if last > 0 else 0
                short += count < 1
                for i in range(max(count, 0)):
                    at = times[0] + i * self.stride / card.action_hz
                    start = float(times[nearest(times, np.array([at]))[0]])
                    if idle > 0 and self._is_idle(dataset.rows(episode.index), start, idle):
                        left_out += 1
                    else:
                        self._index.append((which, episode.index, start))
        if short:
            self.notes.append(
                f"short: {short} episodes hold less than {self.blocks - 1} blocks of "
                f"{card.block_s:.3g} s and a bit; left out"
            )
        if left_out:
            self.notes.append(f"idle: {left_out} windows in which nothing moves; left out")
        if not self._index:
            raise UserError(
                f"no window of {self.blocks} blocks ({self.blocks * card.block_s:.3g} s) fits into "
                f"{', '.join(str(d.root) for d in self.datasets)} ({'; '.join(self.notes)})"
            )

    def _is_idle(self, rows: dict[str, np.ndarray], start: float, share: float) -> bool:
        if self.normalizer is None or (self.card.state_dim and not rows["state"].shape[1]):
            return False
        raw, _ = self._raw(rows, start)
        if raw is None:
            return False
        span = self.normalizer.action_range
        moves = (np.ptp(raw, axis=1) > share * span) & (span > 0)
        return bool((~moves.any(axis=-1)).mean() > 0.5)
