"""``dreamzero report``: every notebook in order, then the page that joins them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dreamzero.cli.run import add_common, common_parameters


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="run every notebook, then write the page that joins them",
        description="Runs the notebooks in order and writes index.html; its path is the last line "
        "printed. A notebook that fails is named on the page, and the exit status is 1.",
    )
    add_common(parser)
    parser.add_argument("--render", action="store_true", help="only write the page, run nothing")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Run what is there, write the page, print its path."""
    from pathlib import Path

    from dreamzero.errors import UserError
    from dreamzero.report import html, notebooks, paths

    out = Path(arguments.out) if arguments.out else paths.reports_dir(arguments.profile)
    failures: dict[str, str] = {}
    if not arguments.render:
        found = notebooks.all_notebooks(arguments.notebooks)
        for notebook in found:  # before an hour is spent on the first
            paths.refuse_downgrade(out / notebook.name, arguments.profile)
        for notebook in found:
            try:
                notebooks.run(notebook, arguments.profile, out, common_parameters(arguments))
            except (notebooks.NotebookFailed, UserError) as error:
                failures[notebook.name] = str(error)
                print(f"dreamzero: {error}", file=sys.stderr)
    page = html.write(out, failures)
    print(paths.shown(page))
    return 1 if failures else 0
