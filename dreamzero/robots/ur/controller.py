"""The controller's side, without I/O: variables, modes, the running program, faults.

Everything that ``servers.py`` answers is decided here. One ``cycle`` is one turn of the
control loop (2 ms); the physics runs elsewhere and is handed goals and gives back measurements.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import UserError
from ..emulation.device import Wire
from . import dashboard, primary, protocol
from .arm import JOINTS
from .modes import SAFETY_BITS, RobotMode, RuntimeState, SafetyMode
from .primary import Kind, Message
from .program import NAME, Program, Refused, Status
from .running import Running
from .variables import INPUTS, OUTPUTS

VERSION = (5, 11, 6, 0)
CB3 = (3, 15, 7, 0)
# How long a protective stop cannot be unlocked.
_UNLOCK_S = 5.0
_BIT = {name: 1 << i for i, name in enumerate(SAFETY_BITS)}
_BITS = {
    SafetyMode.NORMAL: _BIT["normal mode"],
    SafetyMode.PROTECTIVE_STOP: _BIT["protective stopped"] | _BIT["stopped due to safety"],
    SafetyMode.ROBOT_EMERGENCY_STOP: _BIT["robot emergency stopped"]
    | _BIT["emergency stopped"]
    | _BIT["stopped due to safety"],
}
_GRIPPER = {"ACT": 0, "GTO": 0, "POS": 0, "SPE": 255, "FOR": 255}


class Controller:
    """A controller with a Robotiq gripper, which digital output 0 closes as well.

    Args:
        version: of its software: ``VERSION`` (e-Series, 500 Hz) or ``CB3`` (125 Hz), or older ones,
            which know fewer variables.
        now: wall clock in seconds; only the unlocking of a protective stop is counted in it.

    Attributes:
        speaks: RTDE protocol versions that it accepts.
        inputs, outputs: variable -> type, of this version.
        late: control cycles that the emulator itself has missed.
    """

    names = (*JOINTS, "gripper")
    faults = ("protective", "estop", "off", "local", "pause", "freeze", "delay", "stuck")

    def __init__(
        self,
        version: tuple[int, int, int, int] = VERSION,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.Lock()
        self.version, self.speaks = version, (protocol.VERSION,)
        self.step_s = 0.002 if version[0] >= 5 else 0.008
        self.inputs, self.outputs = (
            {v.name: v.type for v in table.values() if v.known_to(version)}
            for table in (INPUTS, OUTPUTS)
        )
        self.values: dict[str, tuple[Any, ...]] = {
            name: (0,) * protocol.TYPES[type_][1]
            for name, type_ in (self.inputs | self.outputs).items()
        }
        self.values |= {"speed_scaling": (1.0,), "target_speed_fraction": (1.0,)}
        self.robot_mode, self.safety_mode = RobotMode.RUNNING, SafetyMode.NORMAL
        self.runtime = RuntimeState.STOPPED
        self.remote, self.frozen, self.slow = True, False, False
        self.running: Running | None = None
        self.gripper = dict(_GRIPPER)
        self.packets = self.cycles = self.late = 0
        self._now = now
        self._tell: list[Callable[[Message], None]] = []
        self._here: tuple[float, ...] = (0.0,) * 6
        self._goal = [0.0] * 6
        self._grip = self._grip_goal = 1.0
        self._stuck = [False] * 6
        self._stopped_s = -math.inf

    # What the world asks (see emulation.device.Device).

    def goals(self) -> tuple[np.ndarray, np.ndarray]:
        with self.lock:
            powered = self.robot_mode == RobotMode.RUNNING and self.safety_mode == SafetyMode.NORMAL
            live = [powered and not stuck for stuck in self._stuck]
            return np.array([*self._goal, self._grip_goal]), np.array([*live, powered])

    def measure(self, values: np.ndarray, elapsed_s: float) -> None:
        here = tuple(values[:6].tolist())
        with self.lock:
            if elapsed_s > 0:
                self.values["actual_qd"] = tuple(
                    (a - b) / elapsed_s for a, b in zip(here, self._here, strict=True)
                )
            self.values["actual_q"] = self._here = here
            self._grip = float(values[6])

    def rest(self) -> None:
        with self.lock:
            self._rest()
            self._grip_goal = self._grip

    def fault(self, kind: str, joint: int) -> None:
        with self.lock:
            if kind == "mend":
                self._mend()
            elif kind == "stuck":
                if not 0 <= joint < 6:
                    raise UserError(f"fault {kind!r} of joint {joint}: joints are 0 to 5")
                self._stuck[joint] = True
            elif kind == "protective":
                self._stop(SafetyMode.PROTECTIVE_STOP, self.robot_mode)
            elif kind == "estop":
                self._stop(SafetyMode.ROBOT_EMERGENCY_STOP, RobotMode.POWER_OFF)
            elif kind == "off":
                self._stop(SafetyMode.NORMAL, RobotMode.POWER_OFF)
            elif kind == "pause":
                self.runtime = RuntimeState.PAUSED
            else:
                self.remote &= kind != "local"
                self.frozen |= kind == "freeze"
                self.slow |= kind == "delay"

    def report(self) -> dict[str, Any]:
        with self.lock:
            status = Status(self.running.status).name if self.running is not None else ""
            return {
                "packets": self.packets,
                "cycles": self.cycles,
                "late_cycles": self.late,
                "robot_mode": self.robot_mode.name,
                "safety_mode": self.safety_mode.name,
                "program": self.runtime.name,
                "status": status,
            }

    def listen(self, at: str) -> Wire:
        from .servers import ControllerWire

        return ControllerWire(self, at)

    # What the servers ask.

    def cycle(self) -> None:
        """One turn of the control loop; the caller holds ``lock``."""
        self.cycles += 1
        running, values = self.running, self.values
        if running is not None and self.runtime == RuntimeState.PLAYING:
            if running.step(values, self._here):
                self._goal = running.goal
            else:
                self._end()
        values["timestamp"] = (self.cycles * self.step_s,)
        values["target_q"] = tuple(self._goal)
        values["target_qd"] = tuple(running.speed) if running is not None else (0.0,) * 6
        values["robot_mode"] = (int(self.robot_mode),)
        values["safety_mode"] = values["safety_status"] = (int(self.safety_mode),)
        values["safety_status_bits"] = (_BITS[self.safety_mode],)
        values["runtime_state"] = (int(self.runtime),)
        powered = self.robot_mode != RobotMode.POWER_OFF
        playing = self.runtime == RuntimeState.PLAYING
        values["robot_status_bits"] = (powered | playing << 1,)

    def write(self, name: str, value: tuple[Any, ...]) -> None:
        """An input variable has come; the caller holds ``lock``."""
        self.values[name] = value
        if self.running is not None and name == self.running.program.beat:
            self.running.unbeaten_s = 0.0
        elif name == "standard_digital_output":
            (mask,), (bits,) = self.values["standard_digital_output_mask"], value
            (before,) = self.values["actual_digital_output_bits"]
            self.values["actual_digital_output_bits"] = ((before & ~mask) | (bits & mask),)
            if mask & 1:
                self._grip_goal = 0.0 if bits & 1 else 1.0

    def listen_to_messages(self, tell: Callable[[Message], None]) -> Callable[[], None]:
        """Have ``tell`` called with every message of the primary interface, until the returned call."""
        self._tell.append(tell)
        return lambda: self._tell.remove(tell)

    def script(self, text: str) -> None:
        """Run an uploaded program in place of the present one, or say why not."""
        with self.lock:
            if not self.remote:
                self._say(Message(Kind.ERROR_CODE, "", code=primary.READ_ONLY))
                return
            try:
                program = Program.parse(text)
                if program.step_s != self.step_s:
                    raise Refused(1, 1, f"a cycle takes {self.step_s} s, not {program.step_s} s")
            except Refused as why:
                said = f"this emulator runs {NAME} only: {why}"
                self._say(Message(Kind.RUNTIME_EXCEPTION, said, line=why.line, column=why.column))
                return
            if self.robot_mode != RobotMode.RUNNING or self.safety_mode != SafetyMode.NORMAL:
                self._say(Message(Kind.TEXT, "the robot is not ready"))
                return
            self._end()
            self.running = Running(program, list(self._here), self.values[program.sequence][0])
            self.runtime = RuntimeState.PLAYING
            self._say(Message(Kind.KEY, NAME, title="PROGRAM_XXX_STARTED"))

    def command(self, line: str) -> str:
        """The dashboard server's answer to one line."""
        with self.lock:
            facts = {
                "robotmode": f"Robotmode: {self.robot_mode.name}",
                "safetymode": f"Safetymode: {self.safety_mode.name}",
                "safetystatus": f"Safetystatus: {self.safety_mode.name}",
                "programState": f"{self.runtime.name} {NAME}",
                "is in remote control": str(self.remote).lower(),
                "PolyscopeVersion": f"URSoftware {'.'.join(map(str, self.version))} (Jan 01 2022)",
            }
            if line in facts:
                return facts[line]
            if line not in dashboard.COMMANDS:
                return f"could not understand: {line}"
            if not self.remote:
                return (
                    "Command is not allowed due to safety reasons, please "
                    f"{dashboard.LOCAL} and reconnect to port {dashboard.PORT}"
                )
            return self._do(line)

    def gripper_line(self, line: str) -> str:
        """The URCap's answer to one line; empty to what it does not know."""
        with self.lock:
            state = self.gripper
            if match := re.fullmatch(r"GET (\w{3})", line):
                active = state["ACT"] == 1
                known = state | {
                    "POS": round(255 * (1 - self._grip)),
                    "PRE": state["POS"],
                    "STA": 3 if active else 0,
                    "OBJ": 3 if abs(self._grip - self._grip_goal) < 0.01 else 0,
                    "FLT": 0,
                }
                return f"{match[1]} {known[match[1]]}\n" if match[1] in known else ""
            pairs = re.findall(r" (\w{3}) (\d{1,3})", line.removeprefix("SET"))
            if not line.startswith("SET ") or not pairs or any(n not in state for n, _ in pairs):
                return ""
            state.update({name: min(int(value), 255) for name, value in pairs})
            if state["ACT"] == state["GTO"] == 1 and any(name == "POS" for name, _ in pairs):
                self._grip_goal = 1 - state["POS"] / 255
            return "ack"

    def _do(self, line: str) -> str:
        emergency = self.safety_mode == SafetyMode.ROBOT_EMERGENCY_STOP
        if line == "unlock protective stop":
            if self.safety_mode == SafetyMode.PROTECTIVE_STOP:
                if self._now() - self._stopped_s < _UNLOCK_S:
                    return (
                        "Cannot unlock protective stop until 5s after occurrence. Always inspect "
                        "cause of protective stop before unlocking"
                    )
                self.safety_mode = SafetyMode.NORMAL
                self._rest()
        elif line == "power on" and not emergency:
            if self.robot_mode == RobotMode.POWER_OFF:
                self.robot_mode = RobotMode.IDLE
        elif line == "brake release" and not emergency:
            if self.robot_mode == RobotMode.IDLE:
                self._rest()
                self.robot_mode = RobotMode.RUNNING
        elif line == "power off":
            self._stop(self.safety_mode, RobotMode.POWER_OFF)
        elif line == "stop" and self.runtime != RuntimeState.STOPPED:
            self._end()
        elif line not in ("close safety popup", "close popup"):
            return f"Failed to execute: {line}"
        return dashboard.COMMANDS[line]

    def _stop(self, safety_mode: SafetyMode, robot_mode: RobotMode) -> None:
        self.safety_mode, self.robot_mode = safety_mode, robot_mode
        self._stopped_s = self._now()
        self._end()
        self._rest()

    def _end(self) -> None:
        if self.running is not None:
            self._say(Message(Kind.KEY, NAME, title="PROGRAM_XXX_STOPPED"))
        self.running, self.runtime = None, RuntimeState.STOPPED

    def _rest(self) -> None:
        self._goal = list(self._here)
        if self.running is not None:
            self.running.goal, self.running.target = self._goal, self._here
            self.running.speed = [0.0] * 6

    def _mend(self) -> None:
        if self.safety_mode != SafetyMode.NORMAL or self.robot_mode != RobotMode.RUNNING:
            self._rest()
        self.robot_mode, self.safety_mode = RobotMode.RUNNING, SafetyMode.NORMAL
        self.remote, self.frozen, self.slow = True, False, False
        self._stuck = [False] * 6
        if self.runtime == RuntimeState.PAUSED:
            self.runtime = RuntimeState.PLAYING

    def _say(self, message: Message) -> None:
        for tell in list(self._tell):
            tell(message)
