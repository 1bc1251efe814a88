"""From one version of LeRobot's format to another: rows bit for bit, video as it is encoded.

Frames are copied without decoding them wherever an episode begins at a keyframe; else that episode is
encoded anew. Vectors' statistics are computed from the rows, those of images kept where there are any.
What was wrong but readable (``Dataset.notes``) is right in the copy.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..embodiments import Embodiment
from ..errors import UserError
from . import columns, gear, layouts, lerobot
from .encode import Copier, Cut, Encoder
from .reader import Dataset
from .resample import validate
from .stats import Numbers, describe_frames, published
from .video import Clip

_LOOK = 8


@dataclass
class Report:
    """What a conversion did.

    Attributes:
        episodes, rows: in the copy.
        numbers: old number -> new number of every episode, where one changed.
        encoded: (episode, view, reason) of what had to be encoded anew.
        mended: quirks of the source that the copy no longer has.
        left: quirks that the copy has, too.
    """

    episodes: int = 0
    rows: int = 0
    numbers: dict[int, int] = field(default_factory=dict)
    encoded: list[tuple[int, str, str]] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """What a person should know of it."""
        if self.encoded:
            _, view, why = self.encoded[0]
            yield f"{len(self.encoded)} clips were encoded anew (the first: {view} {why})"
        else:
            yield "video: copied as it is encoded"
        if self.numbers:
            old, new = next(iter(self.numbers.items()))
            yield f"episodes are numbered anew: {old} is now {new}, and so on (source_episode_index)"
        for what, notes in (("mended", self.mended), ("still so", self.left)):
            names = dict.fromkeys(note.partition(":")[0] for note in notes)
            if names:
                yield f"{what}: {', '.join(names)}"


def convert(
    source: Dataset | Path | str,
    to: str,
    out: Path | str,
    card: Embodiment | None = None,
    progress: bool = True,
    **limits: float,
) -> Report:
    """Write a dataset again in another version.

    Args:
        source: a dataset or its folder.
        to: "v2.0", "v2.1" or "v3.0".
        out: folder to create; must not exist or be empty.
        card: write GEAR's additions (``gear``) for this robot; None: copy those that are there.
        limits: ``data_mb`` and ``video_mb``, at which v3.0 begins the next file.

    Raises:
        UserError: the source cannot be read, ``out`` is taken, the card does not fit, or ``to`` is
            none of the versions. Nothing half-written stays.
    """
    from tqdm.auto import tqdm

    dataset = source if isinstance(source, Dataset) else Dataset.open(source)
    if card is not None:
        validate(dataset, card)
    if Path(out).resolve().is_relative_to(dataset.root.resolve()):
        raise UserError(f"--out {out} lies in the dataset itself; give a folder outside of it")
    job = _Job(dataset, to, Path(out), limits)
    try:
        for episode in tqdm(dataset.episodes, desc=f"to {to}", disable=not progress):
            job.add(episode.index)
        job.close(card)
    except BaseException:
        job.layout.discard()
        raise
    report = job.report
    report.left = Dataset.open(out).notes
    kept = {note.partition(":")[0] for note in report.left}
    report.mended = [note for note in dataset.notes if note.partition(":")[0] not in kept]
    return report


class _Job:
    def __init__(self, dataset: Dataset, to: str, out: Path, limits: Mapping[str, float]) -> None:
        self.dataset, self.to, self.report = dataset, to, Report()
        texts = [text for _, text in sorted(dataset.task_names.items())]
        tasks = list(dict.fromkeys(texts))
        self.layout = layouts.layout(
            out, to, lambda view, path: Copier(path), tasks, None, **limits
        )
        self._stats = published(dataset.root, dataset.version)[1]
        self._again = self.layout.work / "again"
        self._formats: dict[str, tuple[str, str]] = {}
        self._renumbered = [e.index for e in dataset.episodes] != list(range(len(dataset.episodes)))

    def add(self, index: int) -> None:
        """Take over one episode."""
        dataset = self.dataset
        episode, rows = dataset.episode(index), self._rows(index)
        videos: dict[str, Any] = {}
        images: dict[str, Numbers] = {}
        for view, span in episode.videos.items():
            first, times = dataset.frame_times(index, view)
            clip = dataset.clips.about(span.path)
            videos[view] = self._cut(index, view, clip, first, first + len(times))
            known = self._stats.get(index, {}).get(view)
            if known is None:
                look = np.unique(np.linspace(first, first + len(times) - 1, _LOOK).astype(int))
                known = describe_frames(dataset.clips.read(span.path, look))
            images[view] = known
        extras = dict(episode.extras)
        if self._renumbered:
            extras.setdefault("source_episode_index", index)
        new = self.layout.add(layouts.Recorded(rows, episode.tasks, videos, images, extras))
        if new != index:
            self.report.numbers[index] = new

    def _cut(self, index: int, view: str, clip: Clip, first: int, stop: int) -> Any:
        context = clip.stream.codec_context
        self._formats.setdefault(view, (clip.codec, str(context.pix_fmt)))
        if clip.truncated:
            raise UserError(f"{clip.path} is truncated; repair or remove episode {index} first")
        if clip.separable(first, stop):
            return Cut(clip, first, stop)
        why = "does not begin at a keyframe" if first not in clip.keys else "ends between B-frames"
        self.report.encoded.append((index, view, why))
        self._again.mkdir(exist_ok=True)
        path = self._again / f"{len(self.report.encoded)}.mp4"
        return Cut(_encode_again(clip, first, stop, path), 0, stop - first)

    def _rows(self, index: int) -> pa.Table:
        """Its rows, with text columns as numbers and the columns that lerobot looks for."""
        dataset, table = self.dataset, self.dataset.table(index)
        parsed = dataset.rows(index)
        for kind, places in dataset.columns.items():
            for name, (start, stop) in places.items():
                if columns.is_text(table.schema, name):
                    values = np.ascontiguousarray(parsed[kind][:, start:stop])
                    place = table.schema.get_field_index(name)
                    table = table.set_column(place, name, columns.vectors(values))
        if "timestamp" not in table.column_names:
            table = table.append_column(
                "timestamp", pa.array(parsed["timestamp"].astype(np.float32))
            )
        if "task_index" in table.column_names and dataset.task_names:
            numbers = table["task_index"].to_pylist()
            texts = [dataset.task_names.get(number, "") for number in numbers]
            tasks = self.layout.tasks
            fresh = [tasks.setdefault(text, len(tasks)) for text in texts]
            place = table.schema.get_field_index("task_index")
            table = table.set_column(place, "task_index", pa.array(fresh, pa.int64()))
        return table.replace_schema_metadata(None)

    def close(self, card: Embodiment | None) -> None:
        """Write what belongs to all episodes."""
        dataset = self.dataset
        self.report.episodes, self.report.rows = len(self.layout.episodes), self.layout.rows
        for name in (gear.MODALITY, gear.TAG, *gear.RELATIVE):
            if card is None and (dataset.root / name).is_file():
                (self.layout.work / "meta").mkdir(parents=True, exist_ok=True)
                shutil.copy2(dataset.root / name, self.layout.work / name)
        if card is not None:
            gear.write(self.layout.work, dataset, card)
        shutil.rmtree(self._again, ignore_errors=True)
        robot = str(dataset.info.get("robot_type") or "unknown")
        self.layout.close(robot, dataset.fps, self._features())

    def _features(self) -> dict[str, Any]:
        dataset, fps = self.dataset, lerobot.whole(self.dataset.fps)
        features: dict[str, Any] = {}
        for key, feature in dataset.info["features"].items():
            features[key] = dict(feature)
            if key in dataset.views:
                fresh = lerobot.video_feature(dataset.views[key], *self._formats[key], dataset.fps)
                features[key] = {**feature, "shape": fresh["shape"], "info": fresh["info"]}
                features[key].pop("video_info", None)
        schema = dataset.table(dataset.episodes[0].index).schema
        for kind, places in dataset.columns.items():
            names = dataset.state_names if kind == "state" else dataset.action_names
            for key, (start, stop) in places.items():
                features.setdefault(key, lerobot.vector_feature(names[start:stop]))
        features = {
            k: v for k, v in features.items() if k in dataset.views or k in schema.names
        } | lerobot.counter_features()
        for key, feature in features.items():
            feature.pop("fps", None)
            if self.to == "v3.0" and key not in dataset.views:
                feature["fps"] = fps
        return features


def _encode_again(clip: Clip, first: int, stop: int, path: Path) -> Clip:
    """A file of these frames alone, encoded by ``Encoder``."""
    encoder = Encoder(path, clip.fps, clip.size_px)
    for start in range(first, stop, 64):
        encoder.write(clip.read(np.arange(start, min(start + 64, stop))), keyframe=start == first)
    encoder.close()
    return Clip(path)
