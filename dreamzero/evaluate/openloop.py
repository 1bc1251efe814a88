"""Open-loop measurements: what a policy predicts on recordings it has not seen, beside what happened.

Every chunk is predicted from what was really observed up to then (nothing of a prediction is executed), so
that a chunk's error is its own. Two questions:

    action   how far is the last step of the chunk from the recorded command, in rad, against a robot
             that holds its state (ratio 1: as good as not moving; 0: exact)
    dream    how like the recorded frames are the dreamed ones, PSNR in dB, against repeating the last
             frame that was seen, and against the codec's picture of the truth (no dream is better)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..data.canvas import compose, split
from ..data.resample import actions_at, nearest, select
from ..errors import UserError

if TYPE_CHECKING:
    from ..data.reader import Dataset
    from ..embodiments import Embodiment
    from ..inference import WorldActionPolicy

MOVED = 0.1  # of the range 0..1 in any channel, as the codec's figures count it
Source = Literal["dream", "repeat", "codec"]
Figure = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval (bootstrap over episodes) and the number of episodes."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}], n = {self.n}"


@dataclass(frozen=True)
class Recorded:
    """A stretch of one recording at the card's rates.

    Attributes:
        video: uint8 ``[1 + n * frames per block, h, w, 3]``, the canvas.
        action: float32 ``[n, k, a]`` absolute, SI; state: float32 ``[n, s]`` at the blocks' starts.
    """

    episode: int
    instruction: str
    video: np.ndarray
    action: np.ndarray
    state: np.ndarray


@dataclass(frozen=True)
class Prediction:
    """One chunk, predicted and recorded.

    Attributes:
        action, recorded: float32 ``[k, a]``, absolute, SI; state: float32 ``[s]`` at its start.
        dream, true, codec: uint8 ``[t, h, w, 3]``: predicted, recorded, and recorded through the
            codec; last: uint8 ``[h, w, 3]``, the frame seen last. ``dream`` and ``codec`` are None
            where the policy does not dream.
        seconds: of ``act``, without decoding the dream.
    """

    episode: int
    block: int
    action: np.ndarray
    recorded: np.ndarray
    state: np.ndarray
    true: np.ndarray
    last: np.ndarray
    seconds: float
    dream: np.ndarray | None = None
    codec: np.ndarray | None = None


@dataclass
class OpenLoop:
    """All predictions of one policy on some recordings."""

    card: Embodiment
    chunks: list[Prediction] = field(default_factory=list)

    def action_ratio(self, block: int | None = None) -> Estimate:
        """Error at the end of a chunk over that of holding the state; of one block of the window
        where ``block`` is given."""
        errors, holds = self._ends(block)
        return self._estimate(errors, holds, block, lambda a, b: a / np.maximum(b, 1e-9))

    def action_error_rad(self, block: int | None = None) -> Estimate:
        """Root mean square over joints at the end of a chunk, averaged over chunks; rad."""
        errors, _ = self._ends(block)
        return self._estimate(errors, np.ones_like(errors), block, lambda a, b: a / b)

    def psnr(
        self, source: Source = "dream", moving: bool = False, frame: int | None = None
    ) -> Estimate:
        """PSNR in dB; squared errors pooled over chunks.

        Args:
            source: "dream", "repeat" (of the last frame seen) or "codec" (the true frames through it).
            moving: only pixels that differ from the last frame seen by more than 0.1 in any
                channel, in the recording. A dream of motion that did not happen is not seen there.
            frame: of the chunk, 0 to t - 1; None pools all.
        """
        sums = np.array([self._squared(c, source, moving, frame) for c in self.chunks])
        return self._estimate(255.0**2 * sums[:, 1], sums[:, 0], None, _decibel_of_ratio)

    def dream_gain_db(self, moving: bool = False) -> Estimate:
        """PSNR of the dream minus that of repeating the last frame, drawn together; dB."""
        dream = np.array([self._squared(c, "dream", moving, None)[0] for c in self.chunks])
        still = np.array([self._squared(c, "repeat", moving, None)[0] for c in self.chunks])
        return self._estimate(still, dream, None, _decibel_of_ratio)

    def minus(self, other: OpenLoop) -> Estimate:
        """Difference of the action ratios of two policies on the same chunks, drawn together.

        Raises:
            ValueError: other chunks.
        """
        self._same(other)
        (mine, holds), (others, _) = self._ends(None), other._ends(None)
        return self._estimate(mine - others, holds, None, lambda a, b: a / np.maximum(b, 1e-9))

    def dream_minus(self, other: OpenLoop, moving: bool = False) -> Estimate:
        """Difference of the dreams' PSNR on the same chunks, drawn together; dB."""
        self._same(other)
        mine = np.array([self._squared(c, "dream", moving, None)[0] for c in self.chunks])
        others = np.array([self._squared(c, "dream", moving, None)[0] for c in other.chunks])
        return self._estimate(others, mine, None, _decibel_of_ratio)

    def _same(self, other: OpenLoop) -> None:
        if [(c.episode, c.block) for c in self.chunks] != [
            (c.episode, c.block) for c in other.chunks
        ]:
            raise ValueError("the two policies predicted other chunks")

    @property
    def seconds(self) -> float:
        """Median seconds of ``act``."""
        return float(np.median([c.seconds for c in self.chunks]))

    def _of(self, block: int | None) -> list[Prediction]:
        return [c for c in self.chunks if block is None or c.block == block]

    def _ends(self, block: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Per chunk: error of the prediction and of holding, at the chunk's last step, rad."""
        columns, anchors = joint_columns(self.card)
        rows = []
        for c in self._of(block):
            wanted = c.recorded[-1, columns]
            rows.append([_rms(c.action[-1, columns] - wanted), _rms(c.state[anchors] - wanted)])
        found = np.array(rows).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def _squared(
        self, c: Prediction, source: Source, moving: bool, frame: int | None
    ) -> tuple[float, float]:
        """Sum of squared errors (of 255) and how many numbers it sums."""
        last = c.last[None].astype(np.float32)
        guess = {"dream": c.dream, "codec": c.codec, "repeat": last}[source]
        if guess is None:
            raise ValueError("this policy did not dream: build it with dream=True")
        true = c.true.astype(np.float32)
        error = (guess.astype(np.float32) - true) ** 2
        mask = np.ones(true.shape[:3], dtype=bool)
        if moving:
            mask = np.abs(true - last).max(-1) > 255 * MOVED
        if frame is not None:
            error, mask = error[frame : frame + 1], mask[frame : frame + 1]
        return float(error[mask].sum()), 3.0 * float(mask.sum())

    def _estimate(
        self, above: np.ndarray, below: np.ndarray, block: int | None, figure: Figure
    ) -> Estimate:
        groups = np.array([c.episode for c in self._of(block)])
        return bootstrap(above, below, groups, figure)


def bootstrap(
    above: np.ndarray,
    below: np.ndarray,
    groups: np.ndarray,
    figure: Figure,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """``figure(sum(above), sum(below))`` with a 95 % percentile interval over resampled groups.

    nan where both sums are zero; without an interval where there is but one group.

    Args:
        above, below: float ``[n]``; groups: ``[n]``, measurements of one group (an episode) are
            drawn together, because they are alike.
        figure: takes two arrays of sums.
    """
    names, inverse = np.unique(groups, return_inverse=True)
    sums = np.zeros((2, len(names)))
    np.add.at(sums[0], inverse, above)
    np.add.at(sums[1], inverse, below)
    if not sums.any():  # nothing was there to measure: no pixel moved, for instance
        return Estimate(float("nan"), float("nan"), float("nan"), len(names))
    value = float(figure(sums[0].sum(), sums[1].sum()))
    if len(names) < 2:  # one episode says nothing of others
        return Estimate(value, float("nan"), float("nan"), 1)
    picks = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    drawn = sums[:, picks].sum(-1)
    drawn = drawn[:, drawn.any(0)]
    low, high = np.quantile(figure(*drawn), [0.025, 0.975]) if drawn.size else (value, value)
    return Estimate(value, float(low), float(high), len(names))


def joint_columns(card: Embodiment) -> tuple[np.ndarray, np.ndarray]:
    """int64 ``[j]`` each: action dimensions in rad, and the state dimensions of the same joints.

    Raises:
        UserError: the card has none.
    """
    columns, anchors = card.joint_columns()
    if not columns:
        raise UserError(f"card {card.name} has no joint that is both measured and commanded in rad")
    return np.array(columns), np.array(anchors)


def held_out(dataset: Dataset, share: float) -> list[int]:
    """The episodes that ``train`` holds out when this is its only dataset: the last ``share``."""
    count = max(1, round(share * len(dataset.episodes)))
    return [e.index for e in dataset.episodes[-count:]]


def recorded(dataset: Dataset, card: Embodiment, episode: int) -> Recorded:
    """The first window of an episode; fewer blocks where the recording is shorter.

    Raises:
        UserError: no actions, or less than one block.
    """
    if not (dataset.has_action and card.has_action):
        raise UserError(f"{dataset.root}: video only; an action error needs recorded actions")
    rows = dataset.rows(episode)
    times, k, t = rows["timestamp"], card.horizon, card.frames_per_block
    spanned = (times[-1] - times[0]) * card.action_hz + 1
    blocks = min(card.blocks, int(spanned / k + 1e-3))
    if blocks < 1:
        raise UserError(f"{dataset.root}: episode {episode} is shorter than {card.block_s:.3g} s")
    shown = nearest(times, times[0] + np.arange(1 + blocks * t) / card.video_hz)
    views = [dataset.frames(episode, view, shown) for view in card.views]
    begins = nearest(times, times[0] + np.arange(blocks) * card.block_s)
    at = times[0] + np.arange(blocks * k) / card.action_hz
    return Recorded(
        episode=episode,
        instruction=dataset.episode(episode).task,
        video=compose(views, card.layout, card.canvas_px),
        action=actions_at(card.action, times, rows["action"], at).reshape(blocks, k, -1),
        state=select(card.state, rows["state"])[begins].astype(np.float32),
    )


def open_loop(
    policy: WorldActionPolicy,
    dataset: Dataset,
    episodes: Sequence[int] | None = None,
    progress: bool = False,
) -> OpenLoop:
    """Predict every chunk of the first window of each episode.

    Args:
        policy: with ``dream=True`` for PSNR too.
        episodes: numbers; all by default.
    """
    from tqdm.auto import tqdm

    result = OpenLoop(policy.card)
    numbers = [e.index for e in dataset.episodes] if episodes is None else list(episodes)
    for number in tqdm(numbers, desc="open loop", disable=not progress, leave=False):
        result.chunks += predict(policy, recorded(dataset, policy.card, number))
    return result


def predict(policy: WorldActionPolicy, past: Recorded) -> list[Prediction]:
    """The chunks of one recorded window, each from what was observed before it."""
    from ..model.codecs import to_float, to_uint8

    card, t = policy.card, policy.card.frames_per_block
    seen = None
    if policy.dream:
        codec, video = policy.model.codec, to_float(past.video).unsqueeze(0).to(policy.device)
        seen = to_uint8(codec.decode(codec.encode(video))[0])
    policy.reset(past.instruction)
    frames, chunks = past.video[:1], []
    for block, state in enumerate(past.state):
        views = split(frames, card.layout, len(card.views))
        policy.observe(dict(zip(card.views, views, strict=True)), state)
        chunk = policy.act()
        first = 1 + block * t
        frames = past.video[first : first + t]
        chunks.append(
            Prediction(
                episode=past.episode,
                block=block,
                action=chunk.actions,
                recorded=past.action[block],
                state=state,
                true=frames,
                last=past.video[first - 1],
                seconds=float(chunk.info["seconds"]),
                dream=chunk.video,
                codec=None if seen is None else seen[first : first + t],
            )
        )
    return chunks


def _decibel_of_ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(10 * np.log10(np.maximum(a, 1e-9) / np.maximum(b, 1e-9)))


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))
