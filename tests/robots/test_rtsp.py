"""A network camera, spoken to as one: RTSP over TCP on this machine, with an encoder that publishes."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np
import pytest

from dreamzero.errors import UserError
from dreamzero.robots import RobotFault, camera

av = pytest.importorskip("av")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Encoder(threading.Thread):
    """Publishes grey pictures that grow lighter, 30 a second, until told to end."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.over = url, threading.Event()

    def run(self) -> None:
        options = {"rtsp_transport": "tcp"}
        for _ in range(100):
            try:
                container = av.open(self.url, "w", format="rtsp", options=options)
                stream = container.add_stream("mpeg4", rate=30)
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
                container.start_encoding()
                break
            except OSError:  # nobody listens yet
                time.sleep(0.05)
        else:
            return
        level = 20
        try:
            while not self.over.is_set():
                level = min(level + 2, 220)
                picture = np.full((48, 64, 3), level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                time.sleep(1 / 30)
            container.close()
        except OSError:
            return  # the camera hung up first


def test_a_stream_is_shown_as_it_comes() -> None:
    url = f"rtsp://127.0.0.1:{free_port()}/live"
    encoder = Encoder(url)
    encoder.start()
    source = camera.open(f"{url}?listen=1", (24, 32))
    try:
        first, begin_s = source.read()
        assert first.shape == (24, 32, 3) and first.dtype == np.uint8
        deadline = time.monotonic() + 10
        while (newest := source.read())[0].mean() < first.mean() + 20:
            assert time.monotonic() < deadline, "the picture does not change"
            time.sleep(0.02)
        assert newest[1] > begin_s
        encoder.over.set()
        with pytest.raises(RobotFault, match=r"camera rtsp://127.0.0.1:\d+/live"):
            while True:
                source.read()
                time.sleep(0.05)
    finally:
        source.close()
        encoder.join(5)


def test_a_camera_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(UserError, match="is the camera on and in this network") as caught:
        camera.open(f"rtsp://user:secret@127.0.0.1:{free_port()}/stream1", (24, 32))
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="the host is missing"):
        camera.open("rtsp:///stream1", (24, 32))
