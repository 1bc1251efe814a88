"""A remote policy before servers of another make: the release's, openpi's, and those that are none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.sync.server import serve

from dreamzero.errors import UserError
from dreamzero.serve import RemotePolicy

from .peer import decode, encode
from .spy import DROID

POSE = np.linspace(-1, 1, 8, dtype=np.float32)


def views(count: int) -> dict[str, np.ndarray]:
    return {view: np.full((count, 90, 160, 3), 7, np.uint8) for view in DROID.views}


def test_somebody_else_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for said in (
                b"220 mail.example ESMTP\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            ):
                there, _ = server.accept()
                with there:
                    there.recv(4096)
                    there.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        uri = f"ws://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{uri}: somebody answers, but not as a websocket"):
            RemotePolicy(uri, DROID)
        with pytest.raises(UserError, match="somebody refused with HTTP 200"):
            RemotePolicy(uri, DROID)
        thread.join()


@contextmanager
def foreign(first: Any, *answers: Any) -> Iterator[tuple[str, list[Any]]]:
    """A server of another make: says ``first``, then one answer a request; keeps what it was asked."""
    asked: list[Any] = []

    def handle(connection: Any) -> None:
        connection.send(first if isinstance(first, str) else msgpack.packb(first, default=encode))
        for message in connection:
            asked.append(msgpack.unpackb(message, object_hook=decode))
            answer = answers[min(len(asked), len(answers)) - 1]
            if answer is not None:
                packed = isinstance(answer, (str, bytes))
                connection.send(answer if packed else msgpack.packb(answer, default=encode))

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}", asked
        finally:
            server.shutdown()
            thread.join()


CONFIG = {"image_resolution": [180, 320], "needs_wrist_camera": True, "n_external_cameras": 2,
          "needs_stereo_camera": False, "needs_session_id": True,
          "action_space": "joint_position"}  # fmt: skip
CHUNK = np.arange(24 * 8, dtype=np.float32).reshape(24, 8)


def test_the_releases_server() -> None:
    """Four frames of a block at the size it asks for, and no word that it does not know."""
    with foreign(CONFIG, "reset successful", CHUNK) as (uri, asked):
        policy = RemotePolicy(uri, DROID)
        policy.reset("lift")
        for count in (1, 8):
            policy.observe(views(count), POSE)
            np.testing.assert_array_equal(policy.act().actions, CHUNK)
        policy.close()
    reset, first, second = asked
    assert reset == {"endpoint": "reset", "session_id": first["session_id"]}
    assert first["observation/exterior_image_0_left"].shape == (180, 320, 3)
    assert second["observation/wrist_image_left"].shape == (4, 180, 320, 3)
    assert sorted(second) == ["endpoint", "observation/exterior_image_0_left",
        "observation/exterior_image_1_left", "observation/gripper_position",
        "observation/joint_position", "observation/wrist_image_left", "prompt", "session_id",
    ]  # fmt: skip


def test_openpis_server() -> None:
    answer = {"actions": CHUNK.astype(np.float64), "server_timing": {"infer_ms": 50.0}}
    with foreign({"some": "metadata"}, answer) as (uri, asked):
        policy = RemotePolicy(uri, DROID)
        policy.reset("lift")
        policy.observe(views(1), POSE)
        chunk = policy.act()
        policy.close()
    assert chunk.actions.dtype == np.float32 and chunk.rate_hz == 15.0
    assert chunk.info["server_timing"] == {"infer_ms": 50.0}
    assert "endpoint" not in asked[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"needs_stereo_camera": True}, "wants 1 stereo cameras; droid offers 0"),
        ({"action_space": "joint_velocity"}, "answers with joint_velocity, not joint_position"),
        ({"n_external_cameras": 9}, "sent a configuration that makes no sense"),
    ],
)
def test_a_server_that_wants_something_else(change: dict[str, Any], says: str) -> None:
    with foreign(CONFIG | change, "x") as (uri, _), pytest.raises(UserError, match=says):
        RemotePolicy(uri, DROID)


def test_a_server_that_greets_with_an_error() -> None:
    said = "Robot policy not available"
    with foreign(said, "x") as (uri, _), pytest.raises(UserError, match=f"answered: {said}"):
        RemotePolicy(uri, DROID)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (CHUNK[:, :7], r"answered with \(24, 7\), which is no chunk of droid"),
        (CHUNK[0], r"answered with \(8,\)"),
        ({"action": CHUNK}, "answered with NoneType"),
        (CHUNK * np.nan, "answered with actions that are not finite"),
        (b"\xc1", "sent no msgpack message"),
        ("out of memory", "answered: out of memory"),
        (None, "no answer in 0.5 s"),
    ],
)
def test_answers_that_are_no_chunk(answer: Any, says: str) -> None:
    with foreign(CONFIG, "reset", answer) as (uri, _):
        policy = RemotePolicy(uri, DROID, timeout_s=0.5)
        policy.reset("lift")
        policy.observe(views(1), POSE)
        with pytest.raises(UserError, match=f"^{uri}: {says}"):
            policy.act()
