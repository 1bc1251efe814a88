"""Franka, YAM and others behind a companion computer: ``udp://10.0.0.5:47800?key=FILE``."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np

from ...embodiments import Embodiment
from ...errors import UserError
from ...types import Observation
from .. import camera
from ..base import Features, LinkLost, Robot, RobotFault
from ..camera import Camera
from ..clock import Clock
from ..uri import Uri
from .bodies import Flag, Reason, Role, describe
from .client import Client
from .protocol import MAX_FRAME, VERSION
from .session import load_key
from .sockets import check_key, resolve

OPTIONS = ("key", "insecure", "emulated", "loss_ms", "connect_ms", "camera", "width", "height")
_POLL_S = 0.01


class StreamRobot(Robot):
    """The arm behind a companion (see companion.py, README.md).

    A thread takes in what comes and keeps the newest state, so that ``observe`` and ``act`` never wait.
    ``time_s`` of an observation is when the companion read the joints, on this machine's clock. The companion holds
    when commands stop; ``stop`` tells it to, and waits until it says that it does. A dry run opens a session
    that may only observe.

    Args:
        uri: ``udp://host:port``. Options: ``key`` (file, see README.md), ``insecure=1``, ``loss_ms`` (500),
            ``connect_ms`` (3000), ``camera`` and its size as for other arms. No state for ``loss_ms`` is a
            lost link.
        card: an embodiment card whose limits are known.

    Raises (``connect``):
        UserError: key, version or arm are not those of the companion. LinkLost: nobody answers.
        RobotFault: another session commands the arm.
    """

    def __init__(
        self,
        uri: Uri,
        card: Embodiment,
        move: bool = True,
        speed: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        uri.allow(*OPTIONS, *(key for key in uri.query if key.startswith("camera.")))
        if card.state_dim != card.action_dim:
            raise UserError(
                f"{uri}: the stream reports what it commands, and {card.name} has {card.state_dim} "
                f"states for {card.action_dim} actions"
            )
        self.uri = uri
        self._camera_uris = camera.addresses(uri, card)
        size = (uri.number("height", card.canvas_px[0]), uri.number("width", card.canvas_px[1]))
        views = {view: size for view in self._camera_uris}
        super().__init__(card, Features.from_card(card, views), clock, move, speed)
        self._secret = load_key(uri.query["key"]) if "key" in uri.query else b""
        self._loss_ns = uri.number("loss_ms", 500) * 1_000_000
        self._patience_s = uri.number("connect_ms", 3000) / 1000
        self._client: Client | None = None
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._fresh = threading.Condition()
        self._stopped = False
        self._problem = ""
        self._cameras: dict[str, Camera] = {}

    def __str__(self) -> str:
        return f"{self.card.robot} on udp {self.uri.host}:{self.uri.port}"

    def stats(self) -> dict[str, float]:
        """Losses, delays, ages and counts of the link (``Client.stats``); empty while disconnected."""
        with self._fresh:
            return self._client.stats(time.monotonic_ns()) if self._client is not None else {}

    def stop(self) -> None:
        """Have the companion hold the arm where it is; returns when it says that it does."""
        if not self.connected:
            return
        if self.move:
            with self._fresh:
                client = self._need_link()
                self._transmit(client.hold(time.monotonic_ns()))
                self._fresh.wait_for(lambda: client.held or self._lost(client), self._loss_ns / 1e9)
                if not client.held:
                    raise self._gone("it has not confirmed that it holds")
        self.guard.reset(self._pose(self.observe(views=())), self.clock.now())

    def _open(self) -> None:
        family, address = resolve(self.uri)
        check_key(self.uri, address, bool(self._secret))
        role = Role.COMMAND if self.move else Role.OBSERVE
        client = Client(self.card.robot, self.card.action_dim, self._secret, role)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.connect(address)
        self._socket.settimeout(_POLL_S)
        self._client, self._stopped, self._problem = client, False, ""
        self._thread = threading.Thread(target=self._run, name=str(self), daemon=True)
        self._thread.start()
        with self._fresh:
            self._fresh.wait_for(
                lambda: client.state is not None or self._hopeless(client), self._patience_s
            )
            if client.state is None:
                raise self._unanswered(client)
        for view, source in self._camera_uris.items():
            self._cameras[view] = camera.open(source, self.features.views[view])

    def _observe(self, views: tuple[str, ...]) -> Observation:
        with self._fresh:
            client = self._need_link()
            state = client.state
            time_s = client.sampled_ns / 1e9
        assert state is not None
        if state.flags & Flag.FAULT:
            raise RobotFault(
                f"{self} reports {describe(state.fault, state.joint)} and holds: relieve the arm, clear "
                "it there, then stop() or connect again"
            )
        frames = {}
        for view in views:
            frames[view], time_s = self._cameras[view].read()
        return Observation(frames, np.array(state.values, np.float32), time_s)

    def _send(self, action: np.ndarray) -> np.ndarray:
        values = np.asarray(action, np.float32)
        with self._fresh:
            client, now = self._need_link(), time.monotonic_ns()
            if self.move and client.may_command(now):
                # The setpoint has until the next command, which comes as long after this one as this
                # came after the last.
                duration_s = min(1 / self.card.action_hz, (now - client.commanded_ns) / 1e9)
                self._transmit(client.command(tuple(values.tolist()), duration_s, now))
        return values

    def _close(self) -> None:
        with self._fresh:
            client, self._client = self._client, None
            self._stopped = True
            if client is not None and client.channel is not None:
                for _ in range(2):  # one may be lost; without any the session ends by its silence
                    self._transmit(client.bye(time.monotonic_ns()))
        if self._thread is not None:
            self._thread.join(1.0)
            self._thread = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for source in self._cameras.values():
            source.close()
        self._cameras = {}

    def _run(self) -> None:
        sock, client = self._socket, self._client
        assert sock is not None
        assert client is not None
        while not self._stopped:
            data = b""
            try:
                data = sock.recv(MAX_FRAME + 1)
            except TimeoutError:
                pass
            except OSError as error:
                self._problem = str(error.strerror)
                time.sleep(_POLL_S)
            now = time.monotonic_ns()
            with self._fresh:
                if data:
                    self._problem = ""
                    client.receive(data, now)
                    self._fresh.notify_all()
                if not self._stopped:
                    for frame in client.poll(now):
                        self._transmit(frame)

    def _transmit(self, frame: bytes) -> None:
        """Send or lose; what is wrong with the network is told when it matters."""
        try:
            if self._socket is not None:
                self._socket.send(frame)
        except OSError as error:
            self._problem = str(error.strerror)

    def _lost(self, client: Client) -> bool:
        return client.over or time.monotonic_ns() - client.state_ns > self._loss_ns

    def _need_link(self) -> Client:
        client = self._client
        if client is None:
            raise RobotFault(f"{self} is not connected: call connect(), or use `with`")
        if self._lost(client):
            # This process may have stood still, with states waiting in the socket: let them in first.
            self._fresh.wait_for(lambda: not self._lost(client), 5 * _POLL_S)
        if self._lost(client):
            raise self._gone("its companion has ended" if client.over else "")
        return client

    def _gone(self, what: str) -> LinkLost:
        what = what or f"no state for {self._loss_ns / 1e6:.0f} ms"
        problem = f" ({self._problem})" if self._problem else ""
        return LinkLost(
            f"lost {self}: {what}{problem}. The arm's end holds by itself; is the network there, and the "
            "companion running?"
        )

    def _hopeless(self, client: Client) -> bool:
        """Refused for good; a busy arm may become free while we wait."""
        return client.refusal is not None and client.refusal.reason == Reason.ARM

    def _unanswered(self, client: Client) -> UserError:
        """Why no session came about, in one line."""
        mine = "that of ?key" if self._secret else "this end has none"
        refusal = client.refusal
        if refusal is not None and refusal.reason == Reason.ARM:
            return UserError(
                f"{self}: the companion drives {refusal.text}, not a {self.card.robot} of "
                f"{self.card.action_dim} ({self.card.name})"
            )
        if refusal is not None:
            many = "too many sessions"
            who = "another session commands it" if refusal.reason == Reason.BUSY else many
            return RobotFault(f"{self} is busy: {who} {refusal.text}".rstrip())
        if client.other_version:
            return UserError(
                f"{self}: the companion speaks version {client.other_version} of the stream, this end "
                f"{VERSION}: bring both to the same release"
            )
        if client.counts["other key"]:
            return UserError(
                f"{self}: the companion's key is another ({mine}): copy its key file and give ?key=FILE"
            )
        if client.channel is not None:
            return LinkLost(
                f"{self}: the companion answers, but no state comes: is its arm switched on?"
            )
        problem = f" ({self._problem})" if self._problem else ""
        return LinkLost(
            f"{self}: no answer within {self._patience_s:g} s{problem}: is the companion running there, "
            "and the port open?"
        )
