"""``dreamzero report``: every notebook in order, then the site that joins them; two runs compared."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dreamzero.cli.run import add_common, common_parameters


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="run all notebooks into one site of results; compare runs",
        description="Runs the notebooks in order and writes a site: index.html, a page a record, the "
        "notebooks as they ran. The path of index.html is the last line printed. A notebook that "
        "fails is named there, and the exit status is 1.",
    )
    add_common(parser)
    parser.add_argument("--render", action="store_true", help="only write the site, run nothing")
    parser.add_argument(
        "--pdf", action="store_true", help="write report.pdf too (needs Chromium or Chrome)"
    )
    parser.set_defaults(function=run)
    verbs = parser.add_subparsers(dest="report_verb", metavar="compare")
    two = verbs.add_parser(
        "compare",
        help="two runs side by side, with what differs beyond noise",
        description="Sets the metrics of two runs, or of two folders of reports, side by side and "
        "marks the differences whose 95 % interval leaves zero out.",
    )
    two.add_argument("a", metavar="A", help="folder with metrics.json, or of such folders")
    two.add_argument("b", metavar="B", help="what to set beside it")
    two.add_argument("--out", metavar="FILE.html", help="the page (default: below runs/compare)")
    two.add_argument("--json", action="store_true", help="print JSON for programs, write no page")
    two.set_defaults(function=compare)


def run(arguments: argparse.Namespace) -> int:
    """Run what is there, write the site, print its path."""
    from pathlib import Path

    from dreamzero.errors import UserError
    from dreamzero.report import notebooks, paths, site
    from dreamzero.report.site import pdf

    out = Path(arguments.out) if arguments.out else paths.reports_dir(arguments.profile)
    if arguments.pdf:
        pdf.chromium()  # before an hour is spent on the notebooks
    failures: dict[str, str] = {}
    if not arguments.render:
        found = notebooks.all_notebooks(arguments.notebooks)
        for notebook in found:
            paths.refuse_downgrade(out / notebook.name, arguments.profile)
        for notebook in found:
            try:
                notebooks.run(notebook, arguments.profile, out, common_parameters(arguments))
            except (notebooks.NotebookFailed, UserError) as error:
                failures[notebook.name] = str(error)
                print(f"dreamzero: {error}", file=sys.stderr)
    page = site.write(out, failures)
    if arguments.pdf:
        print(paths.shown(pdf.write(out)))
    print(paths.shown(page))
    return 1 if failures else 0


def compare(arguments: argparse.Namespace) -> int:
    """Print the table, write the page, print its path."""
    import json
    from pathlib import Path

    from dreamzero.report import compare as comparison
    from dreamzero.report import paths

    found = comparison.compare(arguments.a, arguments.b)
    if arguments.json:
        print(json.dumps(found.to_dict(), indent=1))
        return 0
    comparison.show(found)
    page = Path(arguments.out) if arguments.out else comparison.default_page(found)
    print(paths.shown(comparison.write(found, page)))
    return 0
