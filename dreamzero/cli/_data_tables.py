"""What ``dreamzero data`` shows people: tables of recordings, statistics and findings."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ..data.check import Finding
    from ..data.normalize import Statistics
    from ..data.published import Comparison
    from ..data.reader import Dataset
    from ..embodiments import Embodiment

_STYLE = {"error": "bold red", "warning": "yellow", "note": "dim"}


def show(*things: Any) -> None:
    """Print tables and lines, cut to no width where nobody looks."""
    width = None if sys.stdout.isatty() else 160
    console = Console(width=width, highlight=False)
    for thing in things:
        console.print(thing)


def _table(title: str, *columns: str) -> Table:
    """A table; columns that begin with # hold numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in columns:
        numeric = name.startswith("#")
        table.add_column(name.lstrip("#"), justify="right" if numeric else "left", overflow="fold")
    return table


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def facts(dataset: Dataset, card: Embodiment) -> dict[str, Any]:
    """What ``inspect --json`` prints."""
    lengths = [e.length for e in dataset.episodes]
    views: dict[str, Any] = {}
    for view, size in dataset.views.items():
        span = dataset.episodes[0].videos[view]
        clip = dataset.clips.about(span.path)
        paths = {e.videos[view].path for e in dataset.episodes}
        views[view] = {
            "height_px": size[0],
            "width_px": size[1],
            "codec": dataset.codecs[view],
            "fps": round(clip.fps, 3),
            "frames_per_keyframe": round(len(clip) / len(clip.keys), 1),
            "bytes": sum(path.stat().st_size for path in paths),
        }
    gear = dataset.gear
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
        "views": views,
        "state": dataset.state_names,
        "action": dataset.action_names,
        "tasks": dict(Counter(e.task for e in dataset.episodes).most_common()),
        "gear": {
            "state": {k: [s.column, s.start, s.stop] for k, s in gear.state.items()},
            "action": {k: [s.column, s.start, s.stop] for k, s in gear.action.items()},
            "tag": gear.tag,
            "relative_statistics": list(gear.relative),
        },
        "notes": dataset.notes,
        "card": card.name,
    }


def inspect(found: dict[str, Any]) -> None:
    """The facts as tables."""
    low, high = found["rows_per_episode"]
    about = _table(escape(found["path"]), "", "")
    about.show_header = False
    stated = found["fps_stated"]
    rate = f"{found['fps']:g} fps" + ("" if stated == found["fps"] else f" (info.json: {stated})")
    described = found["episodes_described"]
    of = "" if described == found["episodes"] else f" of {described} described"
    size = sum(view["bytes"] for view in found["views"].values())
    for name, text in (
        ("format", f"LeRobot {found['version']}"),
        ("robot", escape(str(found["robot"] or "not stated"))),
        ("rate", rate),
        ("episodes", f"{found['episodes']}{of}, {low} to {high} rows"),
        ("rows", f"{found['rows']} ({found['seconds'] / 60:.1f} minutes)"),
        ("video", f"{_megabytes(size)} in {len(found['views'])} views"),
        ("card", found["card"] if found["card"] != "makeshift" else "none fits (see `data card`)"),
    ):
        about.add_row(name, text)
    vectors = _table("Columns", "column", "#width", "dimensions")
    for key in ("state", "action"):
        names = found[key]
        vectors.add_row(key, str(len(names)), escape(", ".join(names)) or "not recorded")
    views = _table(
        "Views", "view", "#height", "#width", "codec", "#fps", "#keyframe every", "#size"
    )
    for view, own in found["views"].items():
        every = f"{own['frames_per_keyframe']:g} frames"
        numbers = (str(own["height_px"]), str(own["width_px"]), own["codec"], f"{own['fps']:g}")
        views.add_row(view, *numbers, every, _megabytes(own["bytes"]))
    tasks = _table("Tasks", "#episodes", "instruction")
    for task, count in list(found["tasks"].items())[:12]:
        tasks.add_row(str(count), escape(task) or "(none)")
    if len(found["tasks"]) > 12:
        tasks.add_row("...", f"{len(found['tasks']) - 12} more")
    parts = [about, views, vectors, *_gear(found["gear"]), tasks]
    if found["notes"]:
        notes = _table("Quirks (wrong, but readable)", "name", "how it was read")
        for note in found["notes"]:
            name, _, text = note.partition(": ")
            notes.add_row(f"[yellow]{name}[/]", escape(text))
        parts.append(notes)
    show(*parts, f"[dim]next: dreamzero data check {escape(found['path'])}[/]")


