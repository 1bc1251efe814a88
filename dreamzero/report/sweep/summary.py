"""The table and figure at the end of a sweep, written like any other report.

``runs.csv`` has one row a run with every metric; ``report.md`` and ``metrics.json`` have the mean over
seeds for each setting. In ``metrics.json`` the interval is the 95 % t interval of that mean (so that
`dreamzero report compare` may set two sweeps side by side), in the table the range is min to max.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import closest
from ...errors import UserError
from .. import paths
from ..intervals import mean_over_runs
from ..notebook_report import markdown
from ..record import Metric, RunRecord, format_number, load, write_text
from . import Result
from .grid import SEED, Run

CSV, FIGURE = "runs.csv", "metrics.png"
_SHOWN = 4  # metrics in table and figure, unless some are named


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone: the swept values without it, and the records."""

    values: dict[str, Any]
    runs: list[tuple[Run, RunRecord]]

    @property
    def label(self) -> str:
        """The values as one text."""
        return ", ".join(f"{k} = {v}" for k, v in self.values.items()) or "all runs"

    def found(self, name: str) -> list[tuple[Any, Metric]]:
        """(seed, metric) of the runs that have a finite value of this metric."""
        pairs = [(r.parameters.get(SEED), record.metrics.get(name)) for r, record in self.runs]
        return [(s, m) for s, m in pairs if m is not None and m.value is not None]


def write(result: Result, metrics: Sequence[str] = ()) -> RunRecord:
    """Write the summary into ``result.folder / result.grid.name`` and return its record.

    Args:
        metrics: names to show; default the first four of the notebook.

    Raises:
        UserError: a name that no run has.
    """
    done = {r.name: load(result.runs_folder / r.name) for r in result.grid.runs
            if r.name not in result.failures}  # fmt: skip
    names = list(dict.fromkeys(name for record in done.values() for name in record.metrics))
    for name in metrics if done else ():
        if name not in names:
            raise UserError(f"--metric: {closest(name, names, 'metric')}")
    shown = list(metrics) or names[:_SHOWN]
    out = result.folder / result.grid.name
    out.mkdir(parents=True, exist_ok=True)
    record = _record(result, done)
    record.seconds = round(sum(r.seconds or 0.0 for r in done.values()), 1)
    write_text(out / CSV, _csv(result, done, names))
    record.artifact(out / CSV)
    groups = settings(result, done)
    for group in groups:
        for name in names:
            _add(record, group, name)
    record.notes["tables"] = _tables(result, groups, shown, done)
    if groups and shown:
        from matplotlib import pyplot

        from .. import style
        from .figure import draw

        figure = draw(groups, shown, list(result.grid.axes))
        record.artifact(style.save(figure, out, FIGURE.removesuffix(".png")))
        pyplot.close(figure)
        record.notes["figures"] = [{"path": FIGURE, "caption": _caption(result, shown)}]
    record.save(out)
    write_text(out / "report.md", markdown(record))
    return record


def settings(result: Result, done: dict[str, RunRecord]) -> list[Setting]:
    """The finished runs by what varies, seeds together, in the grid's order."""
    groups: dict[str, Setting] = {}
    for run in result.grid.runs:
        if run.name in done:
            values = {name: value for name, value in run.swept.items() if name != SEED}
            group = groups.setdefault(repr(values), Setting(values, []))
            group.runs.append((run, done[run.name]))
    return list(groups.values())


def _record(result: Result, done: dict[str, RunRecord]) -> RunRecord:
    plan = result.grid
    fixed = {
        name: value for name, value in plan.runs[0].parameters.items() if name not in plan.axes
    }
    device = str(plan.runs[0].parameters.get("device", "cpu"))
    record = RunRecord(f"sweep of {plan.notebook.name}", {**fixed, **plan.axes}, device=device)
    machines = list(dict.fromkeys(r.device for r in done.values()))
    commits = list(dict.fromkeys(_commit(r) for r in done.values()))
    record.device = "; ".join(machines) or record.device
    answer = f"{len(done)} of {len(plan.runs)} runs finished"
    if result.failures:
        answer += f", {len(result.failures)} failed"
    answer += "."
    if len(commits) > 1:
        answer += (
            f" The runs are of {len(commits)} states of the code ({', '.join(commits)}): "
            "remove the older ones to run them again."
        )
    axes = " and ".join(plan.axes) or "nothing"
    record.notes.update(
        question=f"What do {axes} change in {plan.notebook.name}?",
        answer=answer,
        not_shown="",
        figures=[],
        videos=[],
        tables=[],
        commits=commits,
        failures=dict(result.failures),
        runs=[run.name for run in plan.runs],
    )
    return record


