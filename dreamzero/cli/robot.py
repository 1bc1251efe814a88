"""``dreamzero robot``: emulate an arm, run a policy on one, see what is on a bus."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..embodiments import Embodiment
    from ..robots import RunLog
    from ..types import Policy


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
        help="checkpoint folder, shipped name, hold, or replay:FILE.npy ([n, a] in SI)",
    )
    run.add_argument(
        "--instruction", default="", help="what to do (default: the simulated scene's)"
    )
    run.add_argument(
        "--embodiment", default="tabletop_so101", help="card of the arm: a name or FILE.toml"
    )
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


def _run(args: argparse.Namespace) -> int:
    from .. import embodiments, robots

    if args.out is not None and not args.out.parent.is_dir():
        raise UserError(f"--out {args.out}: there is no folder {args.out.parent}")
    card = embodiments.get(args.embodiment)
    where = robots.parse(args.robot)
    move = False if args.dry_run else (True if args.move else None)
    chunks = args.chunks if args.chunks or args.seconds else card.blocks
    robot = robots.open(args.robot, card, move=move, speed=args.speed)
    policy = _policy(args.policy, card)
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


def _policy(name: str, card: Embodiment) -> Policy:
    """The policy of that name; UserError says what it could have been."""
    import numpy as np

    from ..robots import HoldPolicy, ReplayPolicy
    from ..shipped import shipped

    if name == "hold":
        return HoldPolicy(card)
    if name.startswith("replay:"):
        path = Path(name.removeprefix("replay:"))
        try:
            actions = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"--policy {name}: {path} is no .npy file of actions ({error})"
            ) from error
        return ReplayPolicy(card, actions)
    if not Path(name).is_dir() and shipped(name) is None:
        raise UserError(
            f"--policy {name}: no such folder; give a checkpoint, a shipped model, hold or "
            f"replay:FILE.npy"
        )
    from ..inference import load_policy

    policy: Policy = load_policy(name, embodiment=card.name)
    return policy


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