def _gear(gear: dict[str, Any]) -> list[Table]:
    if not gear["state"] and not gear["action"]:
        return []
    tag = f", tag {gear['tag']}" if gear["tag"] else ""
    table = _table(
        f"GEAR's modality.json{escape(tag)}", "kind", "key", "column", "#from", "#to", ""
    )
    for kind in ("state", "action"):
        for key, (column, start, stop) in gear[kind].items():
            known = kind == "action" and key in gear["relative_statistics"]
            extra = "relative statistics" if known else ""
            table.add_row(kind, escape(key), escape(column), str(start), str(stop), extra)
    return [table]


def statistics(found: Statistics, card: Embodiment, compared: Sequence[Comparison]) -> None:
    """Quantiles of every dimension, and the published files beside them."""
    tables = []
    for kind, parts, known in (
        ("State", card.state, found.state),
        ("Action", card.action, found.action),
    ):
        if not known:
            continue
        names = ("q01", "q99", "min", "max", "mean", "std")
        table = _table(
            f"{kind} at {card.action_hz:g} Hz, card {escape(card.name)}",
            *("field", "#dimension", "as", "unit", "#1 %", "#99 %"),
            *("#min", "#max", "#mean", "#std"),
        )
        for f in parts:
            how = f"relative per block of {card.horizon}" if f.relative else "absolute"
            for i in range(f.width):
                cells = (f"{getattr(known[f.key], name)[i]:.4f}" for name in names)
                table.add_row(escape(f.key), str(f.start + i), how, f.unit, *cells)
        tables.append(table)
    if compared:
        table = _table("Published statistics against the rows", "file", "feature", "", "verdict")
        for row, places in _compared(compared):
            style = "green" if row.agrees else "yellow"
            table.add_row(row.file, escape(row.feature), places, f"[{style}]{escape(row.text)}[/]")
        tables.append(table)
    show(*tables)


def _compared(rows: Sequence[Comparison]) -> list[tuple[Comparison, str]]:
    """One row of each file, feature and verdict, with the number of its episodes."""
    groups: dict[tuple[str, str, bool], list[Comparison]] = {}
    for row in rows:
        groups.setdefault((row.file, row.feature, row.agrees), []).append(row)
    found = []
    for same in groups.values():
        worst = max(same, key=lambda row: row.deviation)
        many = "" if same[0].episode is None else f"{len(same)} episodes"
        found.append((worst, many))
    return found


def findings(dataset: Dataset, card: Embodiment, found: Sequence[Finding]) -> None:
    """One line a kind of finding, and the verdict."""
    from ..data.check import grouped

    table = _table(
        f"{escape(str(dataset.root))}, card {escape(card.name)}",
        *("level", "finding", "where", "what"),
    )
    for f, places in grouped(found):
        table.add_row(f"[{_STYLE[f.level]}]{f.level}[/]", f.name, escape(places), escape(f.text))
    wrong = sum(f.level == "error" for f in found)
    verdict = (
        f"[bold red]Training on this would be wrong: {wrong} error{'s' if wrong > 1 else ''}.[/]"
        if wrong
        else f"Fit to train on ({len(dataset.episodes)} episodes checked)."
    )
    show(*([table] if found else []), verdict)
