"""How fast windows are loaded, against one seek a frame.

Both sides decode the same windows of the same files in turns, with files already open, so that what else
the machine does meets both. The plain side seeks for every frame of every window, decodes to it and
brings it onto the canvas; ours goes through the mixture's order, where windows of an episode come while its frames are
there. One thread and one process each.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pyarrow as pa

from . import lerobot
from .canvas import compose
from .encode import Copier, Cut
from .layouts import Recorded, layout
from .mixture import Feed, Mixture
from .reader import Dataset
from .recorded import DecodedWindows
from .stats import describe_frames
from .video import Clip
from .windows import WindowDataset


@dataclass(frozen=True)
class Speed:
    """What one recording gave.

    Attributes:
        windows: that both sides decoded.
        ours, plain: windows a second, wall clock.
        ours_cpu, plain_cpu: windows a second of this process's CPU time, which other processes
            disturb less.
        decoded: frames that our side decoded for each window and view.
    """

    windows: int
    ours: float
    plain: float
    ours_cpu: float
    plain_cpu: float
    decoded: float

    @property
    def ratio(self) -> float:
        """Ours over plain, CPU time."""
        return self.ours_cpu / self.plain_cpu


class _Batches(NamedTuple):
    """A kind of batch, see ``mixture.Kind``."""

    blocks: int
    batch: int
    begin: float = 0.0


class OneSeekAFrame:
    """The plain way: for every frame seek to the keyframe before it and decode up to it."""

    def __init__(self, windows: WindowDataset) -> None:
        self.windows = windows
        self._open: dict[Path, tuple[Any, Any, list[int]]] = {}

    def video(self, index: int) -> np.ndarray:
        """uint8 ``[t, H, W, 3]`` of a window, the same as ``WindowDataset.get`` has."""
        windows = self.windows
        which, episode, _ = windows.place(index)
        dataset, shown = windows.datasets[which], windows.shown(index)
        views = []
        for view in windows.card.views:
            places = dataset.frame_of_row(episode, view)[shown]
            path = dataset.episode(episode).videos[view].path
            views.append(np.stack([self._frame(path, int(place)) for place in places]))
        return compose(views, windows.card.layout, windows.card.canvas_px)

    def _frame(self, path: Path, place: int) -> np.ndarray:
        if path not in self._open:
            container = av.open(str(path))
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            clip = Clip(path)
            self._open[path] = (container, stream, [clip.pts(i) for i in range(len(clip))])
            clip.close()
        container, stream, times = self._open[path]
        container.seek(times[place], stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts == times[place]:
                return np.asarray(frame.to_ndarray(format="rgb24"))
        raise AssertionError(f"frame {place} of {path} was not decoded")


def loading(windows: WindowDataset, batch: int = 8, seconds: float = 30, seed: int = 0) -> Speed:
    """Decode one epoch both ways, a batch in turn, until ``seconds`` are over; frames must be equal.

    Nothing is decoded beforehand, and episodes that were opened but not used up when time is over count
    against our side.
    """
    decoded, plain = DecodedWindows(windows), OneSeekAFrame(windows)
    feed = Feed(_Batches(windows.blocks, batch), decoded, None)  # type: ignore[arg-type]
    order = Mixture([feed], seed, shuffle="episodes", open_episodes=2, lanes=1)
    clocks = np.zeros((2, 2))
    started, count, step = time.perf_counter(), 0, 0
    while count < len(windows) and time.perf_counter() - started < seconds:
        draw = order.draw(step)
        began = np.array([time.perf_counter(), time.process_time()])
        ours = decoded.read(draw, range(batch)).video.numpy()
        between = np.array([time.perf_counter(), time.process_time()])
        theirs = np.stack([plain.video(i) for i in draw.index.tolist()])
        ended = np.array([time.perf_counter(), time.process_time()])
        if not np.array_equal(ours, theirs):
            raise AssertionError("both ways of decoding must give the same frames")
        clocks += np.stack([between - began, ended - between])
        count, step = count + batch, step + 1
    (ours_s, ours_cpu), (plain_s, plain_cpu) = (count / clocks).tolist()
    frames = decoded.drawn.frames.decoded / count / max(len(windows.card.views), 1)
    return Speed(count, ours_s, plain_s, ours_cpu, plain_cpu, frames)


def wrap_clips(folder: Path, files: dict[str, Path], fps: float) -> Dataset:
    """Bare video files that belong together as a dataset of one episode, copied as they are encoded.

    Args:
        folder: where to write it; must not exist.
        files: view -> file.
    """
    clips = {view: Clip(path) for view, path in files.items()}
    rows = min(len(clip) for clip in clips.values())
    made = layout(folder, "v2.1", lambda view, path: Copier(path))
    stamps = pa.table({"timestamp": pa.array((np.arange(rows) / fps).astype(np.float32))})
    images = {view: describe_frames(clip.read([0, rows - 1])) for view, clip in clips.items()}
    made.add(Recorded(stamps, [""], {v: Cut(c, 0, rows) for v, c in clips.items()}, images))
    features: dict[str, Any] = {
        view: lerobot.video_feature(
            clip.size_px, clip.codec, str(clip.stream.codec_context.pix_fmt), fps
        )
        for view, clip in clips.items()
    }
    made.close("unknown", fps, features | lerobot.counter_features())
    return Dataset.open(folder)
