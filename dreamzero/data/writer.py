"""Recording LeRobot datasets: frames and vectors in, files as lerobot itself writes them out.

v3.0 (many episodes a file) by default; the layout is the published one
(https://huggingface.co/docs/lerobot/lerobot-dataset-v3), so that lerobot reads what is written here:

    meta/info.json  meta/stats.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet  videos/<view>/chunk-000/file-000.mp4
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from ..errors import UserError
from . import columns, layouts, lerobot
from .encode import Encoder, Frames
from .existing import INFO_PATH, Existing
from .lerobot import ACTION, STATE
from .stats import describe_frames


class Writer:
    """Writes a LeRobot dataset; nothing is visible at ``root`` before ``close``.

    With ``append`` episodes are added to a v3.0 dataset of this writer: they come in files of their own,
    and the tables that name them are replaced at the end one by one, so that a reader finds the old
    episodes or all of them at any time.

    Args:
        root: folder to create; must not exist or be empty.
        fps: rows and frames per second.
        robot_type: what moved ("so101"), kept in info.json.
        views: feature name ("observation.images.front") -> (height, width) in pixels.
        state_names, action_names: one name a dimension, or None where there is no such column.
        version: "v2.0", "v2.1" or "v3.0".
        append: go on with the dataset at ``root`` if there is one.
        limits: ``data_mb`` and ``video_mb``, sizes at which v3.0 begins the next file.

    Raises:
        UserError: ``root`` is taken, or an episode does not fit what was announced here. With
            ``append``: the dataset there is another robot's, or somebody else is appending to it.

    Use it as a context manager: leaving with an exception discards everything.
    """

    def __init__(
        self,
        root: Path,
        fps: float,
        robot_type: str,
        views: Mapping[str, tuple[int, int]],
        state_names: list[str] | None,
        action_names: list[str] | None,
        *,
        version: str = "v3.0",
        append: bool = False,
        **limits: float,
    ) -> None:
        if not fps > 0:
            raise UserError(f"fps is {fps}; a dataset needs a rate above 0")
        self.fps, self.robot_type = fps, robot_type
        self.views = dict(views)
        self.names = {
            key: list(names)
            for key, names in ((STATE, state_names), (ACTION, action_names))
            if names
        }
        self._pixel_formats: dict[str, str] = {}
        existing = None
        if append and (Path(root) / INFO_PATH).is_file():
            wanted = {"robot_type": robot_type, "fps": fps, "features": self._features()}
            existing = Existing(Path(root), wanted)
            self._pixel_formats = {view: existing.pixel_format(view) for view in views}
        self._layout = layouts.layout(root, version, self._open, (), existing, **limits)
        self.root = self._layout.root
        self._closed = False

    def _open(self, view: str, path: Path) -> Encoder:
        encoder = Encoder(path, self.fps, self.views[view])
        self._pixel_formats[view] = encoder.pixel_format
        return encoder

    def add_episode(
        self,
        frames: Mapping[str, Frames],
        state: np.ndarray | None,
        action: np.ndarray | None,
        task: str,
        extras: Mapping[str, int | float | str | bool | None] | None = None,
    ) -> int:
        """Append one episode; row i of every argument belongs to time i / fps.

        Args:
            frames: view -> uint8 ``[t, h, w, 3]`` RGB.
            state, action: float ``[t, s]`` and ``[t, a]`` in SI units, or None where not recorded.
            task: the instruction.
            extras: further columns of the episode table (seed, success ...), the same keys each time.

        Returns:
            The episode's index.
        """
        length = self._validate(frames, {STATE: state, ACTION: action})
        rows = {
            key: columns.vectors(np.asarray(value))
            for key, value in ((STATE, state), (ACTION, action))
            if value is not None
        }
        rows["timestamp"] = pa.array((np.arange(length) / self.fps).astype(np.float32))
        images = {view: describe_frames(clip) for view, clip in frames.items()}
        return self._layout.add(
            layouts.Recorded(pa.table(rows), [task], frames, images, dict(extras or {}))
        )

    def attach(self, name: str, text: str) -> None:
        """Put a file of one's own, a path inside the dataset, beside its files; meta is not the place."""
        path = self._layout.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _features(self) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for view, size in self.views.items():
            pixel_format = self._pixel_formats.get(view, "")
            features[view] = lerobot.video_feature(size, "h264", pixel_format, self.fps)
        features |= {key: lerobot.vector_feature(names) for key, names in self.names.items()}
        return features | lerobot.counter_features()

    def close(self) -> None:
        """Finish all files and let the dataset appear at ``root``; UserError if it has no episode."""
        if self._closed:
            return
        try:
            self._layout.close(self.robot_type, self.fps, self._features())
        except BaseException:
            self.discard()
            raise
        self._closed = True

    def discard(self) -> None:
        """Throw away what was written; ``root`` stays as it was."""
        self._closed = True
        self._layout.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _validate(
        self, frames: Mapping[str, Frames], vectors: Mapping[str, np.ndarray | None]
    ) -> int:
        if self._closed:
            raise UserError(f"{self.root} is closed; open a new Writer to record more")
        if frames.keys() != self.views.keys():
            raise UserError(
                f"episode has views {sorted(frames)}; announced were {sorted(self.views)}"
            )
        lengths = {view: len(clip) for view, clip in frames.items()}
        for view, clip in frames.items():
            if clip.dtype != np.uint8 or clip.shape[1:] != (*self.views[view], 3):
                raise UserError(
                    f"{view} is {clip.dtype} {clip.shape}; announced was uint8 "
                    f"[t, {self.views[view][0]}, {self.views[view][1]}, 3]"
                )
        for key, value in vectors.items():
            width = len(self.names.get(key, ()))
            got = 0 if value is None else np.asarray(value).reshape(len(value), -1).shape[1]
            if got != width:
                raise UserError(f"{key} has {got} dimensions; announced were {width}")
            if value is not None:
                lengths[key] = len(value)
                if not np.isfinite(value).all():
                    raise UserError(
                        f"{key} holds NaN or infinity; only finite rows can be recorded"
                    )
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise UserError(f"an episode needs equally many rows everywhere, at least 1: {lengths}")
        return next(iter(lengths.values()))
