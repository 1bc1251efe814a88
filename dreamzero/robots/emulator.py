"""An SO-101 without the SO-101: six servos on a pseudo-terminal, in a process of their own.

The servos answer byte for byte as STS3215 do and move an arm in real time; its camera, its score and
its faults are reached over a second wire (sidechannel.py), as a real arm's camera is no serial device
either. ``Emulator()`` starts it from Python, ``dreamzero robot emulate`` from the shell.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from .. import embodiments
from ..errors import UserError
from . import calibration, plants
from .base import RobotFault
from .clock import MonotonicClock
from .servos import ServoBus, overload
from .sidechannel import Client, Server

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


class Emulator:
    """An emulator in a child process, as a context manager.

    Args:
        robot, config: see :class:`EmulatorConfig`; ``config`` as keywords.

    Attributes:
        uri: address for ``robots.open``, camera included.
        port: the pseudo-terminal alone.

    Raises:
        UserError: it could not start; the reason is the child's last line.
    """

    def __init__(self, robot: str = "so101", **config: Any) -> None:
        self.config = EmulatorConfig(robot=robot, **config)
        self.uri = self.port = ""
        self._child: subprocess.Popen[str] | None = None
        self._client: Client | None = None

    def start(self) -> Self:
        if self._child is not None:
            return self
        self._child = subprocess.Popen(
            [sys.executable, "-m", "dreamzero.robots.emulator", json.dumps(asdict(self.config))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._child.stdout is not None and self._child.stderr is not None
        line = self._child.stdout.readline()
        if not line:
            reason = self._child.stderr.read().strip().splitlines() or ["no reason given"]
            self.close()
            raise UserError(f"the emulator did not start: {reason[-1]}")
        # Nobody reads what the child may say later; a full pipe must not stop it.
        threading.Thread(target=self._child.stderr.read, daemon=True).start()
        where = json.loads(line)
        self.uri, self.port = where["uri"], where["port"]
        self._client = Client("127.0.0.1", where["side"])
        return self

    def score(self) -> dict[str, Any]:
        """``{"instruction", "success", "progress"}`` of the scene, for scoring only."""
        return self._ask({"get": "score"})

    @property
    def instruction(self) -> str:
        """What the scene asks for, in words."""
        return str(self.score()["instruction"])

    def state(self) -> dict[str, Any]:
        """True joint positions by name, packets seen on the bus, hiccups of the physics."""
        return self._ask({"get": "state"})

    def reset(self, seed: int = 0, task: str | None = None, suite: str = "seen") -> dict[str, Any]:
        """Start another scene; the robot should ``stop()`` then, to learn where it is."""
        return self._ask({"do": "reset", "task": task, "suite": suite, "seed": seed})

    def fault(self, kind: str, servo: int = 0) -> None:
        """Break something: a servo "silent", "stuck" or "overload"; "unplug" the cable; "mend"."""
        self._ask({"do": "fault", "kind": kind, "servo": servo})

    def close(self) -> None:
        """End the child process. Safe to call twice."""
        if self._client is not None:
            self._client.close()
            self._client = None
        child, self._child = self._child, None
        if child is not None:
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
            try:
                child.wait(5.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._client is None:
            raise RobotFault("the emulator is not running: use `with Emulator() as emulator`")
        return self._client.ask(request)[0]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def main(text: str) -> int:
    """The child: one line of JSON says where it listens; it ends when its standard input does."""
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    try:
        config = json.loads(text)
        config["views"] = tuple(config["views"])
        serve(EmulatorConfig(**config), lambda where: print(json.dumps(where), flush=True), stop)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
