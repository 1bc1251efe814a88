"""Video files through PyAV: write H.264 that trains well, read any codec by frame index.

Robot learning reads a few dozen frames at random places of long files. So the writer sets keyframes close
together, and the reader learns once, without decoding, where frames and keyframes are and then seeks as
seldom as they allow.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from ..errors import UserError

GOP = 16
SMALL_PX = 128


def as_fraction(fps: float) -> Fraction:
    """Frame rate as a fraction a container can hold (29.97 becomes 30000/1001)."""
    near = Fraction(fps).limit_denominator(1001)
    return near if near > 0 else Fraction(fps)


class Encoder:
    """Appends frames to one H.264 file at a fixed rate.

    Small images (<= 128 px) keep their full colour resolution (4:4:4) at crf 10: at 64 x 64 a block of
    chroma would be as large as a gripper. Larger ones use 4:2:0 at crf 18. No B-frames, a keyframe every
    16 frames and wherever ``write(..., keyframe=True)`` asks for one.

    Args:
        path: file to write (overwritten).
        fps: frames per second.
        size_px: (height, width) of every frame.
    """

    def __init__(self, path: Path, fps: float, size_px: tuple[int, int]) -> None:
        height, width = size_px
        small = max(size_px) <= SMALL_PX or height % 2 == 1 or width % 2 == 1
        self.pixel_format = "yuv444p" if small else "yuv420p"
        self.size_px = size_px
        self.frames = 0
        self.bytes = 0
        self._container = av.open(str(path), "w")
        rate = as_fraction(fps)
        stream: Any = self._container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, self.pixel_format
        stream.codec_context.time_base = 1 / rate
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = GOP
        stream.codec_context.max_b_frames = 0
        stream.options = {
            "crf": "10" if small else "18",
            "preset": "veryfast",
            "forced-idr": "1",
            "sc_threshold": "0",
        }
        self._stream = stream
        self._reformatter = av.video.reformatter.VideoReformatter()

    def write(self, frames: np.ndarray, keyframe: bool = True) -> None:
        """Append uint8 ``[t, h, w, 3]`` RGB; the first frame is a keyframe where ``keyframe``."""
        if frames.dtype != np.uint8 or frames.shape[1:] != (*self.size_px, 3):
            raise UserError(
                f"video frames are {frames.dtype} {frames.shape}; this file takes uint8 "
                f"[t, {self.size_px[0]}, {self.size_px[1]}, 3]"
            )
        for i, image in enumerate(frames):
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = self._reformatter.reformat(rgb, format=self.pixel_format, threads=1)
            frame.pts = self.frames
            frame.time_base = self._stream.codec_context.time_base
            first = keyframe and i == 0
            frame.pict_type = (
                av.video.frame.PictureType.I if first else av.video.frame.PictureType.NONE
            )
            self._mux(self._stream.encode(frame))
            self.frames += 1

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            self.bytes += packet.size
            self._container.mux(packet)

    def close(self) -> None:
        """Flush the encoder and finish the file."""
        self._mux(self._stream.encode(None))
        self._container.close()


class Clip:
    """One video file, read by frame index.

    Attributes:
        path: the file.
        codec: name of the codec as stored ("h264", "av1").
        size_px: (height, width).
        fps: average rate the container states.
        times_s: float64 ``[t]``, presentation time of every frame, the first at 0.
        truncated: the file ends in the middle of a packet (or holds none).

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
        self._stream = stream
        stream.codec_context.thread_count = 1
        self.codec = str(stream.codec_context.codec.canonical_name)
        self.size_px = (int(stream.height), int(stream.width))
        self.fps = float(stream.average_rate or 0.0)
        self.truncated = False
        self._index(stream)
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._frames: Iterator[Any] | None = None
        self._position = 0

    def _index(self, stream: Any) -> None:
        pts: list[int] = []
        keys: list[int] = []
        try:
            for packet in self._container.demux(stream):
                if packet.pts is None:
                    continue
                pts.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
                self.truncated |= packet.is_corrupt
        except av.FFmpegError:
            self.truncated = True
        self.truncated |= stream.frames > len(pts) or not pts
        self._pts = sorted(pts)
        self._place = {p: i for i, p in enumerate(self._pts)}
        self._keys = sorted(self._place[p] for p in keys) or [0]
        first = self._pts[0] if self._pts else 0
        base = float(stream.time_base)
        self.times_s = (np.asarray(self._pts, dtype=np.float64) - first) * base

    def __len__(self) -> int:
        return len(self._pts)

    def _seek(self, index: int) -> None:
        self._container.seek(self._pts[index], stream=self._stream, backward=True)
        self._frames = self._container.decode(self._stream)
        self._position = index

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

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames at ``indices`` (any order, repeats allowed) as uint8 ``[n, h, w, 3]`` RGB.

        Raises:
            UserError: an index lies outside the file, or the data there cannot be decoded.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        out = np.empty((len(wanted), *self.size_px, 3), dtype=np.uint8)
        if not len(wanted):
            return out
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise UserError(
                f"{self.path} has {len(self)} frames; frame {wanted.min()}..{wanted.max()} asked for"
            )
        unique, inverse = np.unique(wanted, return_inverse=True)
        first_use = {int(u): np.flatnonzero(inverse == n) for n, u in enumerate(unique)}
        for index in (int(u) for u in unique):
            key = self._keys[max(bisect_right(self._keys, index) - 1, 0)]
            # A seek flushes the decoder; going on through a few frames is cheaper.
            if self._frames is None or not key - 4 <= self._position <= index:
                self._seek(key)
            try:
                frame = self._advance(index)
            except av.FFmpegError as error:
                self._frames = None
                raise UserError(
                    f"{self.path}: frame {index} cannot be decoded ({error})"
                ) from error
            rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
            slots = first_use[index]
            out[slots[0]] = rgb.to_ndarray()
            for slot in slots[1:]:
                out[slot] = out[slots[0]]
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

    def read(self, path: Path, indices: np.ndarray) -> np.ndarray:
        """Frames of one file as uint8 ``[n, h, w, 3]``; safe from several threads."""
        if os.getpid() != self._pid:
            self._reset()
        with self._lock:
            return self._get(path).read(indices)
