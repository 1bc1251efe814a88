"""``dreamzero robot``: emulate an arm, run a policy on one, set its servos up."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from . import _impairments, _robot_calibrate, _robot_identify, _robot_run


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from ..robots.emulation.device import ARMS

    parser = subparsers.add_parser(
        "robot",
        help="emulate, run, identify and calibrate arms",
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
    arms = "; ".join(f"{name}: {arm.what}" for name, arm in ARMS.items())
    emulate.add_argument("robot", nargs="?", default="so101", choices=[*ARMS], help=arms)
    places = ", ".join(f"{name}: {arm.at}" for name, arm in ARMS.items())
    emulate.add_argument("--at", default="", help=f"where it listens (default: {places})")
    emulate.add_argument("--physics", default="", choices=["tabletop", "lag"])
    emulate.add_argument("--task", help="task key such as push-red-left (default: by seed)")
    emulate.add_argument("--suite", default="seen", help="which scenes")
    emulate.add_argument("--seed", type=int, default=0, help="which scene")
    emulate.add_argument("--json", action="store_true", help="the address as JSON")
    _impairments.add_arguments(emulate)
    emulate.set_defaults(function=_emulate)

    _robot_run.add(verbs)

    _robot_identify.add(verbs)
    _robot_calibrate.add(verbs)

    dashboard = verbs.add_parser(
        "dashboard",
        help="ask or command a UR controller: power, brakes, unlocking",
        epilog="example: dreamzero robot dashboard --robot tcp://10.0.0.2:30004 "
        "unlock protective stop",
    )
    dashboard.add_argument("--robot", required=True, help="tcp://10.0.0.2:30004")
    dashboard.add_argument("command", nargs="*", help="words of it (default: how the arm is)")
    dashboard.add_argument("--json", action="store_true", help="as JSON")
    dashboard.set_defaults(function=_dashboard)


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 2


def _emulate(args: argparse.Namespace) -> int:
    import threading

    from ..robots.emulation.device import find
    from ..robots.emulation.world import EmulatorConfig, serve

    config = EmulatorConfig(
        robot=args.robot,
        at=args.at,
        physics=args.physics,
        task=args.task,
        suite=args.suite,
        seed=args.seed,
        network=_impairments.chosen(args),
    )

    def ready(where: dict[str, Any]) -> None:
        if args.json:
            print(json.dumps(where), flush=True)
            return
        print(f"{args.robot} listens on {where['port']}; Ctrl-C ends it")
        card = find(args.robot).card
        run = f"dreamzero robot run --policy hold --embodiment {card}"
        print(f"{run} --robot '{where['uri']}'", flush=True)

    try:
        serve(config, ready, threading.Event())
    except KeyboardInterrupt:
        print("the emulator has ended", file=sys.stderr)
    return 0


def _dashboard(args: argparse.Namespace) -> int:
    from ..robots import parse
    from ..robots.ur.dashboard import PORT, QUESTIONS, Dashboard

    uri = parse(args.robot, ("tcp",))
    commands = (" ".join(args.command),) if args.command else QUESTIONS
    with Dashboard(uri.host, uri.number("dashboard_port", PORT)) as board:
        answers = {command: board.ask(command) for command in commands}
    print(json.dumps(answers) if args.json else "\n".join(answers.values()))
    return 0
