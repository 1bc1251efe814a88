"""Features of frozen encoders on disk: computed once, found by what they were computed from.

    FOLDER/windows/KEY.safetensors      one file an episode; latents and what else is read
    FOLDER/prompts/KEY-....safetensors  embeddings of instructions (``prompts``)
    FOLDER/digests.json                 digests of videos by path, size and time, to be fast

KEY is a digest of everything that a file depends on: the encoded bytes of the episode's video, which of
its frames each window shows, the card's canvas, and the encoders' weights. So nothing stale is ever
taken, a dataset may move or be converted, and several trainings may share a folder. Actions and states
are not in it: they depend on statistics, and reading them costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils import data

from ..data.mixture import Ready
from ..data.recorded import RecordedWindows
from ..data.windows import WindowBatch, WindowDataset
from ..errors import UserError, make_folder
from ..types import Batch
from .features import FeatureEncoder

_FORMAT = "2"
Shard = tuple[int, int]


class FeatureCache:
    """A folder of features."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._digests = _Digests(self.folder / "digests.json")

    def path(self, key: str) -> Path:
        """File of the episode with this key."""
        return self.folder / "windows" / f"{key}.safetensors"

    def keys(self, windows: WindowDataset, encoder: FeatureEncoder) -> dict[Shard, str]:
        """The key of every episode that has windows."""
        card = windows.card
        found: dict[Shard, str] = {}
        for (which, episode), numbers in shards(windows).items():
            dataset = windows.datasets[which]
            shown = [windows.shown(i) for i in numbers]
            views = []
            for view in card.views:
                places = dataset.frame_of_row(episode, view)
                first, times = dataset.frame_times(episode, view)
                clip = dataset.clips.about(dataset.episode(episode).videos[view].path)
                video = self._digests.of(clip, first, first + len(times))
                views.append([video, [(places[rows] - first).tolist() for rows in shown]])
            facts = {
                "format": _FORMAT,
                "encoders": encoder.fingerprint,
                "canvas": [card.layout, *card.canvas_px],
                "views": views,
            }
            text = json.dumps(facts, sort_keys=True)
            found[which, episode] = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._digests.save()
        return found

    def precompute(
        self,
        windows: WindowDataset,
        encoder: FeatureEncoder,
        progress: bool = True,
        workers: int = 0,
    ) -> CachedWindows:
        """Encode what is not there yet; a run that was killed goes on where it stopped.

        Args:
            workers: processes that decode while this one encodes.
        """
        from tqdm.auto import tqdm

        make_folder(self.folder / "windows")
        keys, own = self.keys(windows, encoder), shards(windows)
        there = {shard for shard, key in keys.items() if _readable(self.path(key))}
        todo = [shard for shard in keys if shard not in there]
        bar = tqdm(total=len(keys), initial=len(there), desc="encode windows", disable=not progress)
        jobs = _Videos(windows, [own[shard] for shard in todo])
        loader: Iterable[Tensor] = data.DataLoader(jobs, batch_size=None, num_workers=workers)
        with bar:
            for shard, video in zip(todo, loader, strict=True):
                features = encoder.encode(video)
                tensors = {name: x.cpu().contiguous() for name, x in features.items()}
                save(tensors, self.path(keys[shard]), {"sha256": content(tensors)})
                bar.update()
        return CachedWindows(windows, encoder, [self.path(key) for key in keys.values()])

    def open(self, windows: WindowDataset, encoder: FeatureEncoder) -> CachedWindows:
        """The features of these windows; UserError if some are not there."""
        paths = [self.path(key) for key in self.keys(windows, encoder).values()]
        absent = sum(not _readable(path) for path in paths)
        if absent:
            raise UserError(
                f"{self.folder} lacks the features of {absent} of {len(paths)} episodes under these "
                "settings and encoders: run `dreamzero data precompute` with the same ones"
            )
        return CachedWindows(windows, encoder, paths)

    def verify(self) -> list[Path]:
        """Files whose content is not what was written."""
        return [path for path in sorted(self.folder.glob("windows/*")) if not _intact(path)]

    def prune(self, keep: Iterable[str]) -> list[Path]:
        """Remove every file of windows but those of these keys; returns what was removed."""
        kept = {self.path(key) for key in keep}
        gone = [path for path in sorted(self.folder.glob("windows/*")) if path not in kept]
        for path in gone:
            path.unlink()
        return gone


