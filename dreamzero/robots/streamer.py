"""The process that streams to an arm: it opens the arm, runs the loop, and knows no policy.

Started by ``streaming.Streaming``, to which it talks over a socket: what it sees and does goes out,
chunks come in. It imports no torch, sleeps most of the time, and asks for real-time scheduling. When the
other side is gone it holds the arm and ends; Ctrl-C is the other side's business.
"""

from __future__ import annotations

import gc
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import robots
from ..errors import UserError
from ..types import ActionChunk, Observation
from .base import Recipe, RobotFault
from .clock import punctual_process
from .loop import drive
from .messages import readable, receive, send
from .options import Options
from .thinker import Answer, Ended

# How long small news may wait for company: a message costs the other side a wake-up.
_NEWS_S = 0.05


class Remote:
    """Journal and mind of the loop, both at the other end of a socket.

    Sending is left to a thread, so that a tick never waits for the other side, however large a picture
    is and however busy the policy keeps its process.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._news: deque[tuple[dict[str, Any], bytes | memoryview]] = deque()
        self._urgent = threading.Event()
        self._open = True
        self._gone = False
        self.busy = False
        self._thread = threading.Thread(target=self._send, name="news", daemon=True)
        self._thread.start()

    def tell(
        self, kind: str, data: bytes | memoryview = b"", urgent: bool = False, **message: Any
    ) -> None:
        """Send a message after those before it."""
        self._news.append(({"kind": kind} | message, data))
        if urgent:
            self._urgent.set()

    def close(self) -> None:
        """Send what is left."""
        self._open = False
        self._urgent.set()
        self._thread.join()

    def _send(self) -> None:
        while self._open or self._news:
            self._urgent.wait(_NEWS_S)
            self._urgent.clear()
            try:
                while self._news:
                    send(self._sock, *self._news.popleft())
            except OSError:
                self._gone = True
                return

    # Journal

    def begin(self, time_s: float, real_time: bool) -> None:
        self.tell("begin", time_s=time_s, real_time=real_time)

    def command(
        self,
        due_s: float,
        sent_s: float,
        wanted: np.ndarray,
        sent: np.ndarray,
        held: bool,
        rules: Sequence[str],
    ) -> None:
        data = wanted.astype(np.float64).tobytes() + sent.astype(np.float32).tobytes()
        self.tell("command", data, due_s=due_s, sent_s=sent_s, held=held, rules=list(rules))

    def state(self, time_s: float, state: np.ndarray) -> None:
        self.tell("state", state.astype(np.float32).tobytes(), time_s=time_s)

    def frame(self, due_s: float, observation: Observation, count: int, shown: bool) -> None:
        for view, picture in observation.frames.items():
            flat = np.ascontiguousarray(picture)
            self.tell("picture", flat.data, view=view, shape=list(flat.shape))
        self.tell(
            "frame",
            observation.state.astype(np.float32).tobytes(),
            due_s=due_s,
            time_s=observation.time_s,
            count=count,
            shown=shown,
        )

    def chunk(
        self, number: int, observed_s: float, ready_s: float, anchor_s: float, dropped_steps: int
    ) -> None:
        self.tell(
            "chunk",
            number=number,
            observed_s=observed_s,
            ready_s=ready_s,
            anchor_s=anchor_s,
            dropped_steps=dropped_steps,
        )

    def missed(self, count: int) -> None:
        self.tell("missed", count=count)

    def fault(self, time_s: float, text: str) -> None:
        self.tell("fault", time_s=time_s, text=text, urgent=True)

    def back(self, time_s: float) -> None:
        self.tell("back", time_s=time_s, urgent=True)

    # Mind

    def ask(self, number: int, anew: bool) -> None:
        self.busy = True
        self.tell("ask", number=number, anew=anew, urgent=True)

    def poll(self) -> Answer | None:
        if self._gone:
            raise Ended("orphaned")
        if not readable(self._sock, 0):
            return None
        try:
            message, data = receive(self._sock)
        except (OSError, EOFError, ValueError):
            self._gone = True
            raise Ended("orphaned") from None
        if "end" in message:
            raise Ended(message["end"])
        self.busy = False
        actions = np.frombuffer(data, np.float32).reshape(message["shape"])
        chunk = ActionChunk(actions, message["rate_hz"])
        return Answer(chunk, message["think_s"], message["number"])


def main(descriptor: int) -> int:
    """The process: one order comes in, then the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    punctual_process()
    sock = socket.socket(fileno=descriptor)
    try:
        order, _ = receive(sock)
    except EOFError:
        return 1
    remote = Remote(sock)
    recipe, options = Recipe.from_json(order["recipe"]), Options(**order["options"])
    robot = None
    try:
        robot = robots.open(
            recipe.uri,
            recipe.card,
            move=recipe.move,
            speed=recipe.speed,
            step_rad=recipe.step_rad,
            workspace_m=recipe.workspace_m,
        )
        robot.connect()
        remote.tell("ready", urgent=True)
        # What lives now lives as long as the process: no search through it while ticks are due.
        gc.collect()
        gc.freeze()
        ended, fault = drive(robot, remote, remote, options, order["pictures"])
        remote.tell("ended", ended=ended, fault=fault)
    except UserError as error:
        remote.tell("error", text=str(error), fault=isinstance(error, RobotFault))
    finally:
        if robot is not None:
            # The arm goes back to who lent it, or is let go of as its address says.
            (robot.lend if order["lent"] else robot.close)()
        remote.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
