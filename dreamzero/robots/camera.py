"""Cameras beside an arm: simulated ones over a socket; devices, network cameras and files by PyAV."""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

import numpy as np

from ..embodiments import Embodiment
from ..errors import UserError
from .base import RobotFault
from .uri import CAMERA_SCHEMES, Uri, parse


class Camera(Protocol):
    """A source of pictures. ``read`` gives the newest one; it never hands out an old backlog."""

    def read(self) -> tuple[np.ndarray, float]:
        """Returns (uint8 ``[h, w, 3]`` RGB, monotonic seconds at which it was taken)."""

    def close(self) -> None:
        """Let the device go."""


def short(view: str) -> str:
    """Name of a view without the dataset's prefix: ``observation.images.front`` -> ``front``."""
    return view.rsplit(".", 1)[-1]


def addresses(uri: Uri, card: Embodiment) -> dict[str, str]:
    """View -> camera address, from an arm's ``camera=`` (the card's first view) and ``camera.side=``.

    Views that the card does not know are recorded, not shown to the policy.
    """
    known = {short(view): view for view in card.views}
    found = {}
    for key, address in uri.query.items():
        if key == "camera" and card.views:
            found[card.views[0]] = address
        elif key.startswith("camera."):
            name = key.removeprefix("camera.")
            found[known.get(name, f"observation.images.{name}")] = address
    return found


def open(address: str, size_px: tuple[int, int]) -> Camera:
    """Open a camera.

    Args:
        address: ``camera://host:port/view`` (a simulated one), ``v4l2:///dev/video0``,
            ``rtsp://host/path``, or ``file:///clip.mp4`` (repeated for ever, at its own rate).
        size_px: (height, width) that ``read`` shall give.

    Raises:
        UserError: the address is wrong, or nothing answers there.
    """
    uri = parse(address, CAMERA_SCHEMES)
    if uri.scheme != "rtsp":  # whose options are the camera's own
        uri.allow(*(("width", "height", "fps") if uri.scheme == "v4l2" else ()))
    if uri.scheme == "camera":
        return SimulatedCamera(uri, size_px)
    return AvCamera(address, size_px)


class SimulatedCamera:
    """Pictures of an emulator, sent over its side channel (see emulation/sidechannel.py) as they are
    taken, so that ``read`` never waits: as a camera of one's own would deliver them."""

    def __init__(self, uri: Uri, size_px: tuple[int, int]) -> None:
        from .emulation.sidechannel import Client

        self._view = uri.path.strip("/")
        self._size_px = size_px
        self._client = Client(uri.host, uri.port)
        self._error: UserError | None = None
        try:
            self._newest = self._next(after_s=0.0)
        except UserError:
            self._client.close()
            raise
        self._thread = threading.Thread(target=self._run, name=f"camera {uri.path}", daemon=True)
        self._thread.start()

    def read(self) -> tuple[np.ndarray, float]:
        if self._error is not None:
            raise self._error
        return self._newest

    def _run(self) -> None:
        try:
            while True:
                self._newest = self._next(after_s=self._newest[1])
        except UserError as error:
            self._error = error

    def _next(self, after_s: float) -> tuple[np.ndarray, float]:
        """The first picture later than ``after_s``, or the newest where none comes for a while."""
        request = {"get": "frame", "view": self._view, "after_s": after_s}
        answer, data = self._client.ask(request)
        shape = tuple(answer["shape"])
        if shape != (*self._size_px, 3):
            raise UserError(
                f"camera {self._view} gives {shape[0]} x {shape[1]} px and the arm's address asks "
                f"for {self._size_px[0]} x {self._size_px[1]}: set height= and width= alike"
            )
        return np.frombuffer(data, dtype=np.uint8).reshape(shape), float(answer["time_s"])

    def close(self) -> None:
        self._client.close()
        self._thread.join(1.0)


# How long a network camera may take to answer.
_ANSWER_S = 10.0
_REMEDY = {
    "v4l2": "a v4l2 device needs you in the group video",
    "rtsp": "is the camera on and in this network, and are name, password and path right?",
    "file": "is it a video?",
}


