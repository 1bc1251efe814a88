"""``dreamzero robot run`` and ``stop``: let a policy move an arm, and keep one from moving."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..robots import RunLog

RECORDINGS = Path("runs/recordings")
_ABOUT = """\
The arm is streamed to from a process of its own, at absolute deadlines, while the policy thinks in this
one. Every command goes through the limits of the embodiment card (--speed, --max-step and --workspace
narrow them); a command that is not finite is refused. An arm that nobody commands any more holds, then
does what --end says. A real arm moves only with --move; without, everything is computed and nothing sent.
Every run is recorded as a LeRobot dataset, with its timing.

Ctrl-C ends a run and keeps its log; 'dreamzero robot stop', from any shell, makes every arm of this
machine hold at once and refuse to move until 'dreamzero robot stop --clear'."""
_EXAMPLES = """\
examples:
  dreamzero robot run --robot sim://so101 --policy tiny_so101 --record recordings
  dreamzero robot run --robot 'serial:///dev/ttyACM0?camera=v4l2:///dev/video0' --policy tiny_so101 \\
      --instruction 'push the red block left' --mode overlapped --stream-hz 100 --speed 0.3 --move
  dreamzero data check recordings"""


def add(verbs: Any) -> None:
    """Add ``run`` and ``stop`` to the verbs of ``dreamzero robot``."""
    run = verbs.add_parser(
        "run",
        help="let a policy move an arm",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_what(run)
    _add_timing(run.add_argument_group("time"))
    _add_safety(run.add_argument_group("safety"))
    _add_results(run.add_argument_group("results"))
    run.set_defaults(function=_run)

    stop = verbs.add_parser(
        "stop",
        help="make arms hold at once, from any shell",
        description="Every arm of this machine, or one, holds within one command period and refuses to "
        "move until the stop is cleared. No substitute for a switch in the power line.",
        epilog="example: dreamzero robot stop; dreamzero robot stop --clear",
    )
    which = stop.add_mutually_exclusive_group()
    which.add_argument("--robot", metavar="URI", help="only this arm")
    which.add_argument("--all", action="store_true", help="every arm of this machine (default)")
    stop.add_argument("--clear", action="store_true", help="let arms move again")
    stop.set_defaults(function=_stop)


def _add_what(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "--robot", required=True, metavar="URI", help="sim://so101, serial:///dev/ttyACM0 ..."
    )
    run.add_argument(
        "--policy",
        required=True,
        help="checkpoint folder, shipped name, ws://HOST:PORT, hold, or replay:FILE.npy ([n, a] in SI)",
    )
    run.add_argument("--threads", type=int, default=1, help="CPU threads of the model (default 1)")
    run.add_argument(
        "--instruction", default="", help="what to do (default: the simulated scene's)"
    )
    run.add_argument("--embodiment", default="tabletop_so101", help="card of the arm")
    run.add_argument("--seconds", type=float, help="end after so long (default: 4 chunks)")
    run.add_argument("--chunks", type=int, help="end after so many chunks")


def _add_timing(group: Any) -> None:
    group.add_argument(
        "--mode",
        default="synchronous",
        choices=["synchronous", "overlapped"],
        help="hold while the policy thinks, or let it think ahead (default: synchronous)",
    )
    group.add_argument("--stream-hz", type=float, help="commands a second (default: the card's)")
    group.add_argument(
        "--execute-steps", type=int, help="steps of a chunk until the next observation"
    )
    group.add_argument(
        "--smoothing",
        choices=["none", "savgol"],
        help="savgol: chunks through the paper's filter (default: savgol in overlapped, else none)",
    )
    group.add_argument(
        "--blend",
        type=float,
        default=0.2,
        metavar="S",
        help="overlapped: fade a chunk into the next over so long (default: 0.2)",
    )


def _add_safety(group: Any) -> None:
    moving = group.add_mutually_exclusive_group()
    moving.add_argument("--move", action="store_true", help="really move a real arm")
    moving.add_argument(
        "--dry-run", action="store_true", help="send nothing, not even to an emulator"
    )
    group.add_argument(
        "--speed", type=float, default=1.0, help="part of the joint velocities allowed"
    )
    group.add_argument(
        "--max-step", type=float, metavar="RAD", help="most change of a joint in one command"
    )
    group.add_argument(
        "--workspace",
        metavar="BOX",
        help="x0:x1,y0:y1,z0:z1 in m from the arm's foot (x ahead, z up) that the tool stays in; "
        "--workspace=-0.1:... where it begins with a minus",
    )
    group.add_argument(
        "--max-start",
        type=float,
        default=0.5,
        metavar="RAD",
        help="how far a first command may be away (default: 0.5)",
    )
    group.add_argument(
        "--approach",
        type=float,
        metavar="SHARE",
        help="go to a first command that is further away, at this part of the velocities",
    )
    group.add_argument(
        "--watchdog", type=float, default=10.0, metavar="S", help="hold so long, then end (10)"
    )
    group.add_argument(
        "--reconnect", type=float, default=5.0, metavar="S", help="try a lost wire so long (5)"
    )
    group.add_argument(
        "--end",
        default="hold",
        choices=["hold", "relax", "home"],
        help="when it is over: hold, let the motors go limp, or back to where it began",
    )


def _add_results(group: Any) -> None:
    kept = group.add_mutually_exclusive_group()
    kept.add_argument(
        "--record",
        type=Path,
        metavar="DIR",
        help="add the run to this LeRobot v3.0 dataset (default: one of its own under "
        f"{RECORDINGS})",
    )
    kept.add_argument("--no-record", action="store_true", help="keep no pictures of the run")
    group.add_argument("--out", type=Path, help="write the run's log there (JSON)")
    group.add_argument("--json", action="store_true", help="the figures as JSON")


def _run(args: argparse.Namespace) -> int:
    from .. import embodiments, robots
    from ..serve.policies import open_policy

    if args.out is not None and not args.out.parent.is_dir():
        raise UserError(f"--out {args.out}: there is no folder {args.out.parent}")
    card = embodiments.get(args.embodiment)
    if args.record is None and not args.no_record:
        args.record = RECORDINGS / f"{time.strftime('%Y%m%d-%H%M%S')}-{card.name}-{os.getpid()}"
    where = robots.parse(args.robot)
    robot = robots.open(
        args.robot,
        card,
        move=False if args.dry_run else (True if args.move else None),
        speed=args.speed,
        step_rad=args.max_step,
        workspace_m=_box(args.workspace),
    )
    policy = open_policy(args.policy, card, threads=args.threads)
    if not robot.move and not args.json:
        remedy = "without --dry-run" if not where.hardware else "with --move"
        print(f"dry run: nothing is sent to {robot}; run again {remedy} to let it move")
    with ExitStack() as stack:
        if robot.clock.simulated:
            stack.enter_context(robot)  # its scene says what to do
        log = robots.run_episode(
            robot,
            policy,
            args.instruction or getattr(robot, "instruction", ""),
            seconds=args.seconds,
            max_chunks=args.chunks if args.chunks or args.seconds else card.blocks,
            mode=args.mode,
            stream_hz=args.stream_hz,
            execute_steps=args.execute_steps,
            smoothing=args.smoothing,
            blend_s=args.blend,
            max_start_offset_rad=args.max_start,
            approach=args.approach,
            watchdog_s=args.watchdog,
            reconnect_s=args.reconnect,
            end=args.end,
            keep_frames=False,
            record=args.record,
            progress=_progress if sys.stderr.isatty() and not args.json else None,
        )
    if sys.stderr.isatty() and not args.json:
        print("\r\x1b[K", end="", file=sys.stderr)
    if args.out is not None:
        log.save(args.out)
    _tell(log, args)
    if log.ended == "interrupted":
        return 130
    return 1 if log.ended in ("fault", "watchdog", "estop") else 0


def _box(text: str | None) -> tuple[tuple[float, float], ...] | None:
    """``x0:x1,y0:y1,z0:z1`` as numbers."""
    if text is None:
        return None
    try:
        sides = tuple(tuple(float(end) for end in side.split(":")) for side in text.split(","))
        ((x0, x1), (y0, y1), (z0, z1)) = sides
    except ValueError:
        raise UserError(
            f"--workspace {text}: give x0:x1,y0:y1,z0:z1 in m, such as 0.05:0.4,-0.2:0.2,0.01:0.4"
        ) from None
    return ((x0, x1), (y0, y1), (z0, z1))


def _progress(figures: dict[str, float]) -> None:
    """One line that is written over."""
    state = "wire lost" if figures["out"] else "holds" if figures["holding"] else "moves"
    line = (
        f"\r\x1b[K{figures['seconds']:7.1f} s  {figures['chunks']:.0f} chunks  {state}  "
        f"late {figures['late_ms']:.1f} ms  missed {figures['missed']:.0f}  "
        f"limited {figures['clipped']:.0f}"
    )
    print(line, end="", file=sys.stderr, flush=True)


def _tell(log: RunLog, args: argparse.Namespace) -> None:
    summary = log.summary()
    if args.json:
        head = {"ended": log.ended, "fault": log.fault, "score": log.score}
        events = {"fault_events": [vars(fault) for fault in log.faults]}
        kept = args.record is not None and args.record.exists()
        record = {"record": str(args.record)} if kept else {}
        print(json.dumps(head | summary | events | record))
        return
    print(f"ended: {log.ended}" + (f": {log.fault}" if log.fault else ""))
    for fault in log.faults:
        back = (
            "never back"
            if fault.back_s is None
            else f"back after {fault.back_s - fault.time_s:.2f} s"
        )
        print(f"  fault at {fault.time_s:.2f} s, {back}: {fault.text}")
    for name, value in summary.items():
        print(f"  {name:24s} {value:10.3f}".rstrip("0").rstrip("."))
    if log.score is not None:
        print("  " + ", ".join(f"{key}: {value}" for key, value in log.score.items()))
    if args.record is not None and args.record.exists():
        print(f"recorded into {args.record}; look at it with: dreamzero data inspect {args.record}")


def _stop(args: argparse.Namespace) -> int:
    from ..robots.estop import EStop
    from ..robots.uri import parse

    stop = EStop(parse(args.robot) if args.robot else None)
    who = args.robot or "every arm of this machine"
    if not args.clear:
        stop.press()
        print(f"stopped: {who} holds until 'dreamzero robot stop --clear'")
        return 0
    cleared = stop.clear()
    print(f"cleared: {', '.join(cleared)}" if cleared else "no stop was pressed")
    if still := stop.pressed():
        print(f"{who} is still stopped {still}; 'dreamzero robot stop --clear' clears all")
    return 0
