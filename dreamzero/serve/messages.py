"""The messages of the wire, as dataclasses checked at the door.

Requests are the same in all dialects; what the server sends on connect and answers with differs:

| dialect | on connect | answer to ``infer`` |
|---|---|---|
| ``roboarena`` | the six fields of `ServerConfig` | array ``[k, a]`` |
| ``openpi`` | the same and a description of the chunk | map: ``actions``, ``server_timing`` |
| ``dreamzero`` | the same and ``dreamzero``: version, policy, card | openpi's map, and what a chunk tells |

The first two are the server's choice (``--protocol``); the third is for clients that ask for the
WebSocket subprotocol ``dreamzero.v1``, as ours do: strict clients know six fields and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from .. import __version__
from ..config import plain
from ..embodiments import Embodiment
from ..types import ActionChunk
from .protocol import ProtocolError

Dialect = Literal["roboarena", "openpi", "dreamzero"]
ActionSpace = Literal[
    "joint_position", "joint_velocity", "cartesian_position", "cartesian_velocity"
]
SUBPROTOCOL = "dreamzero.v1"
# The text that answers a reset.
RESET_DONE = "reset successful"
MAX_PROMPT, MAX_SESSION_ID = 4096, 256


@dataclass(frozen=True)
class ServerConfig:
    """What a server wants of a client, sent on connect.

    Attributes:
        image_resolution: (height, width) that images should have; None takes any.
        needs_wrist_camera, needs_stereo_camera, needs_session_id: as they say.
        n_external_cameras: 0 to 2.
        action_space: what the answered numbers are.
    """

    image_resolution: tuple[int, int] | None
    needs_wrist_camera: bool
    n_external_cameras: int
    needs_stereo_camera: bool = False
    needs_session_id: bool = True
    action_space: ActionSpace = "joint_position"

    def to_message(self) -> dict[str, Any]:
        """The six fields of the wire."""
        return plain(self)  # type: ignore[no-any-return]

    @classmethod
    def from_message(cls, message: Any) -> ServerConfig | None:
        """The configuration in what a server sent first; None if it sent none (openpi's do not).

        Raises:
            ProtocolError: it has the fields, and they make no sense.
        """
        if not isinstance(message, dict) or "n_external_cameras" not in message:
            return None
        size, cameras = message.get("image_resolution"), message["n_external_cameras"]
        sized = isinstance(size, (list, tuple)) and [type(n) for n in size] == [int, int]
        if size is not None and not (sized and min(size) > 0):
            raise ProtocolError(f"image_resolution {size!r} is neither [height, width] nor null")
        if type(cameras) is not int or cameras not in (0, 1, 2):
            raise ProtocolError(f"n_external_cameras {cameras!r} is not 0, 1 or 2")
        flags = {}
        for name in ("needs_wrist_camera", "needs_stereo_camera", "needs_session_id"):
            flags[name] = message.get(name, False)
            if not isinstance(flags[name], bool):
                raise ProtocolError(f"{name} {flags[name]!r} is neither true nor false")
        space: Any = message.get("action_space")
        if space not in get_args(ActionSpace):
            raise ProtocolError(f"action_space {space!r} is none of {get_args(ActionSpace)}")
        return cls(
            image_resolution=None if size is None else (size[0], size[1]),
            n_external_cameras=cameras,
            action_space=space,
            **flags,
        )


@dataclass(frozen=True)
class Infer:
    """A request for the next chunk.

    Attributes:
        observation: request key -> array, as the wire carried it (`wire.Wire` reads it).
        prompt: the instruction.
        session_id: whose episode; one connection may carry several.
        executed_steps: how many actions of the last chunk were executed, where the client says so.
    """

    observation: Mapping[str, Any]
    prompt: str
    session_id: str = ""
    executed_steps: int | None = None


@dataclass(frozen=True)
class Reset:
    """End the episode of a session; of all sessions of the connection where none is named."""

    session_id: str | None = None


def parse_request(message: Any) -> Infer | Reset:
    """The request in a message; fields that nobody asked for are let through unread.

    Raises:
        ProtocolError: what is missing or wrong, and what would be right.
    """
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise ProtocolError("a request is a map with texts as keys")
    endpoint = message.get("endpoint", "infer")
    session_id = _text(message, "session_id", MAX_SESSION_ID, None)
    if endpoint == "reset":
        return Reset(session_id)
    if endpoint != "infer":
        raise ProtocolError(f"endpoint {endpoint!r:.40} is neither 'infer' nor 'reset'")
    prompt = _text(message, "prompt", MAX_PROMPT, None)
    if prompt is None:
        raise ProtocolError("the request has no prompt: send the instruction as text")
    steps = message.get("executed_steps")
    if steps is not None and (not isinstance(steps, (int, np.integer)) or steps < 0):
        raise ProtocolError(f"executed_steps {steps!r:.40} is no count of actions")
    return Infer(message, prompt, session_id or "", None if steps is None else int(steps))


def _text(message: Mapping[str, Any], key: str, most: int, default: str | None) -> str | None:
    value = message.get(key, default)
    if value is not None and (not isinstance(value, str) or len(value) > most):
        raise ProtocolError(f"{key} should be a text of at most {most} characters")
    return None if value is None else str(value)


@dataclass(frozen=True)
class Answer:
    """A chunk on its way back.

    Attributes:
        chunk: of the policy.
        infer_s: what observing and acting took.
        context: "begun", "continued" or "restarted" (see `frames`).
        why: why the context was restarted.
    """

    chunk: ActionChunk
    infer_s: float
    context: str = "continued"
    why: str = ""
    timing: dict[str, float] = field(default_factory=dict)

    def to_message(self, dialect: Dialect) -> Any:
        """What ``dialect`` sends for it."""
        actions = np.ascontiguousarray(self.chunk.actions, dtype=np.float32)
        if dialect == "roboarena":
            return actions
        timing = {"infer_ms": 1e3 * self.infer_s, **self.timing}
        answer: dict[str, Any] = {"actions": actions, "server_timing": timing}
        if dialect == "openpi":
            return answer
        info = plain(self.chunk.info) | {"context": self.context}
        if self.why:
            info["why"] = self.why
        answer |= {"rate_hz": float(self.chunk.rate_hz), "info": info}
        return answer if self.chunk.video is None else answer | {"video": self.chunk.video}


def greeting(dialect: Dialect, config: ServerConfig, policy: str, card: Embodiment) -> Any:
    """The first message on a connection."""
    message = config.to_message()
    if dialect == "openpi":
        message |= {
            "embodiment": card.name,
            "action_horizon": card.horizon,
            "action_dim": card.action_dim,
            "action_hz": card.action_hz,
        }
    if dialect == "dreamzero":
        about = {"version": __version__, "policy": policy, "card": plain(card.to_json())}
        message["dreamzero"] = about
    return message
