"""``dreamzero robot calibrate``: what an arm's ticks mean, recorded while a person moves it."""

from __future__ import annotations

import argparse
import select
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..robots.servos.arm import ServoArm
    from ..robots.servos.calibrate import Recorder

_TABLE_S = 0.1


def add(verbs: Any) -> None:
    """Add the verb below ``dreamzero robot``."""
    calibrate = verbs.add_parser(
        "calibrate",
        help="record what an arm's ticks mean, by moving it by hand",
        description="Asks step by step, unless --middle, --ranges or --import says what to do. Torque "
        "is never switched on. The file goes into the arm's address as ?calibration=FILE.",
        epilog="example: dreamzero robot calibrate --robot serial:///dev/ttyACM0 "
        "--embodiment tabletop_koch --out koch.json",
    )
    calibrate.add_argument("--robot", help="address: serial:///dev/ttyACM0?baud=1000000")
    calibrate.add_argument("--embodiment", default="tabletop_so101", help="card of the arm")
    calibrate.add_argument("--out", type=Path, required=True, help="the file to write (JSON)")
    calibrate.add_argument(
        "--middle", action="store_true", help="the arm stands in its zero pose now; record that"
    )
    calibrate.add_argument(
        "--ranges", action="store_true", help="record the ranges for --seconds, with no questions"
    )
    calibrate.add_argument("--seconds", type=float, default=30.0, help="for --ranges (default 30)")
    calibrate.add_argument(
        "--center",
        action="store_true",
        help="have the servos count the zero pose as the middle of their turn (Feetech)",
    )
    calibrate.add_argument(
        "--configure",
        action="store_true",
        help="set up operating mode, direction and shadow ids first, torque off",
    )
    calibrate.add_argument(
        "--relax", action="store_true", help="switch torque off first: the arm sinks, hold it"
    )
    calibrate.add_argument(
        "--import", type=Path, metavar="FILE", dest="source", help="convert a LeRobot calibration"
    )
    calibrate.set_defaults(function=_calibrate)


def _calibrate(args: argparse.Namespace) -> int:
    from ..robots.calibration import Calibration
    from ..robots.servos.calibrate import Recorder

    if not args.out.parent.is_dir():
        raise UserError(f"--out {args.out}: there is no folder {args.out.parent}")
    if args.source is not None:
        Calibration.load(args.source).save(args.out)
        print(f"saved {args.out}")
        return 0
    if args.robot is None:
        raise UserError(
            "--robot is missing: an address such as serial:///dev/ttyACM0, or --import FILE"
        )
    if args.ranges and not args.seconds > 0:
        raise UserError(f"--seconds {args.seconds}: give seconds > 0")
    if args.center and args.ranges and not args.middle:
        raise UserError("--center counts from the zero pose: give --middle too")
    asking = not (args.middle or args.ranges)
    arm = _open(args, keep=args.middle != args.ranges)
    if args.configure:
        if asking:
            _await("Support the arm: torque goes off. Enter to go on. ")
        print("\n".join(arm.configure()) or "every servo is set up already")
    with arm:
        if args.relax:
            arm.relax()
        recorder = Recorder(arm)
        if asking:
            _wizard(recorder, args.center)
        if args.middle:
            recorder.mark_middle(args.center)
        if args.ranges:
            recorder.record(args.seconds)
        made = recorder.calibration()
    made.save(args.out)
    for joint in made.joints:
        print(f"{joint.name:16s} id {joint.id:3d} {joint.min_tick:6d} .. {joint.max_tick:6d} ticks, "
              f"zero at {joint.zero_tick}")  # fmt: skip
    with_file = replace(arm.uri, query={**arm.uri.query, "calibration": str(args.out)})
    print(f"saved {args.out}; the arm's address is now\n{with_file}")
    return 0


def _open(args: argparse.Namespace, keep: bool) -> ServoArm:
    """The arm, never to be moved; ``keep``: what is not recorded stays as its address has it."""
    from .. import embodiments, robots
    from ..robots.servos.arm import ServoArm

    where = robots.parse(args.robot, ("serial", "tcp"))
    if not keep:
        query = {k: v for k, v in where.query.items() if k != "calibration"}
        where = replace(where, query=query)
    arm = robots.open(str(where), embodiments.get(args.embodiment), move=False)
    if not isinstance(arm, ServoArm):
        raise UserError(f"--embodiment {args.embodiment}: {arm.card.robot} is no arm of servos")
    return arm


def _wizard(recorder: Recorder, center: bool) -> None:
    """Ask for the zero pose, then for every joint's range, until all have moved."""
    print(f"{recorder.arm}: torque is off.")
    _await(f"1. Put the arm like this: {recorder.arm.build.zero_pose}. Enter when it is there. ")
    recorder.mark_middle(center)
    print("2. Move every joint from one end of its range to the other. Enter when all are done.")
    while True:
        recorder.record(done=_enter_pressed, show=_live_table(recorder))
        if not (forgotten := recorder.unmoved()):
            return
        print(f"{', '.join(forgotten)} hardly moved; go on, and Enter again (Ctrl-C gives up).")


def _await(prompt: str) -> None:
    print(prompt, end="", flush=True)
    _line()


def _enter_pressed() -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    if ready:
        _line()
    return bool(ready)


def _line() -> None:
    if not sys.stdin.readline():
        raise UserError("nobody is there to press Enter (--middle and --ranges ask nothing)")


def _live_table(recorder: Recorder) -> Callable[[], None]:
    """Prints the table over itself some ten times a second; nothing where there is no terminal."""
    last_s = 0.0

    def show() -> None:
        nonlocal last_s
        now = time.monotonic()
        if not sys.stdout.isatty() or now - last_s < _TABLE_S:
            return
        lines = [f"{'joint':16s} {'least':>6s} {'now':>6s} {'most':>6s}"] + [
            f"{n:16s} {recorder.low[n]:6d} {recorder.now[n]:6d} {recorder.high[n]:6d}"
            for n in recorder.names
        ]
        # Up again to where the first table began.
        back = f"\033[{len(lines)}A" if last_s else ""
        print(back + "\n".join(lines), flush=True)
        last_s = now

    return show
