"""Two runs side by side: what differs between them, and which differences are more than noise.

    found = compare("reports/02_training", "runs/report/quick/02_training")
    write(found, "compare.html")

A difference is marked when its 95 % interval leaves zero out; the interval comes from the two
metrics' own (`intervals.difference`), and a metric without one gets no verdict. Of many metrics that
do not differ one in twenty is marked by chance.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError
from . import paths
from .intervals import difference
from .record import FILE_NAME, Metric, RunRecord, format_number, load, write_text

Verdict = Literal["differs", "within noise", "no interval", "only in A", "only in B", "other unit"]
METHOD = (
    "Marked is a difference whose 95 % interval leaves zero out. The interval is made of the two "
    "metrics' own intervals, taken as independent: of proportions Newcombe's, of means nearly Welch's. "
    "Without intervals there is no verdict, and of twenty metrics that are the same one is marked by "
    "chance."
)


@dataclass(frozen=True)
class Row:
    """One metric in both runs; ``low`` and ``high`` bound B - A where both have intervals."""

    name: str
    a: Metric | None
    b: Metric | None
    verdict: Verdict
    difference: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Pair:
    """One record in both: what is not the same about the runs, and their metrics."""

    name: str
    settings: list[tuple[str, str, str]]
    rows: list[Row]


@dataclass
class Comparison:
    """All records that both have, and the names of those that one has alone."""

    a: Path
    b: Path
    pairs: list[Pair] = field(default_factory=list)
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One sentence with the counts."""
        rows = [row for pair in self.pairs for row in pair.rows]
        counts = {v: sum(row.verdict == v for row in rows) for v in ("differs", "within noise")}
        judged = sum(counts.values())
        text = f"{counts['differs']} of {judged} metrics with intervals differ beyond noise"
        if judged >= 20:
            text += f" (about {judged / 20:.0f} would by chance alone)"
        rest = sum(row.verdict == "no interval" for row in rows)
        alone = len(rows) - judged - rest
        text += f"; {rest} have no interval" if rest else ""
        return text + (f"; {alone} cannot be compared." if alone else ".")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found = asdict(self)
        return {
            **found,
            "a": paths.shown(self.a),
            "b": paths.shown(self.b),
            "summary": self.summary,
        }


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Compare two runs or two folders of reports.

    Args:
        a, b: a ``metrics.json``, its folder, or a folder of such folders (matched by their names).

    Raises:
        UserError: no record in one of them, or none in common.
    """
    one, two = _records(Path(a)), _records(Path(b))
    found = Comparison(Path(a), Path(b))
    if ("." in one) != ("." in two):
        raise UserError(f"{a} and {b}: one is a single run, the other a folder of them")
    shared = [name for name in one if name in two]
    if not shared:
        raise UserError(f"{a} and {b}: no record of one name in both")
    for name in shared:
        title = one[name].name if name == "." else name
        found.pairs.append(
            Pair(title, _settings(one[name], two[name]), _rows(one[name], two[name]))
        )
    found.only_a = [name for name in one if name not in two]
    found.only_b = [name for name in two if name not in one]
    return found


def judge(name: str, a: Metric | None, b: Metric | None) -> Row:
    """The verdict on one metric."""
    if a is None or b is None:
        return Row(name, a, b, "only in B" if a is None else "only in A")
    if a.unit != b.unit:
        return Row(name, a, b, "other unit")
    if a.value is None or b.value is None:
        return Row(name, a, b, "no interval")
    step = b.value - a.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Row(name, a, b, "no interval", step)
    if a.low == a.high and b.low == b.high:  # a single trial, or all alike: no measure of noise
        return Row(name, a, b, "no interval", step)
    _, low, high = difference((a.value, a.low, a.high), (b.value, b.low, b.high))
    verdict: Verdict = "within noise" if low <= 0.0 <= high else "differs"
    return Row(name, a, b, verdict, step, low, high)


def _records(path: Path) -> dict[str, RunRecord]:
    if path.is_file() or (path / FILE_NAME).is_file():
        return {".": load(path)}
    from .site import records

    if not path.is_dir() or not (found := records(path)):
        raise UserError(f"{paths.shown(path)}: no {FILE_NAME} here or below")
    return found


def _rows(a: RunRecord, b: RunRecord) -> list[Row]:
    names = dict.fromkeys([*a.metrics, *b.metrics])
    return [judge(name, a.metrics.get(name), b.metrics.get(name)) for name in names]


def _settings(a: RunRecord, b: RunRecord) -> list[tuple[str, str, str]]:
    """What is not the same: parameters, commit, machine, versions."""

    def facts(record: RunRecord) -> dict[str, str]:
        commit = (record.git.get("commit") or "none")[:12]
        parameters = {k: str(v) for k, v in record.parameters.items() if k != "out_dir"}
        versions = {f"{k} (version)": v for k, v in record.versions.items()}
        changed = " with local changes" if record.git.get("dirty") else ""
        return {**parameters, "commit": commit + changed, "machine": record.device, **versions}

    one, two = facts(a), facts(b)
    return [
        (name, one.get(name, "–"), two.get(name, "–"))
        for name in dict.fromkeys([*one, *two])
        if one.get(name) != two.get(name)
    ]


def default_page(found: Comparison) -> Path:
    """``runs/compare/<A>_and_<B>.html`` of the checkout."""
    words = [re.sub(r"[^A-Za-z0-9.]+", "-", paths.shown(p)).strip("-.") for p in (found.a, found.b)]
    return paths.repository_root() / "runs" / "compare" / f"{'_and_'.join(words)[:150]}.html"


def show(found: Comparison) -> None:
    """Print the tables to the terminal; what differs is bold and has a star."""
    import sys

    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for pair in found.pairs:
        table = Table(title=escape(pair.name), title_justify="left", title_style="bold",
                      box=box.SIMPLE_HEAD)  # fmt: skip
        for column in ("", "metric", "A", "B", "B - A [95 %]", "verdict"):
            right = column in ("A", "B", "B - A [95 %]")
            table.add_column(escape(column), justify="right" if right else "left", overflow="fold")
        for row in pair.rows:
            star, style = ("*", "bold") if row.verdict == "differs" else ("", None)
            cells = (star, row.name, _metric(row.a), _metric(row.b), _step(row), row.verdict)
            table.add_row(*map(escape, cells), style=style)
        for name, one, two in pair.settings:
            console.print(escape(f"{name}: {one} | {two}"), style="dim")
        console.print(table)
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            print(f"only in {side}: {', '.join(names)}")
    print(found.summary)


def write(found: Comparison, page: str | Path) -> Path:
    """Write the comparison as an HTML page complete in itself; returns its path."""
    from .site import render

    one, two = paths.shown(found.a), paths.shown(found.b)
    text = render(
        "compare.html",
        title=f"{one} and {two}",
        nav=[],
        a=one,
        b=two,
        summary=found.summary,
        method=METHOD,
        pairs=[
            {
                "name": pair.name,
                "settings": pair.settings,
                "rows": [
                    {
                        "name": row.name.replace("_", " ").replace("/", ": "),
                        "unit": _unit(row),
                        "a": _metric(row.a, row.verdict == "other unit"),
                        "b": _metric(row.b, row.verdict == "other unit"),
                        "difference": _step(row),
                        "verdict": row.verdict,
                        "differs": row.verdict == "differs",
                    }
                    for row in pair.rows
                ],
                "figures": _figures(found, pair.name),
            }
            for pair in found.pairs
        ],
        only_a=found.only_a,
        only_b=found.only_b,
    )
    return write_text(Path(page), text)


def _figures(found: Comparison, name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Figures of one name in both, A's and B's."""
    from .site.media import embedded

    shown = []
    for side, path in (("A", found.a), ("B", found.b)):
        folder = path if path.is_dir() else path.parent
        folder = folder if (folder / FILE_NAME).is_file() else folder / name
        record = load(folder)
        figures = embedded(record.notes.get("figures", []), record, folder)
        shown.append({f["path"]: {**f, "caption": f"{side}. {f['caption']}"} for f in figures})
    return [(figure, shown[1][path]) for path, figure in shown[0].items() if path in shown[1]]


def _unit(row: Row) -> str:
    found = row.a or row.b
    return found.unit if found is not None and row.verdict != "other unit" else ""


def _metric(metric: Metric | None, unit: bool = True) -> str:
    if metric is None:
        return "–"
    text = "not finite" if metric.value is None else format_number(metric.value)
    if metric.low is not None and metric.high is not None:
        text += f" [{format_number(metric.low)}, {format_number(metric.high)}]"
    return text + (f" {metric.unit}" if unit and metric.unit else "")


def _step(row: Row) -> str:
    if row.difference is None:
        return "–"
    text = f"{'+' if row.difference > 0 else ''}{format_number(row.difference)}"
    if row.low is not None and row.high is not None:
        text += f" [{format_number(row.low)}, {format_number(row.high)}]"
    return text
