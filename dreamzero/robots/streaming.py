"""The policy's side of an arm that another process streams to (``streamer.py``).

The two exchange messages over a socket pair, pictures included. Shared memory would gain nothing: three
views of 640 x 480 px, 33 times a second, cost a tick 0.02 ms, since a thread of its own sends them, and
ticks at 100 Hz stayed on time (p99 0.16 ms late on two busy cores).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..types import Observation, Policy
from .base import Robot, RobotFault
from .messages import readable, receive, send
from .options import Options
from .recorder import Recorder
from .thinker import Answer, Ended, PolicyMind, ThreadThinker

# The loop has something to say many times a second; opening cameras may take long.
_SILENCE_S, _START_S = 10.0, 60.0
_PROGRESS_S = 0.25


class Streaming:
    """One run of an arm in a process of its own.

    Args:
        robot: with a recipe; lent to that process meanwhile.
        options: of the run.
        pictures: have pictures taken also while the policy is shown none.
    """

    def __init__(self, robot: Robot, options: Options, pictures: bool) -> None:
        self._robot, self._options, self._pictures = robot, options, pictures
        self._lock = threading.Lock()
        self._mind: PolicyMind
        self._views: dict[str, np.ndarray] = {}
        self._interrupts = 0
        self._lent = False

    def run(
        self,
        policy: Policy,
        instruction: str,
        recorder: Recorder,
        until: Callable[[], bool] | None = None,
        progress: Callable[[dict[str, float]], None] | None = None,
    ) -> tuple[str, str]:
        """The run; see ``run_episode``. Returns (what ended it, the fault)."""
        robot = self._robot
        lent = self._lent = robot.connected
        if lent:
            robot.lend()
        ended = ""
        try:
            with self._process():
                # The arm is being opened meanwhile.
                policy.reset(instruction)
                self._mind = PolicyMind(policy, recorder, ThreadThinker(self._answer), until)
                with self._ctrl_c():
                    ended, fault = self._serve(recorder, progress)
                return ended, fault
        finally:
            if lent and not (ended and self._options.end == "relax"):
                # An arm that cannot be reached stays disconnected; what it was lost to is in the log.
                with suppress(UserError):
                    robot.connect()

    @contextmanager
    def _process(self) -> Iterator[None]:
        """Start the other process; afterwards it has ended, the arm held."""
        ours, theirs = socket.socketpair()
        self._sock = ours
        with ours, tempfile.TemporaryFile("w+") as complaints:
            with theirs:
                # This package and no other that lies in the working directory; no threads for numpy.
                path = f"{Path(__file__).parents[2]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
                few = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-m", "dreamzero.robots.streamer", f"{theirs.fileno()}"],
                    pass_fds=(theirs.fileno(),),
                    env=os.environ | few,
                    stdin=subprocess.DEVNULL,
                    stderr=complaints,
                    start_new_session=True,  # a terminal's Ctrl-C and hang-up come to this one alone
                )
            self._complaints = complaints
            try:
                recipe = self._robot.recipe
                assert recipe is not None
                order = {"recipe": recipe.to_json(), "options": asdict(self._options)}
                self._send(order | {"lent": self._lent, "pictures": self._pictures})
                yield
            except BaseException:
                self._send({"end": "interrupted"})
                raise
            finally:
                # It holds the arm and ends when nobody is at the other end; what it still has to say
                # must find a reader until then.
                with suppress(OSError):
                    ours.shutdown(socket.SHUT_WR)
                    ours.settimeout(_SILENCE_S)
                    while ours.recv(1 << 16):
                        pass
                self._wait(_SILENCE_S)

    def _serve(
        self, recorder: Recorder, progress: Callable[[dict[str, float]], None] | None
    ) -> tuple[str, str]:
        """Take what the loop reports and answer what it asks, until it has ended."""
        patience_s, asked, ready = _START_S, False, False
        heard_s = shown_s = time.monotonic()
        while True:
            if self._interrupts and not asked:
                self._send({"end": "interrupted"})
                asked = True
            now = time.monotonic()
            if progress is not None and now - shown_s >= _PROGRESS_S:
                shown_s = now
                progress(recorder.progress())
            if not readable(self._sock, _PROGRESS_S / 2):
                self._mind.poll()
                if now - heard_s > patience_s:
                    return "fault", self._lost(f"has said nothing for {patience_s:.0f} s")
                continue
            heard_s = now
            try:
                message, data = receive(self._sock)
            except (OSError, EOFError, ValueError):
                return "fault", self._lost("has ended")
            # Before the message is read: it may be about an answer that has only just come. What the
            # policy raised is raised here.
            self._mind.poll()
            kind = message.pop("kind")
            if kind == "ready":
                ready = True
                patience_s = _SILENCE_S + self._options.reconnect_s
            elif kind == "ended":
                return message["ended"], message["fault"]
            elif kind == "error" and self._lent and not ready:
                # It was reached before it was lent: that is a fault of this run, not a wrong address.
                return "fault", message["text"]
            elif kind == "error":
                raise (RobotFault if message["fault"] else UserError)(message["text"])
            elif kind == "ask":
                try:
                    self._mind.ask(**message)
                except Ended as end:
                    self._send({"end": end.reason})
            else:
                self._note(recorder, kind, message, data)

    def _note(self, recorder: Recorder, kind: str, message: dict[str, Any], data: bytes) -> None:
        """Pass one report on to the recorder."""
        if kind == "picture":
            picture = np.frombuffer(data, np.uint8).reshape(message["shape"])
            self._views[message["view"]] = picture
        elif kind == "frame":
            state = np.frombuffer(data, np.float32)
            observation = Observation(self._views, state, message.pop("time_s"))
            recorder.frame(observation=observation, **message)
            self._views = {}
        elif kind == "command":
            width = self._robot.card.action_dim
            wanted = np.frombuffer(data, np.float64, width)
            sent = np.frombuffer(data, np.float32, width, offset=8 * width)
            recorder.command(wanted=wanted, sent=sent, **message)
        elif kind == "state":
            recorder.state(message["time_s"], np.frombuffer(data, np.float32))
        elif kind in ("begin", "chunk", "missed", "fault", "back"):
            getattr(recorder, kind)(**message)
        else:
            raise ValueError(f"the streaming process sent a message of unknown kind {kind!r}")

    def _answer(self, answer: Answer) -> None:
        """On the thinking thread: hand the chunk over without delay."""
        actions = np.asarray(answer.chunk.actions, np.float32)
        message = {
            "number": self._mind.number,
            "shape": list(actions.shape),
            "rate_hz": float(answer.chunk.rate_hz),
            "think_s": answer.think_s,
        }
        self._send(message, actions.tobytes())

    def _send(self, message: dict[str, Any], data: bytes = b"") -> None:
        # A process that has gone is noticed where its messages are read.
        with self._lock, suppress(OSError):
            send(self._sock, message, data)

    def _lost(self, what: str) -> str:
        """Why the other process is of no use any more; it is not there afterwards."""
        self._wait(1.0)
        self._complaints.seek(0)
        last = self._complaints.read().strip().splitlines()[-1:]
        reason = f": {last[0]}" if last else ""
        return (
            f"the process that streams to {self._robot} {what} (status {self._child.returncode})"
            f"{reason}; the arm keeps its last goal"
        )

    def _wait(self, seconds: float) -> None:
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    @contextmanager
    def _ctrl_c(self) -> Iterator[None]:
        """The first Ctrl-C asks the loop to end, so that the log is kept; the second is as always."""

        def note(number: int, frame: Any) -> None:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
