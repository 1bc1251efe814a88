"""Short videos for notebooks and pages: H.264 in MP4, small ones enlarged by whole pixels.

```python
video_html(frames, fps=5)                       # last expression of a cell: an inline player
write_video(frames, out / "dream.mp4", fps=5)
```
"""

from __future__ import annotations

import base64
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np


def upscale(frames: np.ndarray, factor: int = 4) -> np.ndarray:
    """Nearest-neighbour enlargement of uint8 ``[..., h, w, 3]``: pixels stay pixels."""
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def write_video(frames: np.ndarray, path: str | Path, fps: float, min_px: int = 256) -> Path:
    """H.264 in MP4, as every browser plays it; small videos are enlarged by whole pixels.

    Args:
        frames: uint8 ``[t, h, w, 3]``.
        fps: frames per second.
        min_px: shorter sides below this are enlarged (nearest neighbour) to reach it.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(encode_mp4(frames, fps, min_px))
    return Path(path)


def encode_mp4(frames: np.ndarray, fps: float, min_px: int = 256) -> bytes:
    """The bytes of `write_video`'s file.

    Raises:
        ValueError: ``frames`` is not uint8 ``[t, h, w, 3]`` with at least one frame.
    """
    import av

    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"expected uint8 [t, h, w, 3], got {frames.dtype} {frames.shape}")
    frames = upscale(frames, max(1, -(-min_px // min(frames.shape[1:3]))))
    # 4:2:0 video needs even sides; repeat the last row or column rather than cut one off.
    frames = np.pad(
        frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge"
    )
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"}
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def video_html(frames: np.ndarray, fps: float, width_px: int = 320, min_px: int = 256) -> Any:
    """An inline looping player of uint8 ``[t, h, w, 3]`` for a notebook, also in its HTML: displays
    as the cell's value.
    """
    from IPython.display import HTML

    return HTML(video_tag(encode_mp4(frames, fps, min_px), width_px))


def video_tag(mp4: bytes, width_px: int = 320) -> str:
    """``<video>`` with the file inside it."""
    data = base64.b64encode(mp4).decode("ascii")
    return (
        f'<video controls loop muted autoplay playsinline style="width:{width_px}px;max-width:100%"'
        f' src="data:video/mp4;base64,{data}"></video>'
    )
