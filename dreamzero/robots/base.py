"""The contract of an arm: one class for simulated, emulated and real ones, SI units only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..embodiments import Embodiment
from ..errors import UserError
from ..types import Observation
from .clock import Clock, MonotonicClock
from .estop import EStop
from .safety import Decision, Guard, Limits


class RobotFault(UserError):
    """The arm, its wire or its camera failed while in use: what, where, and what to look at."""


class LinkLost(RobotFault):
    """The wire is gone; `Robot.reconnect()` may bring it back."""


class Stopped(RobotFault):
    """Somebody pressed the emergency stop; nothing moves until it is cleared."""


@dataclass(frozen=True)
class Recipe:
    """What ``robots.open`` was asked for: enough to open the arm again, in another process.

    Attributes:
        uri, card, move, speed, step_rad, workspace_m: its arguments, ``move`` decided.
    """

    uri: str
    card: Embodiment
    move: bool
    speed: float = 1.0
    step_rad: float | None = None
    workspace_m: tuple[tuple[float, float], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; ``from_json`` is the inverse."""
        return vars(self) | {"card": self.card.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """The recipe that ``to_json`` wrote."""
        box = data["workspace_m"]
        box = box and tuple((float(low), float(high)) for low, high in box)
        return cls(**(data | {"card": Embodiment.from_json(data["card"]), "workspace_m": box}))


@dataclass(frozen=True)
class Features:
    """What an arm has, readable while it is disconnected.

    Attributes:
        robot: model ("so101").
        joints: name of each action dimension, the gripper last.
        units: "rad" or "1" (gripper, 0 closed to 1 open) for each.
        lower, upper, velocity: limits of each, from the embodiment card.
        views: camera view -> (height, width) in pixels.
        rate_hz: rate at which commands are meant to come.
    """

    robot: str
    joints: tuple[str, ...]
    units: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    velocity: tuple[float, ...]
    views: Mapping[str, tuple[int, int]]
    rate_hz: float

    @classmethod
    def from_card(
        cls,
        card: Embodiment,
        views: Mapping[str, tuple[int, int]],
        joints: tuple[str, ...] = (),
    ) -> Features:
        """Features of the card's robot; joints are numbered where no ``joints`` are named."""
        names, units = [], []
        for part in card.action:
            for i in range(part.width):
                names.append(part.key if part.width == 1 else f"{part.key}_{i}")
                units.append(part.unit)
        return cls(
            robot=card.robot,
            joints=joints or tuple(names),
            units=tuple(units),
            lower=card.lower,
            upper=card.upper,
            velocity=card.velocity,
            views=dict(views),
            rate_hz=card.action_hz,
        )


class Robot(ABC):
    """An arm with cameras.

    A driver supplies ``_open``, ``_observe``, ``_send`` and ``_close``; the limits, and the
    order in which things happen, are here, so that no driver can forget them.

    Args:
        card: embodiment card of the arm.
        features: what the arm has.
        clock: what ``time_s`` is counted in; a simulated arm turns its own.
        move: false is a dry run: everything is computed and reported, nothing is sent.
        speed: part of the card's velocities that is allowed, in (0, 1].

    Attributes:
        guard: the limits that every command goes through.
        decision: what they made of the last one.
        recipe: how ``robots.open`` made this arm; None for one made by hand, which stays in this
            process.
        estop: the emergency stop it obeys; None for one that has no address.
        lent: it is being closed for somebody else to take over.
        within_s: what ``observe`` was given, for drivers.
    """

    recipe: Recipe | None = None
    estop: EStop | None = None
    lent = False
    within_s: float | None = None

    def __init__(
        self,
        card: Embodiment,
        features: Features,
        clock: Clock | None = None,
        move: bool = True,
        speed: float = 1.0,
    ) -> None:
        self.card = card
        self.features = features
        self.clock: Clock = clock or MonotonicClock()
        self.move = move
        self.guard = Guard(Limits.from_card(card, speed))
        self.decision: Decision | None = None
        self.connected = False

    def connect(self) -> None:
        """Open the wire and the cameras, read the pose, and take hold of the arm where it stands.

        Raises:
            UserError: the address, the permissions or the calibration are wrong.
            RobotFault: something did not answer. Stopped: the emergency stop is pressed.
        """
        if self.connected:
            return
        self._need_freedom()
        try:
            self._open()
            self.connected = True
            self.guard.reset(self._pose(self.observe(views=())), self.clock.now())
        except BaseException:
            self.close()
            raise

    def observe(
        self, views: Collection[str] | None = None, within_s: float | None = None
    ) -> Observation:
        """State now and the newest frame of each view (all of them, or only ``views``).

        Args:
            within_s: commands are due again then. A driver that has to ask may give its last reading
                (with its time) where no answer comes so soon, unless that keeps happening.

        Returns:
            frames uint8 ``[h, w, 3]``, state float32 ``[s]`` in SI units, ``time_s`` on the clock.

        Raises:
            RobotFault: not connected, or no answer.
        """
        self._need_connection()
        wanted = tuple(self.features.views) if views is None else tuple(views)
        for view in wanted:
            if view not in self.features.views:
                raise UserError(f"{self}: no view {view!r}; it has {list(self.features.views)}")
        self.within_s = within_s
        return self._observe(wanted)

    def act(self, action: np.ndarray) -> np.ndarray:
        """Ask for one pose, float ``[a]`` in SI units, after limits.

        Returns:
            float32 ``[a]``: what was really sent, counted in the motors' own steps.

        Raises:
            UserError: wrong width. RobotFault: not connected, or the wire failed. Stopped: somebody
                pressed the emergency stop; the arm holds where it is.
        """
        self._need_connection()
        try:
            self._need_freedom()
        except Stopped:
            self.stop()
            raise
        self.decision = self.guard.check(action, self.clock.now())
        return np.asarray(self._send(self.decision.action), dtype=np.float32)

    def _need_freedom(self) -> None:
        """Stopped if the emergency stop is pressed for an arm that may move."""
        if self.move and self.estop is not None and (why := self.estop.pressed()):
            raise Stopped(f"{self} was stopped {why}; 'dreamzero robot stop --clear' frees it")

    def stop(self) -> None:
        """Hold the arm where it is now. Safe to call at any time, also twice."""
        if self.connected:
            pose = self._pose(self.observe(views=()))
            self.guard.reset(pose, self.clock.now())
            # Not the nearest pose that is allowed: it would go there at once.
            self._send(pose)

    def reconnect(self) -> None:
        """Bring a lost wire back; the limits start again from the pose the arm is found in.

        Raises:
            UserError: it is not back yet; the arm is then disconnected.
        """
        self.close()
        self.connect()

    def relax(self) -> None:
        """Let the motors go limp; the arm may sink.

        Raises:
            UserError: this arm cannot. RobotFault: not connected, or the wire failed.
        """
        raise UserError(f"{self} cannot relax its motors: choose another end")

    def close(self) -> None:
        """Let go of wire and cameras; the features stay readable. Safe to call twice."""
        self.connected = False
        self._close()

    def lend(self) -> None:
        """As ``close``, but the motors keep holding whatever the address says: somebody else takes
        the wire now."""
        self.lent = True
        try:
            self.close()
        finally:
            self.lent = False

    def score(self) -> dict[str, object] | None:
        """Success and progress where the arm is simulated and knows; for scoring only."""
        return None

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except RobotFault:
            # A dead wire cannot be stopped over; the fault that killed it has been or is raised.
            pass
        finally:
            self.close()

    def _need_connection(self) -> None:
        if not self.connected:
            raise RobotFault(f"{self} is not connected: call connect(), or use `with`")

    def _pose(self, observation: Observation) -> np.ndarray:
        """The state read as an action, ``[a]``: joints and gripper come in the same order."""
        return np.asarray(observation.state[: self.card.action_dim], dtype=np.float64)

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _observe(self, views: tuple[str, ...]) -> Observation: ...

    @abstractmethod
    def _send(self, action: np.ndarray) -> np.ndarray:
        """Send float ``[a]`` (unless ``move`` is false) and return it as the motors count it."""

    @abstractmethod
    def _close(self) -> None:
        """Let go of wire and cameras; while ``lent`` is true without a word to the motors."""
