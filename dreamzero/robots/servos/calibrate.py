"""Calibration by hand: a person moves the arm, the servos say where it is. Torque is never switched on.

```python
recorder = Recorder(arm)          # a ServoArm, connected with move=False
recorder.mark_middle()            # the arm stands in the pose of ``arm.build.zero_pose``
recorder.record(20.0)             # every joint goes through its whole range meanwhile
recorder.calibration().save("arm.json")
```
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from ...errors import UserError
from ..calibration import TICKS_PER_TURN, Calibration, JointCalibration
from .arm import ServoArm

SAMPLE_HZ = 50.0
# A joint that went through less than 9 degrees was forgotten.
_LEAST_TICKS = 100


class Recorder:
    """Ticks of a connected arm's joints while somebody moves them.

    Ticks are counted on where a servo begins anew at the end of its turn.

    Attributes:
        names: of the joints.
        now, low, high: joint -> tick: the newest one, the least and the greatest one so far.
        middle: joint -> tick in the zero pose, once marked.

    Raises:
        UserError: torque is on, so that nobody can move the arm.
    """

    def __init__(self, arm: ServoArm) -> None:
        self.arm = arm
        self.names = arm.calibration.names
        held = [servo for servo, on in arm.ask("torque_enable", arm.servos).items() if on]
        if held:
            raise UserError(
                f"{arm}: torque is on at servo id {', '.join(map(str, held))}, so nobody can move it: "
                "hold the arm and switch torque off (--relax)"
            )
        self.middle: dict[str, int] = {}
        self._swept = False
        self._start()

    def sample(self) -> None:
        """Read where the joints are."""
        half = TICKS_PER_TURN // 2
        for name, shown in self._read().items():
            moved = (shown - self.now[name] + half) % TICKS_PER_TURN - half
            tick = self.now[name] = self.now[name] + moved
            self.low[name], self.high[name] = min(self.low[name], tick), max(self.high[name], tick)

    def mark_middle(self, center: bool = False) -> None:
        """The arm stands in its zero pose now.

        Args:
            center: have the servos count from there (see ``ServoArm.center``).
        """
        if center:
            self.arm.center()
        self._start()
        self.middle = dict(self.now)

    def record(
        self,
        seconds: float | None = None,
        done: Callable[[], bool] = lambda: False,
        show: Callable[[], None] = lambda: None,
    ) -> None:
        """Follow the joints for so long, or until ``done``; ``show`` is called after every sample."""
        self._swept = True
        start = time.monotonic()
        while not done() and (seconds is None or time.monotonic() - start < seconds):
            self.sample()
            show()
            time.sleep(1 / SAMPLE_HZ)

    def unmoved(self) -> list[str]:
        """Joints that hardly went anywhere."""
        return [name for name in self.names if self.high[name] - self.low[name] < _LEAST_TICKS]

    def calibration(self) -> Calibration:
        """What was recorded; from the arm's present calibration where something was not.

        Raises:
            UserError: a joint was not moved, or goes through the end of its servo's turn.
        """
        if self._swept and (forgotten := self.unmoved()):
            raise UserError(
                f"{self.arm}: {', '.join(forgotten)} hardly moved: move every joint from one end of "
                "its range to the other; nothing is saved"
            )
        offsets, reach = self.arm.ask("homing_offset"), self.arm.reach()
        joints = []
        for joint in self.arm.calibration.joints:
            made = self._joint(joint)
            low, high = reach[joint.id]
            if high - low < TICKS_PER_TURN:
                made = _in_one_turn(made, self._swept)
            joints.append(replace(made, homing_offset=offsets[joint.id]))
        return Calibration(tuple(joints))

    def _joint(self, old: JointCalibration) -> JointCalibration:
        name, grips = old.name, old.name == "gripper"
        if not self._swept:
            if name not in self.middle:
                return old
            # Half open is what the zero pose asks of a gripper.
            zero = self.middle[name] - (round(old.sign * 0.5 / old.scale) if grips else 0)
            shift = zero - old.zero_tick
            return replace(
                old,
                zero_tick=zero,
                min_tick=old.min_tick + shift,
                max_tick=old.max_tick + shift,
            )
        low, high = self.low[name], self.high[name]
        if grips:
            zero, scale = (low if old.sign > 0 else high), 1 / (high - low)
        else:
            # Without a marked middle the old zero stays, in the turn that was recorded.
            turns = round(((low + high) / 2 - old.zero_tick) / TICKS_PER_TURN)
            zero, scale = old.zero_tick + turns * TICKS_PER_TURN, old.scale
            zero = self.middle.get(name, zero)
        made = replace(old, zero_tick=zero, scale=scale, min_tick=low, max_tick=high)
        return _shifted(made, -TICKS_PER_TURN * ((low + high) // 2 // TICKS_PER_TURN))

    def _start(self) -> None:
        self.now = self._read()
        self.low, self.high = dict(self.now), dict(self.now)

    def _read(self) -> dict[str, int]:
        shown = self.arm.ask("present_position")
        return {joint.name: shown[joint.id] for joint in self.arm.calibration.joints}


def _shifted(joint: JointCalibration, ticks: int) -> JointCalibration:
    return replace(
        joint,
        zero_tick=joint.zero_tick + ticks,
        min_tick=joint.min_tick + ticks,
        max_tick=joint.max_tick + ticks,
    )


def _in_one_turn(joint: JointCalibration, swept: bool) -> JointCalibration:
    """For a servo that goes to 0..4095 only; a range that was merely assumed is cut off there."""
    last = TICKS_PER_TURN - 1
    if not swept:
        joint = _shifted(joint, -TICKS_PER_TURN * (joint.zero_tick // TICKS_PER_TURN))
        return replace(joint, min_tick=max(joint.min_tick, 0), max_tick=min(joint.max_tick, last))
    if joint.min_tick < 0 or joint.max_tick > last:
        raise UserError(
            f"{joint.name} (servo id {joint.id}) goes through the end of its servo's turn, from "
            f"{last} to 0: mark the middle with --center (Feetech), or use the extended position "
            "mode (Dynamixel, --configure); nothing is saved"
        )
    return joint
