"""A DROID client written from the protocol's facts (MODEL.md 8) with msgpack alone.

It shares no line with ``dreamzero.serve``: what both agree on is the wire. (openpi-client itself pins
numpy < 2 and cannot be installed beside this project.)
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import msgpack
import numpy as np
from websockets.sync.client import connect


def encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        form = {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str}
        return {**form, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(type(value))


def decode(found: dict[Any, Any]) -> Any:
    if b"__ndarray__" in found:
        flat = np.frombuffer(found[b"data"], np.dtype(found[b"dtype"]))
        return flat.reshape(found[b"shape"])
    if b"__npgeneric__" in found:
        return np.dtype(found[b"dtype"]).type(found[b"data"])
    return found


class Peer:
    """Connects, takes the server's first message, asks."""

    def __init__(self, uri: str, **options: Any) -> None:
        made = connect(uri, compression=None, max_size=None, proxy=None, close_timeout=2, **options)
        self.socket = made.__enter__()
        self.config = self.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.socket.__exit__(kind, error, trace)

    def ask(self, message: Any) -> Any:
        self.socket.send(msgpack.packb(message, default=encode))
        return self.receive()

    def receive(self) -> Any:
        data = self.socket.recv(timeout=30)
        if isinstance(data, str):
            return data
        return msgpack.unpackb(data, object_hook=decode)


def observation(count: int = 0, value: int = 0, **changes: Any) -> dict[str, Any]:
    """What a DROID robot sends: one frame a camera, or a clip of ``count``."""
    shape = (180, 320, 3) if count == 0 else (count, 180, 320, 3)
    return {
        "endpoint": "infer",
        "session_id": "episode-1",
        "prompt": "put the cup on the plate",
        "observation/exterior_image_0_left": np.full(shape, value + 1, np.uint8),
        "observation/exterior_image_1_left": np.full(shape, value + 2, np.uint8),
        "observation/wrist_image_left": np.full(shape, value + 3, np.uint8),
        "observation/joint_position": np.arange(7, dtype=np.float64) / 10,
        "observation/cartesian_position": np.zeros(6),
        "observation/gripper_position": np.array([0.5], np.float32),
        **changes,
    }
