"""``dreamzero run``: one notebook, with parameters."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="run one notebook with parameters",
        description="Runs a notebook and writes its report: report.md, metrics.json, figures and "
        "the executed notebook. Without a notebook, lists those there are.",
    )
    parser.add_argument("notebook", nargs="?", help='its number or name: "3", "03", "inference"')
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter of the notebook (repeatable)",
    )
    add_common(parser)
    parser.add_argument(
        "--parameters", action="store_true", help="list its parameters, run nothing"
    )
    parser.set_defaults(function=run)


def add_common(parser: argparse.ArgumentParser) -> None:
    """The arguments that ``run`` and ``report`` share."""
    parser.add_argument(
        "--profile",
        choices=("quick", "small", "full"),
        default="quick",
        help="how much: minutes on two cores, a GPU or a night, or the full-size weights "
        "(default quick)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder of the reports (default: runs/report/quick for quick, reports for others)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="where models run (default: the notebook's)"
    )
    parser.add_argument("--seed", type=int, default=None, help="default: the notebook's")
    parser.add_argument("--notebooks", metavar="DIR", help="another folder of notebooks")


def common_parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """``--device`` and ``--seed`` as notebook parameters, where they were given."""
    chosen = {"device": arguments.device, "seed": arguments.seed}
    return {name: value for name, value in chosen.items() if value is not None}


def run(arguments: argparse.Namespace) -> int:
    """Run the notebook, print its answer, its metrics and where the report lies."""
    from dreamzero.errors import UserError
    from dreamzero.report import notebooks, paths
    from dreamzero.report.parameters import read_parameters, typed
    from dreamzero.report.record import load

    if arguments.notebook is None:
        for notebook in notebooks.all_notebooks(arguments.notebooks):
            print(notebook.name)
        return 0
    notebook = notebooks.find(arguments.notebook, arguments.notebooks)
    known = read_parameters(notebook.path)
    if arguments.parameters:
        for item in known.values():
            print(item)
        return 0
    given = typed(known, arguments.parameter)
    if "out_dir" in given:
        raise UserError("parameter out_dir: use --out, the folder that holds the reports")
    profile = given.pop("profile", arguments.profile)
    values = {**common_parameters(arguments), **given}
    try:
        out = notebooks.run(notebook, profile, arguments.out, values)
    except notebooks.NotebookFailed as error:
        print(f"dreamzero: {error}", file=sys.stderr)
        return 1
    record = load(out)
    print(record.notes["answer"])
    for name, metric in record.metrics.items():
        print(f"  {name:<28} {metric}")
    print(paths.shown(out / "report.md"))
    return 0
