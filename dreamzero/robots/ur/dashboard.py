"""The dashboard server: power, brakes and unlocking, by lines of text.

Nothing here is ever called by the driver on its own, except to ask what is wrong. A protective stop is
a collision until somebody has looked, so unlocking is a person's deed: ``dreamzero robot dashboard``.
Source: Universal Robots, "Dashboard Server e-Series, port 29999" (commands and answers).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Self

from ...errors import UserError
from ..base import LinkLost, RobotFault
from .link import connect

PORT = 29999
GREETING = "Connected: Universal Robots Dashboard Server"
LOCAL = "switch robot to Remote Control mode"

# Command -> how its answer begins when it was done; empty where any answer is one.
COMMANDS: Mapping[str, str] = {
    "robotmode": "Robotmode: ",
    "safetymode": "Safetymode: ",
    "programState": "",
    "is in remote control": "",
    "PolyscopeVersion": "URSoftware ",
    "safetystatus": "Safetystatus: ",
    "power on": "Powering on",
    "power off": "Powering off",
    "brake release": "Brake releasing",
    "unlock protective stop": "Protective stop releasing",
    "close safety popup": "closing safety popup",
    "close popup": "closing popup",
    "restart safety": "Restarting safety",
    "stop": "Stopped",
}
# What `dreamzero robot dashboard` asks when it is given no command.
QUESTIONS = tuple(COMMANDS)[:5]


class Dashboard:
    """A connection to the dashboard server, as a context manager.

    Raises:
        LinkLost: nobody answers there.
    """

    def __init__(self, host: str, port: int = PORT, timeout_s: float = 2.0) -> None:
        self.name = f"{host}:{port}"
        self._buffer = b""
        self._sock = connect(
            host,
            port,
            "dashboard server",
            "is the controller on, and the dashboard server enabled on the pendant (Settings, "
            "Security, Services)?",
            timeout_s,
        )
        try:
            greeting = self._line()
            if not greeting.startswith(GREETING):
                raise RobotFault(
                    f"what answers at {self.name} is no dashboard server: {greeting!r}"
                )
        except BaseException:
            self.close()
            raise

    def ask(self, command: str) -> str:
        """The server's answer to one of ``COMMANDS``.

        Raises:
            UserError: no such command. RobotFault: the controller refuses. LinkLost: no answer.
        """
        if command not in COMMANDS:
            raise UserError(f"no dashboard command {command!r}; known: {', '.join(COMMANDS)}")
        try:
            self._sock.sendall(command.encode("ascii") + b"\n")
        except OSError as error:
            raise LinkLost(f"lost the dashboard server at {self.name}: {error}") from error
        answer = self._line()
        if LOCAL in answer:
            raise RobotFault(
                f"the controller at {self.name} refuses {command!r}: the pendant has control; switch "
                "it to Remote Control there (top right)"
            )
        if not answer.startswith(COMMANDS[command]):
            raise RobotFault(f"the controller at {self.name} refuses {command!r}: {answer}")
        return answer

    def robot_mode(self) -> str:
        """Such as "RUNNING" or "POWER_OFF"."""
        return self.ask("robotmode").removeprefix("Robotmode: ")

    def safety_status(self) -> str:
        """Such as "NORMAL" or "PROTECTIVE_STOP" (software 5.4 and later)."""
        return self.ask("safetystatus").removeprefix("Safetystatus: ")

    def in_remote_control(self) -> bool:
        """Whether scripts and commands are taken from the network (software 5.6 and later)."""
        return self.ask("is in remote control") == "true"

    def power_on(self) -> None:
        self.ask("power on")

    def brake_release(self) -> None:
        """The arm may sink a little: nobody near it."""
        self.ask("brake release")

    def unlock_protective_stop(self) -> None:
        """After looking why it stopped, and not within 5 s of it."""
        self.ask("unlock protective stop")
        self.ask("close safety popup")

    def stop(self) -> None:
        """End the running program."""
        self.ask("stop")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> str:
        while b"\n" not in self._buffer:
            try:
                data = self._sock.recv(4096)
            except OSError as error:
                reason = "no answer" if isinstance(error, TimeoutError) else str(error)
                raise LinkLost(f"dashboard server at {self.name}: {reason}") from error
            if not data:
                raise LinkLost(f"the dashboard server at {self.name} hung up")
            self._buffer += data
            if len(self._buffer) > 1 << 16:
                raise RobotFault(f"what answers at {self.name} is no dashboard server")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode("ascii", "replace").strip()
