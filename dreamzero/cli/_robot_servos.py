"""``dreamzero robot identify`` and ``calibrate``: servos on a bus, before an arm is used."""

from __future__ import annotations

import argparse
import json
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
    """Add both verbs below ``dreamzero robot``."""
    identify = verbs.add_parser(
        "identify",
        help="which servos answer on a port, by any protocol and baud rate",
        description="Tries the servo protocols at their usual baud rates until somebody answers. "
        "Nothing moves, and nothing is written unless --set-id or --reboot asks for it.",
        epilog="example: dreamzero robot identify --robot serial:///dev/ttyACM0",
    )
    identify.add_argument(
        "--robot", required=True, help="serial:///dev/ttyACM0, with ?baud= to try only that one"
    )
    identify.add_argument("--protocol", choices=["feetech", "dynamixel"], help="try only this one")
    identify.add_argument(
        "--ids", type=_ids, default="1-20", help="as 1-20 or 1,2,40 (default 1-20)"
    )
    identify.add_argument(
        "--all", action="store_true", help="go on through all baud rates after something was found"
    )
    change = identify.add_mutually_exclusive_group()
    change.add_argument(
        "--set-id", type=int, nargs=2, metavar=("OLD", "NEW"), help="give a servo another id"
    )
    change.add_argument(
        "--reboot", type=int, metavar="ID", help="restart a Dynamixel after a fault"
    )
    identify.add_argument("--json", action="store_true", help="as JSON")
    identify.set_defaults(function=_identify)

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


def _ids(text: str) -> tuple[int, ...]:
    """Ids of "1-20" or "1,2,40"."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise argparse.ArgumentTypeError(
                f"{text!r} is no list of servo ids such as 1-20 or 1,4"
            )
        found += range(int(first), int(last or first) + 1)
    if not found or max(found) > 252:
        raise argparse.ArgumentTypeError(f"{text!r}: servo ids are 0 to 252")
    return tuple(found)


def _identify(args: argparse.Namespace) -> int:
    from ..robots import parse
    from ..robots.servos.identify import survey

    uri = parse(args.robot, ("serial", "tcp"))
    protocols = (args.protocol,) if args.protocol else ()
    if args.set_id or args.reboot is not None:
        return _change(args, protocols)
    seen = survey(uri, protocols, args.ids, args.all)
    if args.json:
        print(json.dumps(seen.to_json()))
    for one in [] if args.json else seen.found:
        print(
            f"{one.protocol}{f' at {one.baud} baud' if one.baud else ''}: id {one.id}: "
            f"{one.name or 'unknown model'} ({one.model}), firmware {one.firmware}, answers after "
            f"{one.return_delay_us} us, torque {'on' if one.torque else 'off'}"
            + (f"; {one.trouble}" if one.trouble else "")
        )
    if not seen.found:
        print(seen.explain(), file=sys.stderr)
    return 0 if seen.found else 1


def _change(args: argparse.Namespace, protocols: tuple[str, ...]) -> int:
    from ..robots import parse
    from ..robots.dynamixel.bus import Bus as Dynamixel
    from ..robots.servos.identify import bus_of

    old, new = args.set_id or (args.reboot, 0)
    for servo in (old, new):
        _ids(str(servo)) if servo >= 0 else _refuse(servo)
    bus = bus_of(parse(args.robot, ("serial", "tcp")), old, protocols)
    try:
        if args.set_id:
            bus.set_id(old, new)
            done = f"servo id {old} is id {new} now"
        elif isinstance(bus, Dynamixel):
            bus.reboot(old)
            done = f"servo id {old} has been restarted; its torque is off"
        else:
            raise UserError(f"--reboot {old}: that is a {bus.protocol} servo; switch it off and on")
    finally:
        bus.link.close()
    print(json.dumps({"port": bus.link.name, "done": done}) if args.json else done)
    return 0


def _refuse(servo: int) -> None:
    raise UserError(f"servo id {servo} is not 0 to 252")


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
