"""``dreamzero data``: what a recording holds, its statistics, and whether to train on it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from dreamzero.data.reader import Dataset
    from dreamzero.embodiments import Embodiment

_DESCRIPTION = """\
Look at LeRobot recordings (v2.0, v2.1, v3.0) before training on them.

  inspect  what is there: rate, episodes, views, columns, tasks, and every quirk found
  stats    quantiles per dimension, actions relative per block, as training normalises them
  check    what would make a training wrong; exit status 1 if anything would
"""

_EXAMPLES = """\
examples:
  dreamzero data inspect recordings/usb
  dreamzero data stats recordings/usb --card franka_usb
  dreamzero data check recordings/usb --json

A card says how a robot's columns and views are read. Without --card the one that fits is
taken; where none does, a makeshift one that treats all columns alike. FILE.toml is a card
of your own.
"""

_VERBS = {
    "inspect": "show version, rates, episodes, views, columns, tasks and quirks",
    "stats": "show the quantiles that training normalises by",
    "check": "list what would make a training wrong; exit status 1 if anything would",
}


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "data",
        help="inspect, check and summarise data sets",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=formatter,
    )
    verbs = parser.add_subparsers(dest="data_verb", metavar="inspect|stats|check", required=True)
    for verb, text in _VERBS.items():
        one = verbs.add_parser(verb, help=text, description=text.capitalize() + ".")
        one.add_argument("path", metavar="PATH", help="folder that holds meta/info.json")
        one.add_argument(
            "--card", metavar="NAME", help="embodiment card: a built-in name or FILE.toml"
        )
        one.add_argument("--json", action="store_true", help="print JSON for programs")
        if verb == "check":
            one.add_argument(
                "--thorough", action="store_true", help="decode every frame, not only the last"
            )
        one.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Open the dataset and do what was asked; exit status 1 where ``check`` finds an error."""
    from dreamzero.data import cards
    from dreamzero.data.reader import Dataset

    dataset = Dataset.open(arguments.path)
    if arguments.data_verb == "check":
        return _check(dataset, arguments)
    card = cards.choose(dataset, arguments.card)
    if arguments.data_verb == "stats":
        return _stats(dataset, card, arguments.json)
    return _inspect(dataset, card, arguments.json)


def _print(*things: Any) -> None:
    from rich.console import Console

    # A pipe has no width: give it enough that no cell is cut.
    width = None if sys.stdout.isatty() else 160
    console = Console(width=width, highlight=False)
    for thing in things:
        console.print(thing)


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in columns:
        numeric = name.startswith("#")
        table.add_column(name.lstrip("#"), justify="right" if numeric else "left", overflow="fold")
    return table


def summary(dataset: Dataset) -> dict[str, Any]:
    """What ``inspect --json`` prints."""
    lengths = [e.length for e in dataset.episodes]
    return {
        "path": str(dataset.root),
        "version": dataset.version,
        "robot": dataset.info.get("robot_type"),
        "fps": dataset.fps,
        "fps_stated": dataset.info.get("fps"),
        "episodes": len(dataset.episodes),
        "episodes_described": dataset.described,
        "rows": sum(lengths),
        "rows_per_episode": [min(lengths), max(lengths)],
        "seconds": round(sum(lengths) / dataset.fps, 2),
        "views": {
            view: {"height_px": size[0], "width_px": size[1], "codec": dataset.codecs[view]}
            for view, size in dataset.views.items()
        },
        "state": dataset.state_names,
        "action": dataset.action_names,
        "tasks": dataset.tasks,
        "notes": dataset.notes,
    }