class CachedWindows(Ready, RecordedWindows):
    """Windows whose video was encoded before, read from their files whenever they are asked for.

    Attributes:
        bytes: of all files.
    """

    def __init__(
        self, windows: WindowDataset, encoder: FeatureEncoder, paths: Sequence[Path]
    ) -> None:
        super().__init__(windows)
        self.encoder = encoder
        own = shards(windows).items()
        self._files = {
            shard: (path, numbers[0]) for path, (shard, numbers) in zip(paths, own, strict=True)
        }
        self.bytes = sum(path.stat().st_size for path in paths)
        self._open: OrderedDict[Path, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_open", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _open=OrderedDict(), _lock=threading.Lock())

    def batch(self, index: Sequence[int] | Tensor) -> Batch:
        """The windows of these numbers."""
        indices = [int(i) for i in index]
        rows = [self._features(i) for i in indices]
        features = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        vectors = [self.windows.vectors(i) for i in indices]
        action, state, mask = (
            torch.from_numpy(np.stack([v[k] for v in vectors])) for k in range(3)
        )
        return self.encoder.assemble(
            features,
            WindowBatch(
                video=torch.empty(0),
                action=action,
                state=state,
                action_mask=mask,
                frame_mask=torch.empty(0),
                has_action=torch.tensor([v[3] for v in vectors]),
                prompt=[self.windows.prompt(i) for i in indices],
                embodiment=self.windows.card.name,
            ),
        )

    def _features(self, index: int) -> dict[str, Tensor]:
        path, first = self._files[self.windows.shard(index)]
        with self._lock:
            file = self._open.pop(path, None)
            self._open[path] = file = safe_open(path, "pt") if file is None else file
            if len(self._open) > 64:
                self._open.popitem(last=False)
            row = index - first
            return {name: file.get_slice(name)[row] for name in file.keys()}  # noqa: SIM118


def shards(windows: WindowDataset) -> dict[Shard, list[int]]:
    """Window numbers of every episode that has some, in order."""
    found: dict[Shard, list[int]] = {}
    for i in range(len(windows)):
        found.setdefault(windows.shard(i), []).append(i)
    return found


class _Videos(data.Dataset[Tensor]):
    """The windows of one shard an item, uint8 ``[n, t, H, W, 3]``."""

    def __init__(self, windows: WindowDataset, shards: Sequence[Sequence[int]]) -> None:
        self.windows, self.shards = windows, shards

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> Tensor:
        numbers = self.shards[index]
        self.windows.warm(self.windows.shard(numbers[0]), numbers)
        return self.windows.batch(numbers).video


class _Digests:
    """Digests of videos, kept by path, size and time so that a file is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changed = False
        try:
            self._known = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self._known = {}

    def of(self, clip: Any, first: int, stop: int) -> str:
        stat = clip.path.stat()
        name = f"{clip.path.resolve()} {stat.st_size} {stat.st_mtime_ns} {first} {stop}"
        if name not in self._known:
            self._known[name] = clip.digest(first, stop)
            self._changed = True
        return str(self._known[name])

    def save(self) -> None:
        if not self._changed:
            return
        make_folder(self.path.parent)
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        partial.write_text(json.dumps(self._known, indent=0), encoding="utf-8")
        partial.replace(self.path)
        self._changed = False


def save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a file that is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Outside of the folder that is looked through, or a killed run would leave rubbish in it.
    partial = path.parent.parent / f".{path.name}.{os.getpid()}"
    save_file(tensors, partial, metadata)
    partial.replace(path)


def content(tensors: dict[str, Tensor]) -> str:
    """Digest of names and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {list(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _readable(path: Path) -> bool:
    """Whether a file is there and as long as its header says."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            return bool(file.metadata())
    except (SafetensorError, OSError):
        return False


def _intact(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return bool((file.metadata() or {}).get("sha256") == content(tensors))
    except (SafetensorError, OSError):
        return False
