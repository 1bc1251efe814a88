"""What a run says while it runs: a bar with the time left, log.jsonl, TensorBoard; and when it must stop."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

from ..errors import UserError
from .config import TrainSettings

# A mean over some 50 steps this many times above the lowest there was: no hard batch does that.
DIVERGED = 3.0
_SMOOTH = 0.98


class Stopped(KeyboardInterrupt):
    """A signal ended a run in good order; ``status`` is what a shell expects of it."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; a second one is heard at once."""
    heard: list[int] = []
    before: dict[int, Any] = {}

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        for known, handler in before.items():
            signal.signal(known, handler)

    try:
        for known in (signal.SIGINT, signal.SIGTERM):
            before[known] = signal.signal(known, hear)
    except ValueError:  # not the main thread: whoever has it decides
        pass
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the steps since the last log row, so that every kind of batch is in them."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


class Divergence:
    """Notices a loss that has stopped being one.

    Attributes:
        state: smoothed loss, and the lowest it has been; JSON-ready, a resumed run goes on with it.
    """

    def __init__(self, warmup: int) -> None:
        self.after = max(warmup, 100)  # one small batch says little: nothing is compared sooner
        self.state: dict[str, float] = {}

    def check(self, step: int, values: Mapping[str, float]) -> str | None:
        """What is wrong with these losses, None if nothing is."""
        broken = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
        if broken:
            return f"not finite at step {step}: {', '.join(broken)}"
        loss = values["video"] + values["action"]
        mean = self.state.get("mean", loss)
        self.state["mean"] = mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
        if step < self.after:
            return None
        self.state["best"] = best = min(self.state.get("best", math.inf), mean)
        if mean > DIVERGED * best:
            return f"the loss at step {step} is {mean:.3g}, and had been {best:.3g}"
        return None


class Log:
    """Rows of a run; only the main process writes.

    Args:
        step: that the run begins at; later rows of an earlier attempt are cut off.
    """

    def __init__(
        self, out: Path, settings: TrainSettings, step: int, main: bool, progress: bool
    ) -> None:
        from tqdm.auto import tqdm

        self.path, self._of_hold = out / "log.jsonl", ""
        self.bar = tqdm(
            total=settings.steps, initial=step, desc="train", disable=not (progress and main)
        )
        self._file = self._board = None
        if not main:
            return
        self._file = self._begin(step).open("a", encoding="utf-8")
        if settings.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step or None)

    def _begin(self, step: int) -> Path:
        """The log up to ``step``: what a killed run wrote after its checkpoint is done again."""
        kept = ""
        if step and self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
                try:
                    if line.endswith("\n") and json.loads(line)["step"] <= step:
                        kept += line
                except ValueError:  # half a line
                    continue
        self.path.write_text(kept, encoding="utf-8")
        return self.path

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """One row, everywhere."""
        shown = {name: f"{row[name]:.3f}" for name in ("video", "action")}
        if "open_loop" in row:
            self._of_hold = f"{row['open_loop']:.2f}"
        if self._of_hold:  # the last one measured
            shown["of_hold"] = self._of_hold
        self.bar.set_postfix(shown)
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """A PNG for TensorBoard."""
        if self._board is not None:
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                self._board.add_image(name, np.asarray(image), step, dataformats="HWC")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


class Meter:
    """Where the time goes: tokens a second, share of it waiting for data, utilisation.

    Args:
        peak: FLOP/s of one process's device, None if not known; processes: how many share the work.
    """

    def __init__(self, peak: float | None, processes: int) -> None:
        self.peak, self.processes = peak, processes
        self.reset()
        self._all = [0.0] * 4  # seconds, waited, tokens, FLOPs of all rows

    def reset(self) -> None:
        """From now on."""
        self.began = time.perf_counter()
        self.waited = self.tokens = self.flops = 0.0

    def work(self, tokens: float, flops: float) -> None:
        """That all processes together have done."""
        self.tokens += tokens
        self.flops += flops

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what is not training: reading the next batch."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - began

    def row(self) -> dict[str, float]:
        """Since the last ``reset``; what happens until the next one is no training."""
        now = (time.perf_counter() - self.began, self.waited, self.tokens, self.flops)
        self._all = [a + b for a, b in zip(self._all, now, strict=True)]
        return self._rates(*now)

    def totals(self) -> dict[str, float]:
        """Of the whole run, evaluations left out."""
        return self._rates(*self._all) if self._all[0] else {}

    def _rates(
        self, seconds: float, waited: float, tokens: float, flops: float
    ) -> dict[str, float]:
        seconds = max(seconds, 1e-9)
        found = {
            "tokens_per_s": round(tokens / seconds, 1),
            "data_wait": round(waited / seconds, 4),
        }
        if self.peak:
            found["mfu"] = round(flops / seconds / (self.peak * self.processes), 4)
        return found


def diverged(problem: str, settings: TrainSettings, good: str) -> UserError:
    """The one line that ends a diverged run."""
    rates = "train.lr and train.matrix_lr" if settings.optimizer == "muon" else "train.lr"
    return UserError(
        f"training diverged: {problem}; {good}: lower {rates} (or train.clip), then --resume"
    )
