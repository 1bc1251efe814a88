"""``dreamzero sweep``: a notebook with every combination of some parameters."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

_EPILOG = """\
examples:
  dreamzero sweep 02 -p seed 0,1,2 -p preset tiny,small --jobs 2
  dreamzero sweep 02 -p steps 240,960 -p seed 0,1,2 -p dataset recordings/mine --metric this_run/ratio
  dreamzero sweep 02 -p seed 0,1,2,3 --cluster local:2
  dreamzero sweep 02 -p seed 0,1,2,3 --cluster tcp://10.0.0.2:8786 --out /shared/sweeps

The same command goes on where an interrupted one stopped: a finished run (its notebook's code
and all its parameters) is not run again, a failed one is. Give a recording with -p dataset where
the notebook takes one, or each run makes its own.
"""


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "sweep",
        help="run one notebook with every combination of parameters",
        description="Runs a notebook once for every combination of the values, then writes a table "
        "(runs.csv, report.md), metrics.json and a figure. Exit status 1 when a run failed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebook", help='its number or name: "2", "02", "training"')
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUES"),
        help='values of a parameter, parted by commas ("a, b" is one value); repeatable',
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at a time (default 1)"
    )
    where.add_argument(
        "--cluster",
        metavar="local:N|ADDRESS",
        help="run on the workers of a Dask cluster, or on N of them started here",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="show this metric (repeatable; default: the notebook's first four)",
    )
    parser.add_argument(
        "--profile", choices=("quick", "small", "full"), help="default quick; may be swept with -p"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the notebook's")
    parser.add_argument("--out", metavar="DIR", help="folder of sweeps (default runs/sweep)")
    parser.add_argument("--notebooks", metavar="DIR", help="another folder of notebooks")
    parser.add_argument("--list", action="store_true", help="list the runs, run nothing")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the grid, print the table and where the summary lies."""
    from ..errors import UserError
    from ..report import notebooks, sweep
    from ..report.sweep import engines, summary
    from ..report.sweep.job import finished

    notebook = notebooks.find(arguments.notebook, arguments.notebooks)
    fixed = {k: v for k in ("profile", "device") if (v := getattr(arguments, k)) is not None}
    plan = sweep.grid(notebook, arguments.parameter, fixed)
    out = Path(arguments.out) if arguments.out else sweep.default_folder()
    if arguments.list:
        runs = out / notebook.name / "runs"
        for one in plan.runs:
            print(f"{'done' if finished(runs, one.name) else 'open':<5} {one.name}")
        return 0
    on_gpu = any(str(r.parameters.get("device", "")).startswith("cuda") for r in plan.runs)
    if on_gpu and not arguments.cluster:
        notebooks.need_gpu("cuda")
    if not arguments.parameter:
        raise UserError("sweep: nothing to sweep; give -p NAME VALUES, such as -p seed 0,1,2")
    # A batch system ends a job with SIGTERM: the runs under way must hear of it, as of Ctrl-C.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        where = (
            engines.cluster(arguments.cluster)
            if arguments.cluster
            else engines.local(arguments.jobs)
        )
        with where as engine:
            print(f"{notebook.name}: {len(plan.runs)} runs, {engine.words}", file=sys.stderr)
            result = sweep.run(plan, out, engine)
    finally:
        signal.signal(signal.SIGTERM, before)
    record = summary.write(result, arguments.metric)
    _show(record)
    for name, why in result.failures.items():
        print(f"failed: {name}\n  {why}\n  {_shown(result.executed(name))}", file=sys.stderr)
    print(summary.report_path(result))
    return 1 if result.failures else 0


def _interrupt(signum: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _shown(path: Path) -> str:
    from ..report import paths

    return paths.shown(path)


def _show(record: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    print(record.notes["answer"])
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for table in record.notes["tables"]:
        if table["name"] != "settings":
            continue
        shown = Table(box=box.SIMPLE_HEAD)
        for column in table["columns"]:
            shown.add_column(escape(column), overflow="fold")
        for row in table["rows"]:
            shown.add_row(*map(escape, row))
        console.print(shown)
        print(table["caption"])
