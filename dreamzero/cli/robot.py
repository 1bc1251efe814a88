"""``dreamzero robot``: emulate an arm, run a policy on one, set its servos up."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from . import _impairments, _robot_calibrate, _robot_identify

if TYPE_CHECKING:
    from ..robots import RunLog


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

    run = verbs.add_parser(
        "run",
        help="let a policy move an arm",
        epilog="example: dreamzero robot run --robot 'serial:///dev/ttyACM0?baud=1000000' --move "
        "--policy tiny_so101 --instruction 'push the red block left'",
    )
    run.add_argument(
        "--robot", required=True, help="address: sim://so101, serial:///dev/ttyACM0 ..."
    )
    run.add_argument(
        "--policy",
        required=True,
        help="checkpoint folder, shipped name, ws://HOST:PORT, hold, or replay:FILE.npy",
    )
    run.add_argument(
        "--instruction", default="", help="what to do (default: the simulated scene's)"
    )
    run.add_argument("--embodiment", default="tabletop_so101", help="card of the arm")
    run.add_argument("--seconds", type=float, help="end after so long (default: 4 chunks)")
    run.add_argument("--chunks", type=int, help="end after so many chunks")
    run.add_argument("--mode", default="synchronous", choices=["synchronous", "overlapped"])
    run.add_argument("--stream-hz", type=float, help="commands a second (default: the card's)")
    run.add_argument(
        "--speed", type=float, default=1.0, help="part of the joint velocities allowed"
    )
    moving = run.add_mutually_exclusive_group()
    moving.add_argument("--move", action="store_true", help="really move a real arm")
    moving.add_argument(
        "--dry-run", action="store_true", help="send nothing, not even to an emulator"
    )
    run.add_argument("--out", type=Path, help="write the run's log there (JSON)")
    run.add_argument("--json", action="store_true", help="the figures as JSON")
    run.set_defaults(function=_run)

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


def _run(args: argparse.Namespace) -> int:
    from .. import embodiments, robots
    from ..serve.policies import open_policy

    if args.out is not None and not args.out.parent.is_dir():
        raise UserError(f"--out {args.out}: there is no folder {args.out.parent}")
    card = embodiments.get(args.embodiment)
    where = robots.parse(args.robot)
    move = False if args.dry_run else (True if args.move else None)
    chunks = args.chunks if args.chunks or args.seconds else card.blocks
    robot = robots.open(args.robot, card, move=move, speed=args.speed)
    policy = open_policy(args.policy, card)
    if not robot.move and not args.json:
        remedy = "without --dry-run" if not where.hardware else "with --move"
        print(f"dry run: nothing is sent to {robot}; run again {remedy} to let it move")
    with robot:
        instruction = args.instruction or getattr(robot, "instruction", "")
        log = robots.run_episode(
            robot,
            policy,
            instruction,
            seconds=args.seconds,
            max_chunks=chunks,
            mode=args.mode,
            stream_hz=args.stream_hz,
        )
    if args.out is not None:
        log.save(args.out)
    _tell(log, args.json)
    if log.ended == "interrupted":
        return 130
    return 1 if log.ended in ("fault", "watchdog") else 0


def _tell(log: RunLog, as_json: bool) -> None:
    summary = log.summary()
    if as_json:
        head = {"ended": log.ended, "fault": log.fault, "score": log.score}
        print(json.dumps(head | summary))
        return
    print(f"ended: {log.ended}" + (f": {log.fault}" if log.fault else ""))
    for name, value in summary.items():
        print(f"  {name:24s} {value:10.3f}".rstrip("0").rstrip("."))
    if log.score is not None:
        print("  " + ", ".join(f"{key}: {value}" for key, value in log.score.items()))


def _dashboard(args: argparse.Namespace) -> int:
    from ..robots import parse
    from ..robots.ur.dashboard import PORT, QUESTIONS, Dashboard

    uri = parse(args.robot, ("tcp",))
    commands = (" ".join(args.command),) if args.command else QUESTIONS
    with Dashboard(uri.host, uri.number("dashboard_port", PORT)) as board:
        answers = {command: board.ask(command) for command in commands}
    print(json.dumps(answers) if args.json else "\n".join(answers.values()))
    return 0
