"""A policy on another machine: ``RemotePolicy("ws://10.0.0.5:8000", card)``.

It speaks to ``dreamzero serve`` and to other servers of the same protocol: the release's, RoboArena's and
openpi's. Which it is shows when the connection opens: ours takes the subprotocol and sends its card,
RoboArena's send a `ServerConfig`, openpi's send what they like.
"""

from __future__ import annotations

import time
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ..data.canvas import resize
from ..embodiments import FRAMES_PER_LATENT, Embodiment
from ..errors import UserError
from ..robots.uri import POLICY_SCHEMES, parse
from ..types import ActionChunk
from .connection import Connection, Lost
from .files import read_token
from .messages import Dialect, ServerConfig
from .protocol import ProtocolError
from .wire import wire


class RemotePolicy:
    """Asks a server for its chunks; the same chunks as its policy would give here.

    What is observed before the first ``act`` of an episode counts with its newest frame; between two
    ``act`` a whole block of frames continues the context, and anything else its newest frame alone.

    Args:
        uri: ``ws://HOST:PORT`` or ``wss://HOST``.
        card: of the robot. A server of this project tells its own, with the rates its model was
            trained with, which ``card`` is from then on.
        token_file: file whose one line is the server's token.
        ca: certificates to trust (PEM), for a server that signed its own.
        timeout_s: an answer may take so long; a first one may have to compile.
        connect_s: connecting may take so long.

    Raises:
        UserError: nobody answers, somebody else does, or the server wants another robot.
    """

    def __init__(
        self,
        uri: str,
        card: Embodiment,
        *,
        token_file: str | Path | None = None,
        ca: str | Path | None = None,
        timeout_s: float = 120.0,
        connect_s: float = 10.0,
    ) -> None:
        self.uri, self.card = uri, card
        token = None if token_file is None else read_token(token_file)
        self._connection = Connection(uri, token, ca, timeout_s, connect_s)
        # Without this a policy that is simply forgotten leaves a thread and a socket behind.
        weakref.finalize(self, self._connection.close)
        self._session_id = str(uuid.uuid4())
        self._dialect: Dialect = "roboarena"
        self._size: tuple[int, int] | None = None
        self._prompt: str | None = None
        self._frames: dict[str, list[np.ndarray]] = {}
        self._state: np.ndarray | None = None
        self._seen, self._first = 0, True
        self._connect()

    @classmethod
    def open(cls, spec: str, card: Embodiment) -> RemotePolicy:
        """From one line: ``wss://HOST:PORT?token-file=FILE&ca=FILE&timeout=SECONDS``."""
        uri = parse(spec, POLICY_SCHEMES)
        uri.allow("token-file", "ca", "timeout")
        return cls(
            urlsplit(spec)._replace(query="").geturl(),
            card,
            token_file=uri.query.get("token-file"),
            ca=uri.query.get("ca"),
            timeout_s=uri.number("timeout", 120),
        )

    def close(self) -> None:
        """Say goodbye; ``reset`` would connect again."""
        self._connection.close()

    def reset(self, prompt: str) -> None:
        """Start an episode; a connection that was lost since the last is made again, once.

        Raises:
            UserError: nobody answers.
        """
        self._prompt, self._first = prompt, True
        self._frames, self._state, self._seen = {}, None, 0
        if self._connection.alive:
            if self._dialect == "openpi":  # has no such request; one frame begins a window
                return
            try:
                self._connection.exchange({"endpoint": "reset", "session_id": self._session_id})
                return
            except Lost:
                pass
        self._connect()

    def observe(self, frames: Mapping[str, np.ndarray], state: np.ndarray) -> None:
        """What was seen since the last call; it goes out with the next ``act``.

        Args:
            frames: view -> uint8 ``[t, h, w, 3]``, at ``card.video_hz``.
            state: float32 ``[s]``, SI units, now.

        Raises:
            UserError: a view is missing, or is no video; a state of another size.
        """
        if self._prompt is None:
            raise UserError("observe before reset: call policy.reset(instruction) first")
        state = np.array(state, np.float32)
        if state.shape != (self.card.state_dim,) or not np.isfinite(state).all():
            raise UserError(
                f"state must be {self.card.state_dim} finite numbers for {self.card.name}, "
                f"got shape {state.shape}"
            )
        clips = {view: _clip(frames, view) for view in self.card.views}
        counts = {len(clip) for clip in clips.values()}
        if len(counts) != 1:
            raise UserError(f"views differ in frames: {sorted(counts)}")
        self._seen += counts.pop()
        for view, clip in clips.items():
            kept = [*self._frames.get(view, []), *clip.copy()]
            self._frames[view] = kept[-self.card.frames_per_block :]
        self._state = state

    def act(self) -> ActionChunk:
        """The server's next chunk; ``info`` has what it tells, and ``round_trip_s``.

        Raises:
            UserError: nothing new was observed; the server refused, vanished, took too long, or
                answered with something that is no chunk of this robot. ``reset`` connects again.
        """
        if self._state is None or self._prompt is None or not self._seen:
            raise UserError("act before observe: the policy has not seen anything new")
        message = self._observation(self._state)
        message |= {"prompt": self._prompt, "session_id": self._session_id}
        if self._dialect != "openpi":
            message["endpoint"] = "infer"
        began_s = time.perf_counter()
        try:
            answer = self._connection.exchange(message)
        except Lost as error:
            self._connection.fail(f"the connection is lost ({error}); reset() makes it anew", error)
        chunk = self._chunk(answer, time.perf_counter() - began_s)
        self._frames, self._seen, self._first = {}, 0, False
        return chunk

    def _observation(self, state: np.ndarray) -> dict[str, Any]:
        """Frames and state under their names on the wire."""
        whole = self._seen == self.card.frames_per_block and not self._first
        frames = {v: np.stack(kept if whole else kept[-1:]) for v, kept in self._frames.items()}
        if self._dialect != "dreamzero":
            if whole:
                # Other servers take the last four of a block and hold each for two.
                step = self.card.frames_per_block // FRAMES_PER_LATENT
                frames = {view: clip[step - 1 :: step] for view, clip in frames.items()}
            if self._size is not None:
                frames = {view: resize(clip, self._size) for view, clip in frames.items()}
        found: dict[str, Any] = dict(wire(self.card).write(frames, state))
        if self._dialect == "dreamzero" and whole:
            found["executed_steps"] = self.card.horizon
        return found

    def _chunk(self, answer: Any, seconds: float) -> ActionChunk:
        if isinstance(answer, str):
            self._connection.fail(f"answered: {answer[:500]}")
        told = answer if isinstance(answer, dict) else {"actions": answer}
        actions: Any = told.get("actions")
        wide = isinstance(actions, np.ndarray) and actions.ndim == 2 and actions.dtype.kind in "fiu"
        if not wide or actions.shape[1] != self.card.action_dim or not len(actions):
            shown = getattr(actions, "shape", type(actions).__name__)
            self._connection.fail(
                f"answered with {shown}, which is no chunk of {self.card.name}: float "
                f"[k, {self.card.action_dim}]"
            )
        if not np.isfinite(actions).all():
            self._connection.fail("answered with actions that are not finite")
        info = dict(told.get("info") or {}) | {"round_trip_s": seconds}
        if told.get("server_timing"):
            info["server_timing"] = told["server_timing"]
        rate_hz = float(told.get("rate_hz") or self.card.action_hz)
        return ActionChunk(actions.astype(np.float32), rate_hz, told.get("video"), info)

    def _connect(self) -> None:
        """Connect, and see whether this server is for our robot."""
        first, ours = self._connection.open()
        self._size = None
        if ours:
            self._dialect, self.card = "dreamzero", self._same_robot(first)
            return
        try:
            config = ServerConfig.from_message(first)
        except ProtocolError as error:
            self._connection.fail(f"sent a configuration that makes no sense: {error}", error)
        self._dialect = "openpi" if config is None else "roboarena"
        if config is None:
            return
        self._size, have = config.image_resolution, wire(self.card).config
        for wants, has, what in (
            (config.n_external_cameras, have.n_external_cameras, "external cameras"),
            (int(config.needs_wrist_camera), int(have.needs_wrist_camera), "wrist cameras"),
            (int(config.needs_stereo_camera), int(have.needs_stereo_camera), "stereo cameras"),
        ):
            if wants > has:
                self._connection.fail(f"wants {wants} {what}; {self.card.name} offers {has}")
        if config.action_space != have.action_space:
            self._connection.fail(f"answers with {config.action_space}, not {have.action_space}")

    def _same_robot(self, first: Any) -> Embodiment:
        try:
            about = first["dreamzero"]
            theirs = Embodiment.from_json(about["card"])
        except (KeyError, TypeError, ValueError) as error:
            self._connection.fail(f"sent a card that cannot be read ({error!r})", error)
        ours = self.card
        for what, a, b in (
            ("cameras", _short(theirs), _short(ours)),
            ("state", theirs.state, ours.state),
            ("actions", theirs.action, ours.action),
        ):
            if a != b:
                shown = [", ".join(str(getattr(x, "key", x)) for x in side) for side in (a, b)]
                self._connection.fail(
                    f"dreamzero {about.get('version')} serves {theirs.name} there, whose {what} "
                    f"({shown[0]}) are not those of {ours.name} ({shown[1]})"
                )
        return theirs


def _clip(frames: Mapping[str, np.ndarray], view: str) -> np.ndarray:
    name = view if view in frames else view.rsplit(".", 1)[-1]
    if name not in frames:
        raise UserError(f"observation lacks view {view!r}; it has {', '.join(frames)}")
    clip = np.asarray(frames[name])
    clip = clip[None] if clip.ndim == 3 else clip
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] != 3 or not clip.size:
        raise UserError(
            f"view {view!r} is {clip.dtype} {list(clip.shape)}; frames are uint8 [t, h, w, 3]"
        )
    return clip


def _short(card: Embodiment) -> tuple[str, ...]:
    return tuple(view.rsplit(".", 1)[-1] for view in card.views)
