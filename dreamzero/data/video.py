"""Video files read by frame index, whatever the codec.

Robot learning reads a few dozen frames at random places of long files. A file is therefore indexed once,
without decoding (and, where frames are stored in the order they are shown, without reading it), and frames
are then reached with as few seeks as the keyframes allow. ``encode`` writes such files.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from ..errors import UserError

# Codecs whose decoder may be given a keyframe right after any other frame. Emptying it, as a seek
# does, costs more than such a frame.
_NO_FLUSH = ("av1", "vp9")
_SKIP_BYTES = 4 * 1024 * 1024


class Clip:
    """One video file, read by frame index.

    Attributes:
        path: the file.
        codec: name of the codec as stored ("h264", "av1").
        size_px: (height, width).
        fps: average rate the container states.
        times_s: float64 ``[t]``, presentation time of every frame, the first at 0.
        pts_step, step_s: the usual time between two frames, in the stream's units and in seconds.
        keys: frames at which decoding can begin, increasing.
        ordered: frames are stored in the order they are shown (no B-frames).
        truncated: the file ends in the middle of a packet (or holds none).
        seeks: how often reading had to begin anew at a keyframe, so far.

    Raises:
        UserError: the file is missing or is no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(f"video file {path} is missing")
        try:
            self._container = av.open(str(path))
            stream = self._container.streams.video[0]
        except (av.FFmpegError, IndexError) as error:
            raise UserError(f"{path} is not a readable video ({error})") from error
        self.stream = stream
        stream.codec_context.thread_count = 1
        self.codec = str(stream.codec_context.codec.canonical_name)
        self.size_px = (int(stream.height), int(stream.width))
        self.fps = float(stream.average_rate or 0.0)
        self.truncated = False
        self.ordered = not stream.codec_context.has_b_frames
        found = self._from_header() or self._from_packets()
        self._pts = sorted(pts for pts, _ in found)
        self._place = {p: i for i, p in enumerate(self._pts)}
        self.keys = sorted(self._place[p] for p, is_key in found if is_key) or [0]
        self.truncated |= stream.frames > len(found) or not found
        first = self._pts[0] if self._pts else 0
        self._unit_s = float(stream.time_base or 0)
        self.times_s = (np.asarray(self._pts, dtype=np.float64) - first) * self._unit_s
        alone = round(1 / (self.fps * self._unit_s)) if self.fps and self._unit_s else 1
        self.pts_step = int(np.median(np.diff(self._pts))) if len(self._pts) > 1 else max(alone, 1)
        self.step_s = self.pts_step * self._unit_s
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._frames: Iterator[Any] | None = None
        self._position = 0
        self._skip_to = -1
        self.seeks = 0

    def _from_header(self) -> list[tuple[int, bool]]:
        """(presentation time, whether a keyframe) of every frame as the header has it.

        Only where times of decoding, which the header lists, are those of presentation too; empty
        otherwise, and for containers that keep no such list.
        """
        entries = getattr(self.stream, "index_entries", None)
        if not self.ordered or entries is None or not 0 < len(entries) == self.stream.frames:
            return []
        self._container.seek(0)
        head = itertools.islice(self._container.demux(self.stream), min(8, len(entries)))
        if any(packet.pts != entry.timestamp for packet, entry in zip(head, entries, strict=False)):
            return []
        whole = [e for e in entries if not e.is_discard]
        there = [e for e in whole if e.pos + e.size <= self._container.size]
        self.truncated |= len(there) < len(whole)
        return [(e.timestamp, e.is_keyframe) for e in there]

    def _from_packets(self) -> list[tuple[int, bool]]:
        """The same, by going through the file."""
        found: list[tuple[int, bool]] = []
        try:
            self._container.seek(0)
            for packet in self._container.demux(self.stream):
                if packet.pts is not None:
                    found.append((packet.pts, packet.is_keyframe))
                    self.truncated |= packet.is_corrupt
        except av.FFmpegError:
            self.truncated = True
        return found

    def __len__(self) -> int:
        return len(self._pts)

    def pts(self, index: int) -> int:
        """Presentation time of a frame in the stream's own units."""
        return self._pts[index]

    def key_before(self, index: int) -> int:
        """The keyframe at which decoding has to begin for frame ``index``."""
        return self.keys[max(bisect_right(self.keys, index) - 1, 0)]

    def separable(self, first: int, stop: int) -> bool:
        """Whether frames first to stop - 1 can be cut out without decoding them."""
        ends = stop >= len(self) or self.ordered or stop in self.keys
        return bool(ends and first in self.keys)

    def packets(self, first: int, stop: int) -> Iterator[tuple[int, Any]]:
        """(frame, encoded packet) in the order of decoding, from the keyframe before ``first`` on.

        Frames beyond ``stop`` are left out. Reading frames begins anew afterwards.
        """
        self._frames = None
        key = self.key_before(first)
        self._container.seek(self._pts[key], stream=self.stream, backward=True)
        for packet in self._container.demux(self.stream):
            place = None if packet.pts is None else self._place.get(packet.pts)
            if place is None or place < key:
                continue
            if place >= stop and (self.ordered or packet.is_keyframe):
                return
            if place < stop:
                yield place, packet

    def digest(self, first: int, stop: int) -> str:
        """SHA-256 of all that decoding frames first to stop - 1 depends on.

        It stays the same where the frames are copied to another file without encoding them again.
        """
        found = hashlib.sha256(self.stream.codec_context.extradata or b"")
        for place, packet in self.packets(first, stop):
            found.update(f"{place - first} {packet.size}\n".encode())
            found.update(bytes(packet))
        return found.hexdigest()

    def _begin(self, key: int) -> None:
        """Go to a keyframe, without emptying the decoder where it lies close ahead."""
        ahead = self._position <= key and self._frames is not None
        if ahead and self.codec in _NO_FLUSH and self._bytes(self._position, key) < _SKIP_BYTES:
            self._skip_to = self._pts[key]
            return
        self.seeks += 1
        self._skip_to = -1
        self._container.seek(self._pts[key], stream=self.stream, backward=True)
        self._frames = self._decode()
        self._position = key

    def _bytes(self, first: int, stop: int) -> float:
        return (stop - first) * self._container.size / max(len(self), 1)

    def _decode(self) -> Iterator[Any]:
        for packet in self._container.demux(self.stream):
            if packet.pts is None or packet.pts >= self._skip_to:
                yield from packet.decode()

    def _advance(self, index: int) -> Any:
        """Decode on until frame ``index``; a frame between is dropped undisplayed."""
        assert self._frames is not None
        for frame in self._frames:
            place = self._place.get(frame.pts)
            if place is None or place < index:
                continue
            self._position = place + 1
            if place == index and not frame.is_corrupt:
                return frame
            break
        self._frames = None
        raise UserError(f"{self.path}: frame {index} cannot be decoded; the file is damaged")

    def read(
        self, indices: Sequence[int] | np.ndarray, size_px: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Frames at ``indices`` (any order, repeats allowed) as uint8 ``[n, h, w, 3]`` RGB.

        Args:
            size_px: (height, width) to average each frame down to; as stored by default.

        Raises:
            UserError: an index lies outside the file, or the data there cannot be decoded.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        height, width = size_px or self.size_px
        out = np.empty((len(wanted), height, width, 3), dtype=np.uint8)
        scale: dict[str, Any] = {}
        if size_px is not None:
            scale = {"height": height, "width": width, "interpolation": "AREA"}
        if not len(wanted):
            return out
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise UserError(
                f"{self.path} has {len(self)} frames; frame {wanted.min()}..{wanted.max()} asked for"
            )
        unique, inverse = np.unique(wanted, return_inverse=True)
        slots = [np.flatnonzero(inverse == n) for n in range(len(unique))]
        for index, (slot, *copies) in zip((int(u) for u in unique), slots, strict=True):
            key = self.key_before(index)
            # A seek empties the decoder; going on through a few frames is cheaper.
            if self._frames is None or not key - 4 <= self._position <= index:
                self._begin(key)
            try:
                frame = self._advance(index)
            except av.FFmpegError as error:
                self._frames = None
                raise UserError(
                    f"{self.path}: frame {index} cannot be decoded ({error})"
                ) from error
            rgb = self._reformatter.reformat(frame, format="rgb24", threads=1, **scale)
            out[slot] = rgb.to_ndarray()
            for copy in copies:
                out[copy] = out[slot]
        return out

    def close(self) -> None:
        """Release the file."""
        self._frames = None
        self._container.close()


class Clips:
    """The videos opened last; a forked or spawned worker opens its own."""

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, Clip] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.size,))

    def _get(self, path: Path) -> Clip:
        clip = self._open.pop(path, None) or Clip(path)
        self._open[path] = clip
        if len(self._open) > self.size:
            self._open.popitem(last=False)[1].close()
        return clip

    def about(self, path: Path) -> Clip:
        """The clip, for what it states; read frames through ``read`` only."""
        if os.getpid() != self._pid:
            self._reset()
        with self._lock:
            return self._get(path)

    def read(
        self, path: Path, indices: np.ndarray, size_px: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Frames of one file, uint8 ``[t, h, w, 3]``, as ``Clip.read``; several threads may ask."""
        if os.getpid() != self._pid:
            self._reset()
        with self._lock:
            return self._get(path).read(indices, size_px)
