"""What the pages say of a record: its metrics in groups, figures, tables, and where it comes from."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..notebooks import EXECUTED
from ..record import Metric, RunRecord, format_number, is_deep
from . import media

_SCREEN = 1.6  # width over height
_KEY = 3  # numbers shown on the index
_SOFTWARE = ("python", "torch", "triton", "diffusers", "mujoco", "av", "papermill")
_NUMBER = re.compile(r"[-+−–]?\d[\d.,e+-]*( ?(%|ms|s|dB|Hz|MB|GB|x))?(\s*\[.*\])?|–|n/a|")


def entry(name: str, record: RunRecord | None, folder: Path, failure: str = "") -> dict[str, Any]:
    """Everything the templates show of one record (or of a notebook that has none).

    Raises:
        UserError: a figure or video that the record names is missing.
    """
    title = name.replace("_", " ").replace("/", ", ")
    number = name[:2] if re.match(r"\d\d_", name) else ""
    title = title[3:].capitalize() if number else title.capitalize()
    base: dict[str, Any] = {
        "number": number, "title": title, "folder": name, "href": f"{name}/index.html",
        "anchor": re.sub(r"\W+", "-", name), "failure": failure, "question": title, "answer": "",
        "not_shown": "", "key": [], "groups": [], "deep": [], "figures": [], "videos": [], "tables": [],
        "facts": [], "artifacts": [], "thumb": "", "notebook": False,
    }  # fmt: skip
    if record is None:
        failed = folder.with_name(f"{folder.name}.failed")
        if (failed / EXECUTED).is_file():
            base |= {"folder": f"{name}.failed", "href": f"{name}.failed/notebook.html"}
        return base
    notes, rows = record.notes, _rows(record)
    plain = [row for row in rows if not row["deep"]]
    deep = [row for row in rows if row["deep"]]
    figures = media.embedded(notes.get("figures", []), record, folder)
    return base | {
        "question": notes.get("question", ""),
        "answer": notes.get("answer", ""),
        "not_shown": notes.get("not_shown", ""),
        "key": [row for row in plain if row["interval"]][:_KEY] or plain[:_KEY],
        "groups": groups(plain),
        "deep": groups(deep),
        "figures": figures,
        "videos": media.embedded(notes.get("videos", []), record, folder),
        "tables": [_table(table) for table in notes.get("tables", []) if _is_table(table)],
        "facts": provenance(record),
        "artifacts": list(record.artifacts.items()),
        "thumb": media.thumbnail(folder / _cover(figures)["path"]) if figures else "",
        "notebook": (folder / EXECUTED).is_file(),
        "count": len(record.metrics),
        "device": record.device,
        "commit": commit(record),
    }


def _cover(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figure for the index: the one of a screen's shape, where a film strip would be a thread."""
    drawn = [f for f in figures if "width" in f] or list(figures)
    return min(drawn, key=lambda f: abs(math.log(f.get("width", 1) / f.get("height", 1) / _SCREEN)))


def link(one: dict[str, Any]) -> dict[str, str]:
    """Title and address of an entry, for navigation."""
    return {"title": f"{one['number']} {one['title']}".strip(), "href": one["href"]}


def groups(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics, those of one ``prefix/`` together under its name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["group"], []).append(row)
    single = [some for name, some in found.items() if not name or len(some) == 1]
    loose = [{**row, "name": row["full"]} for some in single for row in some]
    named = [(n, some) for n, some in found.items() if n and len(some) > 1]
    return [
        *([{"name": "", "rows": loose}] if loose else []),
        *({"name": name, "rows": some} for name, some in named),
    ]


def _rows(record: RunRecord) -> list[dict[str, Any]]:
    rows = []
    for key, metric in record.metrics.items():
        group, _, name = key.rpartition("/")
        rows.append(
            {
                "group": words(group),
                "name": words(name),
                "full": words(key.replace("/", ": ")),
                "deep": is_deep(key),
                "value": value(metric),
                "unit": metric.unit,
                "interval": interval(metric),
                "n": "" if metric.n is None else metric.n,
            }
        )
    return rows


def words(name: str) -> str:
    """A metric's name as a reader wants it."""
    return name.replace("_", " ").replace("/", ", ")


def value(metric: Metric) -> str:
    """The number alone."""
    return "not finite" if metric.value is None else format_number(metric.value)


def interval(metric: Metric) -> str:
    """Its 95 % interval, empty where there is none."""
    if metric.low is None or metric.high is None:
        return ""
    return f"{format_number(metric.low)}, {format_number(metric.high)}"


def _is_table(table: Any) -> bool:
    return isinstance(table, dict) and {"caption", "columns", "rows"} <= set(table)


def _table(table: dict[str, Any]) -> dict[str, Any]:
    """Columns of numbers are set to the right."""
    columns = range(len(table["columns"]))
    numeric = [
        all(_NUMBER.fullmatch(str(row[column])) for row in table["rows"]) for column in columns
    ]
    return {**table, "numeric": numeric}


def provenance(record: RunRecord) -> list[tuple[str, str]]:
    """Parameters, seed, machine, commit, versions and time of one record."""
    settings = {k: v for k, v in record.parameters.items() if k != "out_dir"}
    shown = ", ".join(f"{k} = {_setting(v)}" for k, v in settings.items())
    software = ", ".join(f"{n} {record.versions[n]}" for n in _SOFTWARE if n in record.versions)
    rows = [
        ("parameters", shown),
        ("machine", record.device),
        ("commit", commit(record)),
        ("software", software),
        ("time", duration(record.seconds or 0.0)),
    ]
    return [(name, text) for name, text in rows if text]


def _setting(setting: Any) -> str:
    if isinstance(setting, list):
        return " ".join(map(str, setting))
    return "empty" if setting == "" else str(setting)


def commit(record: RunRecord) -> str:
    """Twelve digits of the commit, and whether there were changes."""
    found = (record.git.get("commit") or "")[:12]
    return found + (" with local changes" if found and record.git.get("dirty") else "")


def facts(records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """What stands under the title of the site: each machine, commit and version once."""

    def distinct(values: list[str]) -> str:
        return "; ".join(dict.fromkeys(text for text in values if text))

    total = sum(record.seconds or 0.0 for record in records)
    versions = [
        ", ".join(f"{n} {r.versions[n]}" for n in _SOFTWARE[:5] if n in r.versions) for r in records
    ]
    rows = [
        ("profile", distinct([str(r.parameters.get("profile", "")) for r in records])),
        ("machine", distinct([r.device for r in records])),
        ("commit", distinct([commit(r) for r in records])),
        ("software", distinct(versions)),
        ("time", duration(total) + " in all" if records else ""),
    ]
    return [(name, text) for name, text in rows if text]


def duration(seconds: float) -> str:
    """Seconds as a reader wants them."""
    if seconds >= 90:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