def _inspect(dataset: Dataset, card: Embodiment, as_json: bool) -> int:
    from rich.markup import escape

    facts = {**summary(dataset), "card": card.name}
    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    low, high = facts["rows_per_episode"]
    about = _table(escape(str(dataset.root)), "", "")
    about.show_header = False
    stated = facts["fps_stated"]
    rate = f"{dataset.fps:g} fps" + ("" if stated == dataset.fps else f" (info.json: {stated})")
    about.add_row("format", f"LeRobot {dataset.version}")
    about.add_row("robot", escape(str(facts["robot"] or "not stated")))
    about.add_row("rate", rate)
    described = facts["episodes_described"]
    of = "" if described == facts["episodes"] else f" of {described} described"
    about.add_row("episodes", f"{facts['episodes']}{of}, {low} to {high} rows")
    about.add_row("rows", f"{facts['rows']} ({facts['seconds'] / 60:.1f} minutes)")
    about.add_row("card", card.name if card.name != "makeshift" else "none fits (see --card)")
    columns = _table("Columns", "column", "#width", "names")
    for key, names in (("state", dataset.state_names), ("action", dataset.action_names)):
        columns.add_row(key, str(len(names)), escape(", ".join(names)) or "not recorded")
    views = _table("Views", "view", "#height", "#width", "codec")
    for view, (height, width) in dataset.views.items():
        views.add_row(view, str(height), str(width), dataset.codecs[view])
    counts: dict[str, int] = {}
    for e in dataset.episodes:
        counts[e.task] = counts.get(e.task, 0) + 1
    tasks = _table("Tasks", "#episodes", "instruction")
    for task, count in sorted(counts.items(), key=lambda item: -item[1])[:12]:
        tasks.add_row(str(count), escape(task) or "(none)")
    if len(counts) > 12:
        tasks.add_row("...", f"{len(counts) - 12} more")
    notes = _table("Quirks (wrong, but readable)", "name", "how it was read")
    for note in dataset.notes:
        name, _, text = note.partition(": ")
        notes.add_row(name, escape(text))
    _print(about, columns, views, tasks, *([notes] if dataset.notes else []))
    return 0


def _stats(dataset: Dataset, card: Embodiment, as_json: bool) -> int:
    from rich.markup import escape

    from dreamzero.data.normalize import Normalizer, compute
    from dreamzero.errors import UserError

    statistics = compute(dataset, card)
    if as_json:
        print(json.dumps({"card": card.name, **statistics.to_json()}, indent=2))
        return 0
    if not statistics.state and not statistics.action:
        raise UserError(f"{dataset.root} records neither state nor action: nothing to summarise")
    tables = []
    for kind, fields, known in (
        ("State", card.state, statistics.state),
        ("Action", card.action, statistics.action),
    ):
        if not known:
            continue
        table = _table(
            f"{kind} at {card.action_hz:g} Hz, card {card.name}",
            *(
                "field",
                "#dimension",
                "as",
                "unit",
                "#1 %",
                "#99 %",
                "#min",
                "#max",
                "#mean",
                "#std",
            ),
        )
        for f in fields:
            numbers = known[f.key]
            how = f"relative per block of {card.horizon}" if f.relative else "absolute"
            for i in range(f.width):
                rows = (getattr(numbers, n)[i] for n in ("q01", "q99", "min", "max", "mean", "std"))
                cells = (f"{value:.4f}" for value in rows)
                table.add_row(f.key, str(f.start + i), how, f.unit, *cells)
        tables.append(table)
    complete = bool(statistics.action) or not card.action
    usable = card if complete else card.with_(action=())
    _print(*tables, *map(escape, Normalizer(usable, statistics).notes))
    return 0


def _check(dataset: Dataset, arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rich.markup import escape

    from dreamzero import embodiments
    from dreamzero.data import cards
    from dreamzero.data.check import check

    # A named card that does not fit is a finding here, not a refusal.
    built_in = arguments.card in embodiments.names()
    card = embodiments.get(arguments.card) if built_in else cards.choose(dataset, arguments.card)
    findings = check(dataset, card if card.name != "makeshift" else None, arguments.thorough)
    wrong = sum(f.level == "error" for f in findings)
    if arguments.json:
        print(json.dumps({"ok": not wrong, "findings": [asdict(f) for f in findings]}, indent=2))
        return 1 if wrong else 0
    style = {"error": "bold red", "warning": "yellow", "note": "dim"}
    table = _table(
        f"{dataset.root}, card {card.name}", "level", "finding", "where", "what it means"
    )
    for f in findings:
        table.add_row(f"[{style[f.level]}]{f.level}[/]", f.name, escape(f.where), escape(f.text))
    verdict = (
        f"[bold red]Training on this would be wrong: {wrong} error{'s' if wrong > 1 else ''}.[/]"
        if wrong
        else f"Fit to train on ({len(dataset.episodes)} episodes checked)."
    )
    _print(*([table] if findings else []), verdict)
    return 1 if wrong else 0