def _add(record: RunRecord, group: Setting, name: str) -> None:
    found = group.found(name)
    if not found:
        return
    key = f"{group.label}/{name}" if group.values else name
    first = found[0][1]
    if len(found) == 1:
        record.add(key, first.value, first.unit, first.n, first.low, first.high)  # type: ignore[arg-type]
        return
    mean, low, high = mean_over_runs([float(m.value) for _, m in found])  # type: ignore[arg-type]
    record.add(key, mean, first.unit, len(found), low, high)


def _tables(
    result: Result, groups: list[Setting], shown: list[str], done: dict[str, RunRecord]
) -> list[dict[str, Any]]:
    axes = [name for name in result.grid.axes if name != SEED]
    seeds = SEED in result.grid.axes
    units = {
        n: next((r.metrics[n].unit for r in done.values() if n in r.metrics), "") for n in shown
    }
    columns = [*axes, *(f"{n} ({units[n]})" if units[n] else n for n in shown), "runs"]
    rows = [
        [*(str(g.values[a]) for a in axes), *(_cell(g, name) for name in shown), str(len(g.runs))]
        for g in groups
    ]
    what = "value [95 % interval]"
    if seeds:
        what = "mean over seeds [min, max]; of a single run its own 95 % interval"
    tables = [{"name": "settings", "caption": what[0].upper() + what[1:] + ".", "columns": columns,
               "rows": rows}] if rows else []  # fmt: skip
    if result.failures:
        failed = [
            [name, why, f"../{result.executed(name).relative_to(result.folder).as_posix()}"]
            for name, why in result.failures.items()
        ]
        tables.append(
            {
                "name": "failures",
                "caption": "Runs that failed; the same command runs them again.",
                "columns": ["run", "why", "its cells"],
                "rows": failed,
            }
        )
    return tables


def _cell(group: Setting, name: str) -> str:
    found = group.found(name)
    if not found:
        return "–"
    values = [float(m.value) for _, m in found]  # type: ignore[arg-type]
    if len(values) == 1:
        low, high = found[0][1].low, found[0][1].high
    else:
        low, high = min(values), max(values)
    text = format_number(sum(values) / len(values))
    if low is None or high is None:
        return text
    return f"{text} [{format_number(low)}, {format_number(high)}]"


def _csv(result: Result, done: dict[str, RunRecord], names: list[str]) -> str:
    """One row a run: all its parameters, how it ended, every metric, where it came from."""
    parameters = list(result.grid.runs[0].parameters)
    head = [*parameters, "status", "why"]
    for name in names:
        head += [name, f"{name} low", f"{name} high", f"{name} n"]
    head += ["seconds", "commit", "device", "folder"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    for run in result.grid.runs:
        record = done.get(run.name)
        row: list[Any] = [run.parameters[name] for name in parameters]
        row += ["failed", result.failures[run.name]] if record is None else ["done", ""]
        for name in names:
            metric = record.metrics.get(name) if record else None
            row += (
                [None] * 4 if metric is None else [metric.value, metric.low, metric.high, metric.n]
            )
        if record is None:
            row += [None, None, None, f"runs/{run.name}.failed"]
        else:
            row += [record.seconds, _commit(record), record.device, f"runs/{run.name}"]
        table.writerow(row)
    return text.getvalue()


def _commit(record: RunRecord) -> str:
    found = (record.git.get("commit") or "no commit")[:12]
    return found + ("+changes" if record.git.get("dirty") else "")


def _caption(result: Result, shown: list[str]) -> str:
    axes = [name for name in result.grid.axes if name != SEED]
    what = ", ".join(shown)
    if SEED not in result.grid.axes:
        return f"{what} against {axes[0] if axes else 'the run'}, with 95 % intervals where known."
    if not axes:
        return f"{what} of every seed; line and band are mean and range over the seeds."
    return f"{what} against {axes[0]}: mean and range over seeds, each seed a faint dot."


def report_path(result: Result) -> Path:
    """The Markdown page of the summary, as the reader should see it."""
    return Path(paths.shown(result.folder / result.grid.name / "report.md"))
