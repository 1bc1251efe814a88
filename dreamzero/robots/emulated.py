"""What an emulator is made of: servos, physics and camera turned in real time, the bus on a pty."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import embodiments
from ..errors import UserError
from . import calibration, plants
from .clock import MonotonicClock, punctual
from .servos import ServoBus, overload
from .sidechannel import Server

CARDS = {"so101": ("tabletop_so101", calibration.SO101)}
FAULTS = ("silent", "stuck", "overload", "unplug", "mend")


@dataclass(frozen=True)
class EmulatorConfig:
    """What to emulate.

    Attributes:
        robot: "so101".
        physics: "tabletop" (MuJoCo) or "lag" (a first-order lag).
        task: a task key such as ``push-red-left``; else the suite's own for this seed.
        suite, seed: which scene.
        size_px: edge of the pictures.
        physics_hz: how often the arm moves and its registers are renewed.
        camera_hz: how often pictures are taken.
        views: those that the camera takes.
    """

    robot: str = "so101"
    physics: str = "tabletop"
    task: str | None = None
    suite: str = "seen"
    seed: int = 0
    size_px: int = 64
    physics_hz: float = 60.0
    camera_hz: float = 30.0
    views: tuple[str, ...] = ("front",)

    def __post_init__(self) -> None:
        if self.robot not in CARDS:
            raise UserError(f"no emulator of {self.robot!r}; known: {', '.join(CARDS)}")
        if not self.views or any(view not in plants.VIEWS for view in self.views):
            raise UserError(f"views {list(self.views)}: known are {', '.join(plants.VIEWS)}")
        if not (1 <= self.physics_hz <= 1000 and 0 < self.camera_hz <= self.physics_hz):
            raise UserError("physics_hz must be 1..1000 and camera_hz no higher")


class World:
    """Servos, arm and camera, turned by one thread (the one that owns the GL context)."""

    def __init__(self, config: EmulatorConfig) -> None:
        card_name, calib = CARDS[config.robot]
        self.config = config
        self.bus = ServoBus(calib)
        self.plant = plants.make(config.physics, embodiments.get(card_name), config.size_px)
        self.frames: dict[str, tuple[np.ndarray, float]] = {}
        self.score: dict[str, Any] = {}
        self.late = 0
        self._jobs: deque[tuple[Callable[[], None], threading.Event, list[str]]] = deque()
        self.place(config.task, config.suite, config.seed)

    def place(self, task: str | None, suite: str, seed: int) -> None:
        """Start a scene; servos take the pose they find themselves in as their goal."""
        self.plant.reset(task, suite, seed)
        self.bus.measure(self.plant.joints(), 0.0)
        self.bus.rest()
        self.look()

    def look(self) -> None:
        """Take the pictures and the score."""
        now = time.monotonic()
        self.frames = {view: (self.plant.frame(view), now) for view in self.config.views}
        self.score = self.plant.score()

    def tick(self, seconds: float) -> None:
        """Move for a while. A servo without torque stays where it is: nothing drops in here."""
        goal, live = self.bus.goals()
        here = self.plant.joints()
        self.plant.advance(np.where(live, goal, here), seconds)
        self.bus.measure(self.plant.joints(), seconds)

    def run(self, stop: threading.Event) -> None:
        """Real time until ``stop``; after a hiccup it goes on from now instead of racing."""
        clock = MonotonicClock()
        period_s, shots = 1 / self.config.physics_hz, 0
        start = due = clock.now()
        while not stop.is_set():
            due += period_s
            if clock.now() - due > 0.25:
                self.late += 1
                due = clock.now()
            clock.sleep_until(due)
            while self._jobs:
                job, done, errors = self._jobs.popleft()
                try:
                    job()
                except UserError as error:
                    errors.append(str(error))
                done.set()
            self.tick(period_s)
            if (clock.now() - start) * self.config.camera_hz >= shots:
                shots = int((clock.now() - start) * self.config.camera_hz) + 1
                self.look()
        self.plant.close()

    def ask(self, job: Callable[[], None], timeout_s: float = 5.0) -> None:
        """Have ``job`` done by the thread of :meth:`run`."""
        done, errors = threading.Event(), list[str]()
        self._jobs.append((job, done, errors))
        if not done.wait(timeout_s):
            raise UserError("the emulated world stands still")
        if errors:
            raise UserError(errors[0])


class PtyWire:
    """The bus on a pseudo-terminal; ``path`` is what to open instead of /dev/ttyACM0."""

    def __init__(self, bus: ServoBus) -> None:
        import pty
        import tty

        self._bus = bus
        self._master, self._slave = pty.openpty()
        # Raw, or the terminal would echo requests back and translate line ends. The other end is
        # kept open so that a client may leave and another come.
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._plugged = True
        self._thread = threading.Thread(target=self._run, name="bus", daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """Pull the cable: the port is gone for whoever holds it, for good."""
        self._plugged = False
        self._thread.join(1.0)

    def _run(self) -> None:
        # Servos answer within microseconds, whatever the computer is doing.
        with punctual():
            while self._plugged:
                ready, _, _ = select.select([self._master], [], [], 0.05)
                if ready:
                    answer = self._bus.feed(os.read(self._master, 4096))
                    if answer:
                        os.write(self._master, answer)
        os.close(self._slave)
        os.close(self._master)


def serve(
    config: EmulatorConfig, ready: Callable[[dict[str, Any]], None], stop: threading.Event
) -> None:
    """Emulate until ``stop``; ``ready`` hears where: ``{"port", "side", "uri"}``."""
    world = World(config)
    wire = PtyWire(world.bus)

    def answer(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        return _answer(world, wire, request)

    side = Server(answer)
    front = config.views[0]
    query = [f"camera=camera://127.0.0.1:{side.port}/{front}"]
    query += [f"camera.{v}=camera://127.0.0.1:{side.port}/{v}" for v in config.views[1:]]
    query += [f"width={config.size_px}", f"height={config.size_px}"]
    ready({"port": wire.path, "side": side.port, "uri": f"serial://{wire.path}?{'&'.join(query)}"})
    try:
        world.run(stop)
    finally:
        side.close()
        wire.unplug()


def _answer(world: World, wire: PtyWire, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """One request of the side channel."""
    match request:
        case {"get": "frame", "view": str(view)}:
            if view not in world.frames:
                raise UserError(f"no view {view!r}; taken are {', '.join(world.frames)}")
            frame, time_s = world.frames[view]
            return {"shape": list(frame.shape), "time_s": time_s}, frame.tobytes()
        case {"get": "score"}:
            return world.score, b""
        case {"get": "state"}:
            joints = world.bus.calibration.names
            pose = dict(zip(joints, world.plant.joints().tolist(), strict=True))
            return {"joints": pose, "packets": world.bus.packets, "late": world.late}, b""
        case {"do": "reset", "task": task, "suite": str(suite), "seed": int(seed)}:
            world.ask(lambda: world.place(task, suite, seed))
            return world.score, b""
        case {"do": "fault", "kind": str(kind), "servo": int(servo)}:
            _fault(world, wire, kind, servo)
            return {}, b""
    raise UserError(f"request {request} is not understood")


def _fault(world: World, wire: PtyWire, kind: str, identity: int) -> None:
    servos = [s for s in world.bus.servos if s.get("id") == identity]
    if kind not in FAULTS or (not servos and kind != "unplug"):
        raise UserError(f"fault {kind!r} of servo {identity}: kinds are {', '.join(FAULTS)}")
    if kind == "unplug":
        wire.unplug()
        return
    with world.bus.lock:
        for servo in servos:
            if kind == "mend":
                servo.silent, servo.stuck, servo.error = False, False, 0
            elif kind == "overload":
                overload(servo)
            else:
                setattr(servo, kind, True)
