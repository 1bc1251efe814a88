"""``dreamzero experiment``: the cells of the paper's claims, run, listed and tabulated."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..experiments.runner import Runner

# What is committed: results (``--join``) and the models that others start from.
KEPT = Path("reports") / "experiments"
_DESCRIPTION = """\
A cell is one training with its rollouts. `run` records what it needs, trains what is missing and
rolls it out; a killed run goes on where it was. Each cell takes one thread.
"""
_EPILOG = """\
examples:
  dreamzero experiment list                                 cells, what is done, what it will take
  dreamzero experiment run 'labels/*' --workers 2           all of a group
  dreamzero experiment run labels/wam-640-s0                one cell, and what it starts from
  dreamzero experiment table --group labels                 success with 95 % intervals
"""


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "experiment",
        help="run, list and tabulate the cells behind the paper's claims",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("list", "run", "table"))
    parser.add_argument("cells", nargs="*", help="names or patterns (default: all)")
    parser.add_argument(
        "--profile", choices=("quick", "small"), default="small", help="how much (default small)"
    )
    parser.add_argument("--out", type=Path, help="work folder (default runs/experiments/PROFILE)")
    parser.add_argument("--group", help="only cells of this group")
    parser.add_argument("--workers", type=int, default=1, help="cells at a time (default 1)")
    parser.add_argument(
        "--kept",
        type=Path,
        metavar="DIR",
        help=f"results and models that count as done (default for small: {KEPT}, where it is)",
    )
    parser.add_argument(
        "--join", type=Path, metavar="DIR", help="also write all results as one file to DIR"
    )
    parser.set_defaults(function=run)


def run(args: argparse.Namespace) -> int:
    """Run, list or tabulate cells, as asked."""
    from ..experiments.claims import grid
    from ..experiments.results import join
    from ..experiments.runner import Runner

    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: give at least 1")
    found = grid(args.profile)
    folder = args.out or Path("runs") / "experiments" / args.profile
    kept = args.kept or (KEPT if args.profile == "small" else None)
    if args.kept is not None and not args.kept.is_dir():
        raise UserError(f"--kept {args.kept}: no such folder; give one that --join wrote")
    runner = Runner(found, folder, kept)
    names = _chosen(list(found.cells), args.cells, args.group)
    status = 0
    if args.what == "list":
        _list(runner, names)
    elif args.what == "table":
        _table(runner, names)
    else:
        failed = runner.run(names, args.workers)
        for name in failed:
            print(f"dreamzero: {name} failed", file=sys.stderr)
        status = 1 if failed else 0
    if args.join is not None:
        print(join(folder, args.join))
    return status


def _chosen(known: list[str], patterns: list[str], group: str | None) -> list[str]:
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise UserError(f"no cell {pattern!r}; `dreamzero experiment list` names them")
    names = [n for n in known if not patterns or any(fnmatch.fnmatch(n, p) for p in patterns)]
    names = [n for n in names if group is None or n.split("/")[0] == group]
    if not names:
        raise UserError(f"no cell of group {group!r}; `dreamzero experiment list` names them")
    return names


def _list(runner: Runner, names: list[str]) -> None:
    for name in names:
        result = runner.result(name)
        rates = (
            ""
            if result is None
            else "  ".join(
                f"{where} {100 * sum(o['success']) / len(o['success']):.0f} %"
                for where, o in result["outcomes"].items()
            )
        )
        print(f"{'done   ' if result else 'missing'} {name:36} {rates}")
    done = sum(runner.result(name) is not None for name in names)
    print(f"{done} of {len(names)} cells done in {runner.folder}")


def _table(runner: Runner, names: list[str]) -> None:
    from ..experiments.results import Results

    found = [result for name in names if (result := runner.result(name)) is not None]
    if not found:
        raise UserError(f"{runner.folder} holds no results: run `dreamzero experiment run` first")
    for row in Results(found).table():
        seeds = ", ".join(f"{100 * s:.0f}" for s in row["seeds"])
        print(f"{row['cell']:32} {row['where']:26} {row['rate']}  by seed: {seeds}")
