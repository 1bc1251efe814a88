"""Video files written: frames encoded to H.264 that trains well, or copied as they are encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np

from ..errors import UserError
from .video import Clip

GOP = 16
SMALL_PX = 128


def as_fraction(fps: float) -> Fraction:
    """Frame rate as a fraction a container can hold (29.97 becomes 30000/1001)."""
    near = Fraction(fps).limit_denominator(1001)
    return near if near > 0 else Fraction(fps)


class Frames(Protocol):
    """uint8 ``[t, h, w, 3]``: an array, or what reads a frame when it is asked for."""

    @property
    def dtype(self) -> Any: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


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
        self.fps = fps
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

    @property
    def seconds(self) -> float:
        """How long what was written so far lasts."""
        return self.frames / self.fps

    def accepts(self, frames: Frames) -> bool:
        """Whether frames can go into this file; see ``Copier.accepts``."""
        return frames.shape[1:3] == self.size_px

    def write(self, frames: Frames, keyframe: bool = True) -> None:
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


@dataclass(frozen=True)
class Cut:
    """Frames first to stop - 1 of a file, to be copied."""

    clip: Clip
    first: int
    stop: int


class Copier:
    """Puts cuts of files one behind the other into one file, byte for byte as they are encoded.

    Attributes:
        frames, bytes, seconds: what is in the file so far.
    """

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path), "w")
        self._stream: Any = None
        self._kind: tuple[Any, ...] = ()
        self.frames = self.bytes = 0
        self._end = 0
        self._last_dts = -(1 << 62)

    @property
    def seconds(self) -> float:
        return self._end * float(self._kind[-1]) if self._kind else 0.0

    def accepts(self, cut: Cut) -> bool:
        """Whether a cut can go into this file: the same codec with the same settings."""
        return self._stream is None or self._kind == _kind(cut.clip)

    def write(self, cut: Cut) -> None:
        """Append a cut, which ``Clip.separable`` has to allow and ``accepts`` to welcome."""
        source = cut.clip.stream
        if self._stream is None:
            self._stream = self._container.add_stream_from_template(source, opaque=True)
            self._kind = _kind(cut.clip)
        start = cut.clip.pts(cut.first)
        step = cut.clip.pts_step
        for _, packet in cut.clip.packets(cut.first, cut.stop):
            self.bytes += packet.size
            packet.pts += self._end - start
            # Decoding times have to increase; where two files meet, their own may not.
            dts = packet.pts if packet.dts is None else packet.dts + self._end - start
            packet.dts = self._last_dts = min(max(dts, self._last_dts + 1), packet.pts)
            packet.stream = self._stream
            self._container.mux(packet)
        self._end += cut.clip.pts(cut.stop - 1) - start + step
        self.frames += cut.stop - cut.first

    def close(self) -> None:
        """Finish the file."""
        self._container.close()


def _kind(clip: Clip) -> tuple[Any, ...]:
    context = clip.stream.codec_context
    return (clip.codec, clip.size_px, context.pix_fmt, context.extradata, clip.stream.time_base)
