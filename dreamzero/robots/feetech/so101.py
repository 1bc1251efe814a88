"""SO-100/101: five joints and a gripper of Feetech STS3215 on one bus, cameras beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np

from ...embodiments import Embodiment
from ...errors import UserError
from ...types import Observation
from .. import calibration, camera
from ..base import Features, Robot, RobotFault
from ..calibration import Calibration
from ..camera import Camera
from ..clock import Clock
from ..transport import Link, SerialLink
from ..uri import Uri
from . import protocol as feetech
from .bus import Bus, Silence

# How long a running loop makes do with the last reading.
SILENT_S = 0.25
OPTIONS = ("baud", "calibration", "camera", "width", "height", "relax")
_TORQUE = feetech.STS3215["torque_enable"]
_GOAL = feetech.STS3215["goal_position"]
_POSITION = feetech.STS3215["present_position"]
_MODEL = feetech.STS3215["model"]


class So101(Robot):
    """The arm behind a byte stream.

    Connecting reads where the arm stands, makes that the goal, and only then switches torque on, so
    that nothing jumps. Positions are read with one sync read and written with one sync write.

    Args:
        uri: ``serial:///dev/ttyACM0?baud=1000000`` or ``tcp://host:port``. Options: ``calibration``
            (JSON file), ``camera`` (address, for the first view of the card; ``camera.side`` and so
            on for others), ``width`` and ``height`` of the pictures in px,
            ``relax=1`` to switch torque off on close (the arm then sinks).
        card: an embodiment card of six action dimensions.
        calib: ticks to rad; default from the URI, else that of the emulator.
        link: how to open the byte stream (tests).
    """

    def __init__(
        self,
        uri: Uri,
        card: Embodiment,
        move: bool = True,
        calib: Calibration | None = None,
        clock: Clock | None = None,
        speed: float = 1.0,
        link: Callable[[Uri], Link] = SerialLink,
    ) -> None:
        uri.allow(*OPTIONS, *(key for key in uri.query if key.startswith("camera.")))
        if calib is None:
            path = uri.query.get("calibration")
            calib = Calibration.load(path) if path else calibration.SO101
        if len(calib.joints) != card.action_dim or card.state_dim != card.action_dim:
            raise UserError(
                f"{uri}: {len(calib.joints)} servos do not make the {card.action_dim} actions and "
                f"{card.state_dim} states of {card.name}"
            )
        self.uri = uri
        self.calibration = calib
        self._camera_uris = _camera_uris(uri, card)
        size = (uri.number("height", card.canvas_px[0]), uri.number("width", card.canvas_px[1]))
        views = {view: size for view in self._camera_uris}
        super().__init__(card, Features.from_card(card, views, calib.names), clock, move, speed)
        self._relax = uri.query.get("relax") == "1"
        self._open_link = link
        self._bus: Bus | None = None
        self._last: tuple[dict[int, int], float] = ({}, -math.inf)
        self._cameras: dict[str, Camera] = {}

    def __str__(self) -> str:
        return f"{self.card.robot} on {self.uri.path or f'{self.uri.host}:{self.uri.port}'}"

    @property
    def bus(self) -> Bus:
        """The open bus, for reading other registers; RobotFault while disconnected."""
        if self._bus is None:
            raise RobotFault(f"{self} is not connected: call connect(), or use `with`")
        return self._bus

    def _open(self) -> None:
        self._open_bus()
        for view, address in self._camera_uris.items():
            self._cameras[view] = camera.open(address, self.features.views[view])
        self._take_hold()

    def _open_bus(self) -> None:
        self._bus = Bus(self._open_link(self.uri))
        ids = self.calibration.ids
        for servo, model in self._bus.sync_read(_MODEL, ids).items():
            if model != feetech.MODEL_STS3215:
                raise RobotFault(
                    f"{self}: servo id {servo} says it is model {model}, not an STS3215 "
                    f"({feetech.MODEL_STS3215})"
                )

    def _take_hold(self) -> None:
        if self.move:
            ids = self.calibration.ids
            self.bus.sync_write(_GOAL, self.bus.sync_read(_POSITION, ids))
            for servo in ids:
                self.bus.write(servo, _TORQUE, 1)

    def _observe(self, views: tuple[str, ...]) -> Observation:
        try:
            ticks = self.bus.sync_read(_POSITION, self.calibration.ids, self.within_s)
            time_s = self.clock.now()
            self._last = ticks, time_s
        except Silence:
            # Commands come first: one reading may be missing, a silent bus is a fault.
            ticks, time_s = self._last
            if self.within_s is None or self.clock.now() - time_s > SILENT_S:
                raise
        frames = {}
        for view in views:
            frames[view], time_s = self._cameras[view].read()
        return Observation(frames, self.calibration.to_values(ticks), time_s)

    def _send(self, action: np.ndarray) -> np.ndarray:
        ticks = self.calibration.to_ticks(action)
        if self.move:
            self.bus.sync_write(_GOAL, ticks)
        return self.calibration.to_values(ticks)

    def reconnect(self) -> None:
        """As for every arm, but the cameras stay open: they hang on wires of their own."""
        self.connected = False
        self._drop_bus()
        try:
            self._open_bus()
            self._take_hold()
            self.connected = True
            self.guard.reset(self._pose(self.observe(views=())), self.clock.now())
        except BaseException:
            self.connected = False
            self._drop_bus()
            raise

    def relax(self) -> None:
        if self.move:
            self.bus.sync_write(_TORQUE, dict.fromkeys(self.calibration.ids, 0))

    def _close(self) -> None:
        # A wire that is gone takes the wish with it.
        with suppress(RobotFault):
            if self._relax and not self.lent:
                self.relax()
        self._drop_bus()
        for source in self._cameras.values():
            source.close()
        self._cameras = {}

    def _drop_bus(self) -> None:
        if self._bus is not None:
            self._bus.link.close()
            self._bus = None


def _camera_uris(uri: Uri, card: Embodiment) -> Mapping[str, str]:
    """View -> camera address. Views the card does not know are recorded, not shown to the policy."""
    known = {camera.short(view): view for view in card.views}
    found = {}
    for key, address in uri.query.items():
        if key == "camera" and card.views:
            found[card.views[0]] = address
        elif key.startswith("camera."):
            name = key.removeprefix("camera.")
            found[known.get(name, f"observation.images.{name}")] = address
    return found
