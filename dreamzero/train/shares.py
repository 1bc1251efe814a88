"""What one process has to do in one step, ready on the CPU before the step begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.loader import Taken
from ..errors import UserError
from ..types import Batch
from .checkpoint import last_good
from .config import TrainSettings
from .flops import arithmetic, layout_of
from .objective import Drawn, draw, generators


@dataclass
class Piece:
    """Some rows of a step's batch, and what chance decided about them."""

    batch: Batch
    drawn: Drawn

    @property
    def labels(self) -> int:
        """Numbers in the action loss."""
        return int((self.batch.action_mask & self.batch.has_action[:, None, None]).sum())


@dataclass
class Share:
    """One process's part of a step.

    Attributes:
        pieces: one after the other; rows: samples in the whole batch, of all processes.
        with_action: whether any sample of the whole batch has actions; problem: a bad sample.
    """

    pieces: list[Piece]
    rows: int
    with_action: bool
    problem: UserError | None = None


def share_of(taken: Taken, settings: TrainSettings, frames_per_block: int, out: Path) -> Share:
    """The rows of this process, piece by piece, with their noise.

    What cannot be read or is not finite becomes the share's ``problem``: all processes have to stop
    together.
    """
    drawn = taken.draw
    windows, step = drawn.windows, drawn.step
    with_action = bool(windows.has_action[drawn.index].any())
    share = Share([], len(drawn.index), with_action, taken.problem)
    for places, read in zip(taken.places, taken.pieces, strict=True):
        index, batch = drawn.index[list(places)], windows.finish(read)
        for name in ("latents", "action", "state"):
            broken = ~getattr(batch, name).isfinite().flatten(1).all(1)
            if broken.any() and share.problem is None:
                share.problem = UserError(
                    f"a bad sample at step {step}: {name} of {windows.where(int(index[broken][0]))} "
                    f"is not finite; {last_good(out)}: mend or leave out the episode"
                )
        chance = generators(settings.seed, step, places)
        share.pieces.append(Piece(batch, draw(batch, settings, frames_per_block, chance)))
    return share


def work_of(
    share: Share, config: Mapping[str, Any], settings: TrainSettings, text_tokens: int
) -> tuple[float, float]:
    """Tokens and FLOPs of a step, of all processes."""
    batch = share.pieces[0].batch
    size = (batch.latents.shape[3], batch.latents.shape[4])
    layout = layout_of(config, size, batch.state.shape[1], share.with_action, settings.first_frame)
    image = 0 if batch.image_features is None else batch.image_features.shape[1]
    one = arithmetic(config, layout, text_tokens, image)
    return share.rows * one.tokens, share.rows * one.step