class AvCamera:
    """A v4l2 device, an RTSP stream or a video file, decoded on a thread of its own so that ``read``
    never waits.

    Args:
        address: ``v4l2:///dev/video0?fps=30&width=640&height=480``; ``rtsp://USER:PASSWORD@HOST/PATH``
            (over TCP; ``listen=1`` waits for an encoder that publishes to it); ``file:///clip.mp4``.

    Raises:
        UserError: the device, the stream or the file does not open.
        RobotFault (from ``read``): no picture for two seconds.
    """

    def __init__(self, address: str, size_px: tuple[int, int], patience_s: float = 2.0) -> None:
        import av

        uri = parse(address, CAMERA_SCHEMES)
        self._name = str(uri)  # without the password
        self._live = uri.scheme != "file"
        self._size_px = size_px
        self._patience_s = patience_s
        source, form, options = _source(uri, address)
        # PyAV's own deadline keeps a listening socket from ever accepting; that has one of its own.
        wait_s = (
            (_ANSWER_S, patience_s) if uri.scheme == "rtsp" and "listen" not in uri.query else None
        )
        try:
            self._container: Any = av.open(source, format=form, options=options, timeout=wait_s)
            self._stream = self._container.streams.video[0]
        except (OSError, ValueError, IndexError) as error:
            said = str(error).replace(source, self._name)
            raise UserError(f"camera {uri}: {said}; {_REMEDY[uri.scheme]}") from error
        self._fresh = threading.Condition()
        self._newest: tuple[np.ndarray, float] | None = None
        self._error = ""
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"camera {uri.path}", daemon=True)
        self._thread.start()

    def read(self) -> tuple[np.ndarray, float]:
        with self._fresh:
            self._fresh.wait_for(lambda: self._newest or self._error, self._patience_s)
            if self._error or self._newest is None:
                raise RobotFault(f"camera {self._name}: {self._error or 'no picture came'}")
            if time.monotonic() - self._newest[1] > self._patience_s:
                raise RobotFault(f"camera {self._name}: no picture for {self._patience_s} s")
            return self._newest

    def close(self) -> None:
        self._stopped = True
        self._thread.join(self._patience_s)
        if not self._thread.is_alive():  # else it waits for a stream that stands still: leave it
            self._container.close()

    def _run(self) -> None:
        try:
            height, width = self._size_px
            period_s = 0.0 if self._live else 1 / float(self._stream.average_rate or 30)
            while not self._stopped:
                for frame in self._container.decode(self._stream):
                    picture = frame.to_ndarray(width=width, height=height, format="rgb24")
                    with self._fresh:
                        self._newest = (picture, time.monotonic())
                        self._fresh.notify_all()
                    if self._stopped:
                        return
                    time.sleep(period_s)
                if self._live:
                    raise RobotFault("the device stopped sending")
                self._container.seek(0)
        except Exception as error:  # noqa: BLE001  handed to the reader, who can be told
            with self._fresh:
                self._error = str(error) or type(error).__name__
                self._fresh.notify_all()


def _source(uri: Uri, address: str) -> tuple[str, str | None, dict[str, str]]:
    """(what PyAV opens, format, options) of an address."""
    if uri.scheme == "file":
        return uri.path, None, {}
    if uri.scheme == "rtsp":
        listen = uri.query.get("listen") == "1"
        options = {"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay"}
        if listen:
            return (
                address.partition("?")[0],
                "rtsp",
                options
                | {
                    "rtsp_flags": "listen",
                    "listen_timeout": str(round(_ANSWER_S)),  # without it: out of range
                },
            )
        return address, "rtsp", options
    options = {"framerate": str(uri.number("fps", 30))}
    if "width" in uri.query or "height" in uri.query:
        options["video_size"] = f"{uri.number('width', 640)}x{uri.number('height', 480)}"
    return uri.path, "v4l2", options
