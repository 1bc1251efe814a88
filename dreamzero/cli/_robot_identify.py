"""``dreamzero robot identify``: which servos are on a port; their ids changed."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..errors import UserError


def add(verbs: Any) -> None:
    """Add the verb below ``dreamzero robot``."""
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
        "--set-id", type=_id, nargs=2, metavar=("OLD", "NEW"), help="give a servo another id"
    )
    change.add_argument(
        "--reboot", type=_id, metavar="ID", help="restart a Dynamixel after a fault"
    )
    identify.add_argument("--json", action="store_true", help="as JSON")
    identify.set_defaults(function=_identify)


def _id(text: str) -> int:
    if not text.isdigit() or int(text) > 252:
        raise argparse.ArgumentTypeError(f"{text!r}: servo ids are 0 to 252")
    return int(text)


def _ids(text: str) -> tuple[int, ...]:
    """Ids of "1-20" or "1,2,40"."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ids = range(_id(first), _id(last) + 1) if dash else (_id(first),)
        if not ids:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no list of servo ids such as 1-20 or 1,4"
            )
        found += ids
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
