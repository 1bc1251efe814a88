"""An emulated arm, its table and its cameras, turned in real time, and the side channel to it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import embodiments
from ...errors import UserError
from ..clock import MonotonicClock, punctual_process
from . import device, plants, proxy
from .device import Wire
from .impairments import Dice, Impairments
from .sidechannel import Server


@dataclass(frozen=True)
class EmulatorConfig:
    """What to emulate.

    Attributes:
        robot: a key of ``device.ARMS``.
        at: where it listens; empty: where that arm does.
        physics: "tabletop" (MuJoCo) or "lag" (a first-order lag); empty: the former where the arm
            has a simulated body.
        task: a task key such as ``push-red-left``; else the suite's own for this seed.
        suite, seed: which scene.
        size_px: edge of the pictures.
        physics_hz: how often the arm moves and its registers are renewed.
        camera_hz: how often pictures are taken.
        views: those that the camera takes.
        network: what happens between the arm and its driver.
    """

    robot: str = "so101"
    at: str = ""
    physics: str = ""
    task: str | None = None
    suite: str = "seen"
    seed: int = 0
    size_px: int = 64
    physics_hz: float = 60.0
    camera_hz: float = 30.0
    views: tuple[str, ...] = ("front",)
    network: Impairments = field(default_factory=Impairments)

    def __post_init__(self) -> None:
        device.find(self.robot)
        if not self.views or any(view not in plants.VIEWS for view in self.views):
            raise UserError(f"views {list(self.views)}: known are {', '.join(plants.VIEWS)}")
        if not (1 <= self.physics_hz <= 1000 and 0 < self.camera_hz <= self.physics_hz):
            raise UserError("physics_hz must be 1..1000 and camera_hz no higher")


class World:
    """Device, arm and camera, turned by one thread (the one that owns the GL context)."""

    def __init__(self, config: EmulatorConfig) -> None:
        arm = device.find(config.robot)
        self.config = config
        self.device = arm.make()
        physics = config.physics or ("lag" if arm.body is None else "tabletop")
        if physics == "tabletop" and arm.body is None:
            raise UserError(f"{config.robot} has no simulated body: take the physics lag")
        card = embodiments.get((physics == "tabletop" and arm.body) or arm.card)
        self.plant = plants.make(physics, card, config.size_px)
        self.frames: dict[str, tuple[np.ndarray, float]] = {}
        self._taken = threading.Condition()
        self.score: dict[str, Any] = {}
        self.late = 0
        self._jobs: deque[tuple[Callable[[], None], threading.Event, list[str]]] = deque()
        self.place(config.task, config.suite, config.seed)

    def place(self, task: str | None, suite: str, seed: int) -> None:
        """Start a scene; the arm takes the pose it finds itself in as its goal."""
        self.plant.reset(task, suite, seed)
        self.device.measure(self.plant.joints(), 0.0)
        self.device.rest()
        self.look()

    def look(self) -> None:
        """Take the pictures and the score."""
        now = time.monotonic()
        frames = {view: (self.plant.frame(view), now) for view in self.config.views}
        self.score = self.plant.score()
        with self._taken:
            self.frames = frames
            self._taken.notify_all()

    def picture(
        self, view: str, after_s: float, timeout_s: float = 1.0
    ) -> tuple[np.ndarray, float]:
        """The first picture taken later than ``after_s``; after a while the newest there is."""
        with self._taken:
            self._taken.wait_for(lambda: self.frames[view][1] > after_s, timeout_s)
            return self.frames[view]

    def tick(self, seconds: float) -> None:
        """Move for a while. A joint that is not driven stays where it is: nothing drops in here."""
        goal, live = self.device.goals()
        here = self.plant.joints()
        self.plant.advance(np.where(live, goal, here), seconds)
        self.device.measure(self.plant.joints(), seconds)

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
        """Have ``job`` done by the thread of ``run``."""
        done, errors = threading.Event(), list[str]()
        self._jobs.append((job, done, errors))
        if not done.wait(timeout_s):
            raise UserError("the emulated world stands still")
        if errors:
            raise UserError(errors[0])


def serve(
    config: EmulatorConfig, ready: Callable[[dict[str, Any]], None], stop: threading.Event
) -> None:
    """Emulate until ``stop``; ``ready`` hears where: ``{"port", "side", "uri"}``.

    The calling process becomes a punctual one: a real arm does not wait for the computer.
    """
    punctual_process()
    world = World(config)
    at, dice = config.at or device.find(config.robot).at, None
    if config.network.any:
        wire, dice = proxy.listen(world.device, at, config.network)
    else:
        wire = world.device.listen(at)

    def answer(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        return _answer(world, wire, dice, request)

    side = Server(answer)
    front = config.views[0]
    query = [f"camera=camera://127.0.0.1:{side.port}/{front}"]
    query += [f"camera.{v}=camera://127.0.0.1:{side.port}/{v}" for v in config.views[1:]]
    query += [f"width={config.size_px}", f"height={config.size_px}"]
    mark = "&" if "?" in wire.address else "?"
    uri = f"{wire.address}{mark}{'&'.join(query)}"
    ready({"port": wire.port, "side": side.port, "uri": uri})
    try:
        world.run(stop)
    finally:
        side.close()
        wire.close()


def _answer(
    world: World, wire: Wire, dice: Dice | None, request: dict[str, Any]
) -> tuple[dict[str, Any], bytes]:
    """One request of the side channel."""
    match request:
        case {"get": "frame", "view": str(view)}:
            if view not in world.frames:
                raise UserError(f"no view {view!r}; taken are {', '.join(world.frames)}")
            frame, time_s = world.picture(view, float(request.get("after_s", 0.0)))
            return {"shape": list(frame.shape), "time_s": time_s}, frame.tobytes()
        case {"get": "score"}:
            return world.score, b""
        case {"get": "state"}:
            pose = dict(zip(world.device.names, world.plant.joints().tolist(), strict=True))
            network = {"network": dict(dice.counts)} if dice is not None else {}
            return {"joints": pose, "late": world.late} | world.device.report() | network, b""
        case {"do": "reset", "task": task, "suite": str(suite), "seed": int(seed)}:
            world.ask(lambda: world.place(task, suite, seed))
            return world.score, b""
        case {"do": "fault", "kind": str(kind), "joint": int(joint)}:
            _fault(world, wire, kind, joint)
            return {}, b""
    raise UserError(f"request {request} is not understood")


def _fault(world: World, wire: Wire, kind: str, joint: int) -> None:
    if kind == "unplug":
        wire.unplug()
    elif kind == "replug":
        wire.replug()
    elif kind in (*world.device.faults, "mend"):
        world.device.fault(kind, joint)
    else:
        known = ", ".join(("unplug", "replug", *world.device.faults, "mend"))
        raise UserError(f"fault {kind!r}: kinds are {known}")
