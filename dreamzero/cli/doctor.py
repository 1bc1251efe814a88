"""``dreamzero doctor``: what this machine can do, and the fix for what it cannot."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="what this machine can do, and the fix for what it cannot",
        description="Checks everything the quick profile needs; exit status 1 if any of it fails.",
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Print every check; 1 if one that the quick profile needs has failed."""
    from dreamzero.doctor import examine

    checks = examine()
    failed = any(check.status == "fail" for check in checks)
    if arguments.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(c) for c in checks]}, indent=2))
        return int(failed)
    colours = {"ok": "32", "warn": "33", "fail": "31"} if sys.stdout.isatty() else {}
    for check in checks:
        status = f"{check.status:<4}"
        if check.status in colours:
            status = f"\033[{colours[check.status]}m{status}\033[0m"
        print(f"{status}  {check.name:<10} {check.detail}")
        if check.fix:
            print(f"{'':<17}fix: {check.fix}" if check.status != "ok" else f"{'':<17}{check.fix}")
    print("quick cannot run here yet" if failed else "this machine runs the quick profile")
    return int(failed)
