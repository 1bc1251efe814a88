"""An arm that is not there, in a process of its own.

It answers byte for byte as the real one does and moves in real time; its camera, its score and its
faults are reached over a second wire (sidechannel.py), as a real arm's camera is no part of its bus
either. ``Emulator()`` starts it from Python, ``dreamzero robot emulate`` from the shell.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from ...errors import UserError
from ..base import RobotFault
from .impairments import Impairments
from .sidechannel import Client
from .world import EmulatorConfig, serve


class Emulator:
    """An emulator in a child process, as a context manager.

    Args:
        robot, config: see ``EmulatorConfig``; ``config`` as keywords.

    Attributes:
        uri: address for ``robots.open``, camera included.
        port: where it listens: a pseudo-terminal, or host and port.

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
        # A file, not a pipe: nobody reads along, and a full pipe would stop the child.
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the child
        self._child = subprocess.Popen(
            [sys.executable, "-m", "dreamzero.robots.emulation", json.dumps(asdict(self.config))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            self._complaints.seek(0)
            reason = self._complaints.read().strip().splitlines() or ["no reason given"]
            self.close()
            raise UserError(f"the emulator did not start: {reason[-1]}")
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
        """True joint positions by name, packets seen on the bus, hiccups of the physics; what the
        impaired network did, by name, where there is one."""
        return self._ask({"get": "state"})

    def reset(self, seed: int = 0, task: str | None = None, suite: str = "seen") -> dict[str, Any]:
        """Start another scene; the robot should ``stop()`` then, to learn where it is."""
        return self._ask({"do": "reset", "task": task, "suite": suite, "seed": seed})

    def fault(self, kind: str, joint: int = 0) -> None:
        """Break something: "unplug" and "replug" the cable, or one of the device's own kinds
        (a servo's "silent", a controller's "protective") at one joint, and "mend" it."""
        self._ask({"do": "fault", "kind": kind, "joint": joint})

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
            self._complaints.close()

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

    def wait_for_parent() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_parent, daemon=True).start()
    try:
        config = json.loads(text)
        config["views"] = tuple(config["views"])
        config["network"] = Impairments(**config["network"])
        serve(EmulatorConfig(**config), lambda where: print(json.dumps(where), flush=True), stop)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0
