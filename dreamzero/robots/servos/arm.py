"""An arm whose joints are servos on one bus, with cameras beside it: what all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import ClassVar

import numpy as np

from ...embodiments import Embodiment
from ...errors import UserError
from ...types import Observation
from .. import camera
from ..base import Features, Robot, RobotFault
from ..calibration import Calibration
from ..camera import Camera
from ..clock import Clock
from ..transport import Link, SerialLink
from ..uri import Uri
from .build import Build, Setting
from .bus import Bus, Silence
from .codec import Register

# A joint pushed a little beyond its servo's limits is drawn in, by no more than 5 degrees.
_NUDGE_TICKS = 57
# How long a running loop makes do with the last reading.
SILENT_S = 0.25


class ServoArm(Robot):
    """The arm behind a byte stream.

    Connecting reads where the arm stands, makes that the goal, sees to it that the servos have kept it,
    and only then switches torque on, so that nothing jumps. Positions are read with one sync read
    and written with one sync write. A driver names its bus and its arms, and checks its servos.

    Args:
        uri: ``serial:///dev/ttyACM0?baud=1000000`` or ``tcp://host:port``. Options: ``calibration``
            (JSON file, ours or LeRobot's), ``camera`` (address, for the first view of the card;
            ``camera.side`` and so on for others), ``width`` and ``height`` of the pictures in px,
            ``relax=1`` to switch torque off on close (the arm then sinks).
        card: an embodiment card of that robot, one action dimension a joint.
        calib: ticks to rad; default from the URI, else that of the emulator.
        link: how to open the byte stream (tests).
    """

    bus_type: ClassVar[type[Bus]]
    builds: ClassVar[Mapping[str, Build]]
    options: ClassVar[tuple[str, ...]] = (
        "baud", "calibration", "camera", "width", "height", "relax",
    )  # fmt: skip

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
        uri.allow(*self.options, *(key for key in uri.query if key.startswith("camera.")))
        if card.robot not in self.builds:
            raise UserError(f"{uri}: no {card.robot} among {', '.join(self.builds)}")
        self.build = self.builds[card.robot]
        if calib is None:
            path = uri.query.get("calibration")
            calib = Calibration.load(path) if path else self.build.calibration
        joints = {joint.name: joint for joint in calib.joints}
        if set(joints) != set(self.build.calibration.names):
            raise UserError(
                f"{uri}: the calibration is of {', '.join(calib.names)}; {card.robot} has "
                f"{', '.join(self.build.calibration.names)}"
            )
        calib = Calibration(tuple(joints[name] for name in self.build.calibration.names))
        if len(calib.joints) != card.action_dim or card.state_dim != card.action_dim:
            raise UserError(
                f"{uri}: {len(calib.joints)} servos do not make the {card.action_dim} actions and "
                f"{card.state_dim} states of {card.name}"
            )
        self.uri = uri
        self.calibration = self._given = calib
        self._camera_uris = camera.addresses(uri, card)
        size = (uri.number("height", card.canvas_px[0]), uri.number("width", card.canvas_px[1]))
        views = {view: size for view in self._camera_uris}
        super().__init__(card, Features.from_card(card, views, calib.names), clock, move, speed)
        self._relax = uri.query.get("relax") == "1"
        self._open_link = link
        self._bus: Bus | None = None
        self._held = False
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

    @property
    def servos(self) -> tuple[int, ...]:
        """Ids of all servos, shadows last."""
        return (*self.calibration.ids, *self.build.shadows.values())

    def register(self, name: str) -> Register:
        return self.bus_type.registers[name]

    def ask(self, name: str, servos: tuple[int, ...] = ()) -> dict[int, int]:
        """One register of the joints' servos (or of ``servos``): id -> value, as it stands there."""
        return self.bus.sync_read(self.register(name), servos or self.calibration.ids)

    def configure(self) -> list[str]:
        """Write what the arm's build asks of its servos' EEPROM, where it differs.

        Torque of a changed servo goes off, and an arm that was held sinks. For an arm that is not
        connected; other programs may have set up its servos in their own way.

        Returns:
            One line a change.
        """
        bus = self.bus_type(self._open_link(self.uri))
        done = []
        try:
            for servo, name, setting in self._settings():
                held = bus.read(servo, self.register(name))
                if not setting.met(held):
                    bus.unlock(servo)
                    bus.write(servo, self.register(name), setting.into(held))
                    bus.lock(servo)
                    done.append(f"servo id {servo}: {name} {held} -> {setting.into(held)}")
        finally:
            bus.link.close()
        return done

    def relax(self) -> None:
        """Torque off at every servo: the arm sinks."""
        off = dict.fromkeys(self.servos, 0)
        self.bus.sync_write(self.register("torque_enable"), off)

    def center(self) -> None:
        """Have every servo count its present position as the middle of its turn.

        Raises:
            UserError: servos that count turns do without.
        """
        raise UserError(
            f"{self}: its servos keep their homing offsets; one whose range goes through the end of "
            "its turn takes the extended position mode instead"
        )

    def reach(self) -> dict[int, tuple[int, int]]:
        """Id -> least and greatest tick that the servo takes as a goal."""
        low, high = self.ask("min_position"), self.ask("max_position")
        return {i: (low[i], high[i]) for i in self.calibration.ids}

    def _settings(self) -> Iterator[tuple[int, str, Setting]]:
        for joint in self.calibration.joints:
            for name, setting in self.build.settings(joint.name).items():
                yield joint.id, name, setting
            if shadow := self.build.shadows.get(joint.name):
                for name, setting in self.build.shadow_settings(joint.name, joint.id).items():
                    yield shadow, name, setting

    def _check(self) -> None:
        """RobotFault or UserError unless the servos are those of this arm, set up for position."""
        found = self.ask("model", self.servos)
        for joint in self.calibration.joints:
            for servo in (joint.id, self.build.shadows.get(joint.name, joint.id)):
                if found[servo] not in self.build.models[joint.name]:
                    usual = self.build.models[joint.name][0]
                    raise RobotFault(
                        f"{self}: servo id {servo} says it is model {found[servo]}, not an "
                        f"{self.bus.models[usual]} ({usual}); are the ids right?"
                    )
        offsets = self.ask("homing_offset")
        for joint in self._given.joints:
            if joint.homing_offset not in (None, offsets[joint.id]):
                raise RobotFault(
                    f"{self}: servo id {joint.id} ({joint.name}) has homing offset "
                    f"{offsets[joint.id]}, and the calibration was made with {joint.homing_offset}: "
                    "calibrate again, or give the file that belongs to this arm"
                )

    def _ticks(self, shown: Mapping[int, int]) -> dict[int, int]:
        """Ticks of the calibration for what the position registers show."""
        return dict(shown)

    def _shown(self, ticks: Mapping[int, int]) -> dict[int, int]:
        """What to write for ticks of the calibration."""
        return dict(ticks)

    def _positions(self) -> dict[int, int]:
        register = self.register("present_position")
        return self._ticks(self.bus.sync_read(register, self.calibration.ids, self.within_s))

    def _hold(self) -> None:
        """Torque on where the arm stands."""
        # Whoever stands outside of the calibrated range would be sent to its edge by the first command.
        ticks = self._positions()
        reach = {j.id: (j.min_tick, j.max_tick) for j in self.calibration.joints}
        inside = {i: min(max(tick, reach[i][0]), reach[i][1]) for i, tick in ticks.items()}
        goals = self._shown(inside)
        self.bus.sync_write(self.register("goal_position"), goals)
        for servo, kept in self.ask("goal_position").items():
            if kept != goals[servo] or abs(inside[servo] - ticks[servo]) > _NUDGE_TICKS:
                low, high = reach[servo]
                raise RobotFault(
                    f"{self}: servo id {servo} stands at {ticks[servo]} and has {kept} as its goal: "
                    f"move it inside its limits ({low}..{high}) by hand; torque stays off"
                )
        for servo in goals:
            self.bus.write(servo, self.register("torque_enable"), 1)
        self._held = True

    def _open(self) -> None:
        self._open_bus()
        for view, address in self._camera_uris.items():
            self._cameras[view] = camera.open(address, self.features.views[view])
        if self.move:
            self._hold()

    def _open_bus(self) -> None:
        self.within_s = None  # nobody waits for a command yet
        self._bus = self.bus_type(self._open_link(self.uri))
        self._check()
        self.calibration = self._given.within(self.reach())

    def reconnect(self) -> None:
        """As for every arm, but the cameras stay open: they hang on wires of their own."""
        self.connected = False
        self._drop_bus()
        try:
            self._open_bus()
            if self.move:
                self._hold()
            self.connected = True
            self.guard.reset(self._pose(self.observe(views=())), self.clock.now())
        except BaseException:
            self.connected = False
            self._drop_bus()
            raise

    def _observe(self, views: tuple[str, ...]) -> Observation:
        try:
            ticks, time_s = self._positions(), self.clock.now()
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
            self.bus.sync_write(self.register("goal_position"), self._shown(ticks))
        return self.calibration.to_values(ticks)

    def _close(self) -> None:
        # A wire that is gone takes the wish with it.
        with suppress(RobotFault):
            if self._bus is not None and self._held and self._relax and not self.lent:
                self.relax()
        self._held = False
        self._drop_bus()
        for source in self._cameras.values():
            source.close()
        self._cameras = {}

    def _drop_bus(self) -> None:
        if self._bus is not None:
            self._bus.link.close()
            self._bus = None
