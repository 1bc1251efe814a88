"""Universal Robots arms over Ethernet: state and targets by RTDE, motion by a program on the controller."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...embodiments import Embodiment
from ...errors import UserError
from ...types import Observation
from .. import camera
from ..base import Features, Robot, RobotFault
from ..camera import Camera
from ..clock import Clock
from ..uri import Uri
from . import dashboard, gripper, modes, primary
from .gripper import Gripper
from .link import RtdeLink, connect
from .modes import RuntimeState
from .program import NAME, Command, Program, Status
from .protocol import Recipe
from .variables import UPPER_RANGE

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
OPTIONS = (
    *("frequency", "registers", "lookahead_ms", "gain", "gripper", "emulated"),
    *("script_port", "dashboard_port", "gripper_port", "camera", "width", "height"),
)
_OUTPUTS = (
    *("timestamp", "actual_q", "actual_qd", "robot_mode", "safety_mode", "safety_status_bits"),
    *("runtime_state", "speed_scaling", "actual_digital_output_bits"),
)
_START_S = 3.0


class UrRobot(Robot):
    """An arm behind a UR controller.

    Connecting reads where the arm stands and reserves input registers; then a program is uploaded that
    follows the targets in them with ``servoj``, beginning where the arm is. Without a fresh target for
    0.2 s (three periods of the card, if that is more) it stops and holds; without a heartbeat for 1 s
    the controller ends it. A protective stop, an emergency stop, an arm without power and a program
    that somebody stopped each end the run with a ``RobotFault``; nothing is unlocked or switched on
    by itself (see dashboard.py).

    A dry run reads only: no register is reserved, no program uploaded, no gripper activated.

    Args:
        uri: ``tcp://10.0.0.2:30004``. Options: ``gripper`` (``robotiq``, the default of a card with
            one, ``digital:0``, on closes, or ``none``); ``frequency`` of states in Hz (default: the
            control rate); ``lookahead_ms`` (30 to 200) and ``gain`` (100 to 2000) of ``servoj``;
            ``registers=lower`` where the upper ones are taken or missing (before 3.9 / 5.3);
            ``script_port`` (30001), ``dashboard_port`` (29999), ``gripper_port`` (63352);
            ``camera``, ``camera.side`` and so on, ``width`` and ``height`` of pictures in px.
        card: an embodiment card of six joints in rad, and a gripper or none.
    """

    def __init__(
        self,
        uri: Uri,
        card: Embodiment,
        move: bool = True,
        clock: Clock | None = None,
        speed: float = 1.0,
    ) -> None:
        uri.allow(*OPTIONS, *(key for key in uri.query if key.startswith("camera.")))
        self.uri = uri
        has_gripper = _gripped(uri, card)
        self._gripper_kind = gripper.parse(
            uri.query.get("gripper", "robotiq" if has_gripper else "none")
        )
        if has_gripper != (self._gripper_kind[0] != "none"):
            raise UserError(
                f"{uri}: {card.name} has {'a' if has_gripper else 'no'} gripper; give gripper="
                f"{'robotiq or gripper=digital:0' if has_gripper else 'none'}"
            )
        registers = uri.query.get("registers", "upper")
        if registers not in ("upper", "lower"):
            raise UserError(f"{uri}: registers={registers} is neither upper nor lower")
        lookahead_s = uri.number("lookahead_ms", 100) / 1000
        period_s = 1 / card.action_hz
        self.program = Program(
            registers=UPPER_RANGE if registers == "upper" else 0,
            lookahead_s=lookahead_s,
            gain=uri.number("gain", 300),
            patience_s=max(0.2, 3 * period_s),
            # As far as the limits let a command run ahead of an arm that follows them.
            leap_rad=round(max(card.velocity[:6]) * speed * (2 * period_s + lookahead_s + 0.1), 3),
        )
        self._camera_uris = camera.addresses(uri, card)
        size = (uri.number("height", card.canvas_px[0]), uri.number("width", card.canvas_px[1]))
        views = {view: size for view in self._camera_uris}
        joints = (*JOINTS, "gripper") if has_gripper else JOINTS
        super().__init__(card, Features.from_card(card, views, joints), clock, move, speed)
        self._frequency_hz = uri.number("frequency", 500) if "frequency" in uri.query else None
        self._link: RtdeLink | None = None
        self._targets: Recipe | None = None
        self._gripper: Gripper | None = None
        self._grip: float | None = None
        # Number of the last command, and how many since the last that was no FOLLOW.
        self._sequence = self._followed = 0
        self._cameras: dict[str, Camera] = {}

    def __str__(self) -> str:
        return f"{self.card.robot} at {self.uri.host}:{self.uri.port}"

    @property
    def link(self) -> RtdeLink:
        """The open RTDE session; RobotFault while disconnected."""
        if self._link is None:
            raise RobotFault(f"{self} is not connected: call connect(), or use `with`")
        return self._link

    def state(self) -> tuple[Mapping[str, Any], float]:
        """(RTDE variable -> newest value, when it came, on the clock); LinkLost if that is old."""
        return self.link.latest()

    def unread(self, state: Mapping[str, Any]) -> int:
        """Commands that the program on the controller had not read yet when it told ``state``."""
        return int(self._sequence - state[self.program.echo]) & 0x7FFFFFFF

    def dashboard(self) -> dashboard.Dashboard:
        """A connection to the controller's dashboard server, also while disconnected."""
        port = self.uri.number("dashboard_port", dashboard.PORT)
        return dashboard.Dashboard(self.uri.host, port)

    def stop(self) -> None:
        """Let the program brake the arm and hold it; the gripper keeps what it was told."""
        if not self.connected:
            return
        pose = self._pose(self.observe(views=()))
        if self._grip is not None:
            # Where its fingers met something is not where they are pressing to.
            pose[6] = self._grip
        self.guard.reset(pose, self.clock.now())
        if self.move:
            self._command(Command.HOLD, pose[:6])

    def _open(self) -> None:
        self._link = link = RtdeLink(self.uri.host, self.uri.port, self.clock)
        program = self.program = replace(self.program, step_s=1 / link.rate_hz)
        frequency_hz = self._frequency_hz or link.rate_hz
        if frequency_hz > link.rate_hz:
            raise UserError(f"{self.uri}: this controller runs at {link.rate_hz:.0f} Hz, no faster")
        link.outputs(frequency_hz, (*_OUTPUTS, program.status, program.echo))
        kind, output = self._gripper_kind
        beat = bits = None
        if self.move:
            self._targets = link.inputs((*program.targets, program.sequence, program.command))
            beat = link.inputs((program.beat,))
            bits = link.inputs(gripper.DIGITAL_NAMES) if kind == "digital" else None
        link.start(beat)
        for view, address in self._camera_uris.items():
            self._cameras[view] = camera.open(address, self.features.views[view])
        if kind == "robotiq":
            port = self.uri.number("gripper_port", gripper.PORT)
            self._gripper = gripper.Robotiq(self.uri.host, port, self.move)
        elif kind == "digital":
            self._gripper = gripper.Digital(link, bits, output)
        if self.move:
            self._start()

    def _observe(self, views: tuple[str, ...]) -> Observation:
        state, time_s = self.link.latest()
        values = [*state["actual_q"]]
        if self._gripper is not None:
            values.append(self._gripper.position(state["actual_digital_output_bits"]))
        frames = {}
        for view in views:
            frames[view], time_s = self._cameras[view].read()
        return Observation(frames, np.array(values, np.float32), time_s)

    def _send(self, action: np.ndarray) -> np.ndarray:
        sent = np.array(action, dtype=np.float32)
        if self.move:
            self._check()
            self._command(Command.FOLLOW, action[:6])
            if self._gripper is not None:
                self._grip = sent[6] = self._gripper.command(float(action[6]))
        return sent

    def _close(self) -> None:
        if self._link is not None:
            with contextlib.suppress(RobotFault):
                if self._targets is not None:
                    self._command(Command.END, self._link.latest()[0]["actual_q"])
            self._link.close()
        if self._gripper is not None:
            self._gripper.close()
        for source in self._cameras.values():
            source.close()
        self._link = self._targets = self._gripper = self._grip = None
        self._cameras = {}

    def _command(self, command: Command, joints: np.ndarray | tuple[float, ...]) -> None:
        assert self._targets is not None
        # int32 on the wire; the program compares for equality only.
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        self._followed = self._followed + 1 if command == Command.FOLLOW else 0
        targets = joints.tolist() if isinstance(joints, np.ndarray) else joints
        self.link.write(self._targets.encode((*targets, self._sequence, command)))

    def _able(self) -> Mapping[str, Any]:
        """The newest state; RobotFault if the arm cannot move."""
        state, _ = self.link.latest()
        if wrong := modes.what_is_wrong(
            state["robot_mode"], state["safety_mode"], state["safety_status_bits"]
        ):
            raise RobotFault(f"{self}: {wrong}")
        return state

    def _check(self) -> None:
        """RobotFault if the arm would not follow."""
        state = self._able()
        if state["runtime_state"] != RuntimeState.PLAYING:
            raise RobotFault(
                f"{self}: the program that follows our targets is "
                f"{modes.name(RuntimeState, state['runtime_state'])}, by the pendant, another client "
                "or for want of a heartbeat; connect again to start it"
            )
        # What a state told before our last HOLD was read is over.
        fresh = self.unread(state) < self._followed
        if state[self.program.status] == Status.TOO_FAR and fresh:
            raise RobotFault(
                f"{self}: a joint is more than {self.program.leap_rad} rad from where it was told to "
                "be, and the arm holds: is it blocked? stop() begins anew from where it is"
            )

    def _start(self) -> None:
        """Upload the program, and wait until it holds the arm."""
        state = self._able()
        # A number that no earlier program has echoed, so that the echo is this one's.
        self._sequence = time.monotonic_ns() >> 10 & 0x7FFFFFFF
        if state["runtime_state"] != RuntimeState.STOPPED:
            # One of ours that a lost link left behind ends now; anybody else's is not ours to end, and
            # what somebody paused is not ours to take up again.
            self._command(Command.END, state["actual_q"])
            self._await_end()
        self._command(Command.HOLD, self.link.latest()[0]["actual_q"])
        port = self.uri.number("script_port", primary.PORT)
        with connect(
            self.uri.host, port, "primary interface", "is it enabled on the pendant?"
        ) as sock:
            sock.sendall(self.program.text().encode("ascii"))
            heard = self._await_start(sock)
        if heard:
            raise RobotFault(f"{self}: {NAME} did not start: {heard}")

    def _await_end(self) -> None:
        deadline = time.monotonic() + _START_S
        while (runtime := self.link.latest()[0]["runtime_state"]) != RuntimeState.STOPPED:
            if time.monotonic() > deadline:
                raise RobotFault(
                    f"{self}: a program is {modes.name(RuntimeState, runtime)} on the controller; end "
                    f"it on the pendant, or with `dreamzero robot dashboard --robot {self.uri} stop`"
                )
            time.sleep(0.01)

    def _await_start(self, sock: socket.socket) -> str:
        """Empty when the program runs, else why it does not."""
        parser, heard = primary.Parser(), list[str]()
        sock.settimeout(0.01)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            state, _ = self.link.latest()
            if state["runtime_state"] == RuntimeState.PLAYING and (
                state[self.program.echo] == self._sequence
            ):
                return ""
            try:
                data = sock.recv(1 << 16)
                messages = parser.feed(data)
            except TimeoutError:
                continue
            except (OSError, primary.NotPrimary) as error:
                return f"port {sock.getpeername()[1]}: {error}"
            if not data:
                return "the controller hung up"
            for message in messages:
                if message.code == primary.READ_ONLY:
                    return "the pendant has control; switch it to Remote Control there (top right)"
                if message.kind == primary.Kind.RUNTIME_EXCEPTION:
                    return str(message)
                heard.append(str(message))
        # The secondary interface says nothing; the dashboard may know.
        with contextlib.suppress(RobotFault), self.dashboard() as board:
            if not board.in_remote_control():
                return "the pendant has control; switch it to Remote Control there (top right)"
        return " / ".join(filter(None, heard)) or f"no sign of it within {_START_S:.0f} s"


def _gripped(uri: Uri, card: Embodiment) -> bool:
    """Whether the card has a gripper beside its six joints; UserError if it is no card of such an arm."""
    units = Features.from_card(card, {}).units
    if units not in (("rad",) * 6, ("rad",) * 6 + ("1",)) or card.state_dim != card.action_dim:
        raise UserError(
            f"{uri}: six joints and a gripper do not make the {card.action_dim} actions and "
            f"{card.state_dim} states of {card.name}"
        )
    return len(units) == 7
