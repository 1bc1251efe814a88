"""``dreamzero robot run``: let a policy move an arm."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..embodiments import Embodiment
    from ..robots import RunLog
    from ..types import Policy


def add(verbs: Any) -> None:
    """Add ``run`` to the verbs of ``dreamzero robot``."""
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
