"""Policies over a websocket: ``dreamzero serve``, and a client that is a ``Policy``.

In Python, with this package on the robot's machine:

    from dreamzero import embodiments
    from dreamzero.serve import RemotePolicy

    policy = RemotePolicy("ws://10.0.0.5:8000", embodiments.get("droid"))
    policy.reset("put the cup on the plate")
    policy.observe({"exterior_1_left": a, "exterior_2_left": b, "wrist_left": c}, state)
    chunk = policy.act()  # chunk.actions: float32 [24, 8], absolute, at 15 Hz

A DROID client needs none of it: openpi's or RoboArena's will do, or these lines (``msgpack_numpy`` is
openpi-client's):

    import websockets.sync.client as ws
    from openpi_client import msgpack_numpy as mp

    with ws.connect("ws://10.0.0.5:8000", compression=None, max_size=None) as server:
        config = mp.unpackb(server.recv())  # image_resolution [180, 320], n_external_cameras 2 ...
        request = {
            "endpoint": "infer",
            "session_id": "episode-17",
            "prompt": "put the cup on the plate",
            "observation/exterior_image_0_left": a,  # uint8 (180, 320, 3); later (8, 180, 320, 3)
            "observation/exterior_image_1_left": b,
            "observation/wrist_image_left": c,
            "observation/joint_position": joints,  # float (7,), rad
            "observation/gripper_position": gripper,  # float (1,)
        }
        server.send(mp.packb(request))
        actions = mp.unpackb(server.recv())  # float32 (24, 8), absolute; a text is an error

The first request of an episode carries one frame of each camera, later ones those since the last: the 8 of a
whole chunk at 5 fps (or 4 of them, or one of each of the 24 actions), or the newest alone after a part of
it, from which the model starts to remember anew. With ``"executed_steps": 24`` no doubt is left; `frames`
has the rule and `wire` the names for other robots.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import UserError

_LAZY = {
    "RemotePolicy": "client",
    "ServeConfig": "config",
    "Server": "server",
    "Source": "policies",
    "open_policy": "policies",
    "serving": "server",
    "source": "policies",
}
__all__ = [
    "RemotePolicy",
    "ServeConfig",
    "Server",
    "Source",
    "open_policy",
    "serving",
    "source",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f".{_LAZY[name]}", __name__)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in ("msgpack", "websockets", "prometheus_client"):
            raise
        raise UserError(
            f"serving needs {name}, which is not installed: pip install 'dreamzero[serve]'"
        ) from error
    return getattr(module, name)
