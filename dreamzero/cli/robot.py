"""``dreamzero robot``: emulate an arm, run a policy on one, see what is on a bus."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from . import _robot_run


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "robot",
        help="emulate, run and identify arms",
        description="Moves an arm with a policy: one in the simulator (sim://), an emulated one "
        "behind a pty, or a real one. A real arm only moves with --move.",
        epilog="example: dreamzero robot run --robot sim://so101 --policy tiny_so101 --chunks 8",
    )
    parser.set_defaults(function=lambda args: _help(parser))
    verbs = parser.add_subparsers(metavar="what", title="what")

    emulate = verbs.add_parser(
        "emulate",
        help="an arm that is not there, until Ctrl-C",
        epilog="example: dreamzero robot emulate so101 --task push-red-left",
    )
    emulate.add_argument("robot", nargs="?", default="so101", help="so101")
    emulate.add_argument("--at", default="pty", choices=["pty"], help="where it listens")
    emulate.add_argument("--physics", default="tabletop", choices=["tabletop", "lag"])
    emulate.add_argument("--task", help="task key such as push-red-left (default: by seed)")
    emulate.add_argument("--suite", default="seen", help="which scenes")
    emulate.add_argument("--seed", type=int, default=0, help="which scene")
    emulate.add_argument("--json", action="store_true", help="the address as JSON")
    emulate.set_defaults(function=_emulate)

    _robot_run.add(verbs)

    identify = verbs.add_parser(
        "identify",
        help="which servos answer on a serial port",
        epilog="example: dreamzero robot identify --robot 'serial:///dev/ttyACM0?baud=1000000'",
    )
    identify.add_argument("--robot", required=True, help="serial:///dev/ttyACM0?baud=1000000")
    identify.add_argument("--json", action="store_true", help="as JSON")
    identify.set_defaults(function=_identify)


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 2


def _emulate(args: argparse.Namespace) -> int:
    import threading

    from ..robots.emulation.world import EmulatorConfig, serve

    config = EmulatorConfig(
        robot=args.robot, physics=args.physics, task=args.task, suite=args.suite, seed=args.seed
    )

    def ready(where: dict[str, Any]) -> None:
        if args.json:
            print(json.dumps(where), flush=True)
            return
        print(f"{args.robot} listens on {where['port']} (any baud); Ctrl-C ends it")
        print(f"dreamzero robot run --policy hold --robot '{where['uri']}'", flush=True)

    try:
        serve(config, ready, threading.Event())
    except KeyboardInterrupt:
        print("the emulator has ended", file=sys.stderr)
    return 0


def _identify(args: argparse.Namespace) -> int:
    from ..robots import parse
    from ..robots.feetech import MODEL_STS3215
    from ..robots.feetech.bus import Bus
    from ..robots.transport import SerialLink

    link = SerialLink(parse(args.robot, ("serial", "tcp")))
    try:
        found = Bus(link, retries=0).scan()
    finally:
        link.close()
    if args.json:
        print(json.dumps({"port": link.name, "servos": found}))
    for servo, model in {} if args.json else found.items():
        kind = "STS3215" if model == MODEL_STS3215 else "unknown model"
        print(f"id {servo}: model {model} ({kind})")
    if not found:
        print(
            f"{link.name} ({link.detail}): no servo answers; check power and baud", file=sys.stderr
        )
    return 0 if found else 1
