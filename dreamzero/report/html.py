"""One page that joins the notebooks' reports: ``index.html``, complete in itself.

Everything on it comes from the ``metrics.json`` files and the artifacts they name; pictures and
videos are embedded, so that the file can be sent to somebody. The executed notebooks are written
as HTML beside it.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamzero.errors import UserError
from dreamzero.report import paths
from dreamzero.report.notebooks import EXECUTED
from dreamzero.report.record import FILE_NAME, RunRecord, format_number, load, write_text

PAGE = "index.html"
_TEMPLATE = Path(__file__).with_name("page.html")


def write(out: str | Path, failures: Mapping[str, str] | None = None) -> Path:
    """Write ``out/index.html`` from the reports in ``out`` and return its path.

    Args:
        out: folder with one folder a notebook (each with its ``metrics.json``).
        failures: notebook name -> why it has no result; shown on the page in its place.

    Raises:
        UserError: there is no report in ``out`` and no failure to show.
    """
    import jinja2

    folder = Path(out)
    failed = dict(failures or {})
    records = {p.parent.name: load(p) for p in sorted(folder.glob(f"[0-9][0-9]_*/{FILE_NAME}"))}
    kept = {name: r for name, r in records.items() if name not in failed and "." not in name}
    if not kept and not failed:
        raise UserError(f"{paths.shown(folder)}: no reports here; run 'dreamzero report' first")
    cards = [
        _card(name, kept.get(name), folder / name, failed) for name in sorted({*kept, *failed})
    ]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(cards=cards, facts=_facts(list(kept.values())))
    return write_text(folder / PAGE, page)


def _card(
    name: str, record: RunRecord | None, folder: Path, failed: Mapping[str, str]
) -> dict[str, Any]:
    title = name[3:].replace("_", " ").capitalize()
    card: dict[str, Any] = {"number": name[:2], "name": name, "title": title}
    if record is None:
        return {**card, "failure": failed[name], "question": "", "answer": ""}
    notes = record.notes
    settings = {k: v for k, v in record.parameters.items() if k not in ("out_dir", "profile")}
    return {
        **card,
        "failure": "",
        "question": notes.get("question", ""),
        "answer": notes.get("answer", ""),
        "not_shown": notes.get("not_shown", ""),
        "metrics": [
            {
                "name": key.replace("_", " "),
                "value": "n/a" if m.value is None else format_number(m.value),
                "unit": m.unit,
                "interval": ""
                if m.low is None or m.high is None
                else f"{format_number(m.low)} to {format_number(m.high)}",
                "n": m.n,
            }
            for key, m in record.metrics.items()
        ],
        "figures": _embedded(notes.get("figures", []), record, folder),
        "videos": _embedded(notes.get("videos", []), record, folder),
        "tables": notes.get("tables", []),
        "settings": ", ".join(f"{k} = {v}" for k, v in settings.items()),
        "seconds": _duration(record.seconds or 0.0),
        "notebook": _notebook_html(folder),
    }


def _embedded(
    entries: list[dict[str, str]], record: RunRecord, folder: Path
) -> list[dict[str, str]]:
    """The record's figures or videos as data addresses; one without its artifact is an error."""
    shown = []
    for entry in entries:
        path = folder / entry["path"]
        if entry["path"] not in record.artifacts or not path.is_file():
            raise UserError(
                f"{paths.shown(path)}: named in {FILE_NAME} but not there; run it again"
            )
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        shown.append({"data": f"data:{kind};base64,{data}", "caption": entry["caption"]})
    return shown


def _notebook_html(folder: Path) -> str:
    """Write the executed notebook as ``notebook.html``; its address relative to the page."""
    executed = folder / EXECUTED
    if not executed.is_file():
        return ""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(str(executed), as_version=4)
    exporter = HTMLExporter(template_name="lab")
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": folder.name}})
    write_text(folder / "notebook.html", body)
    return f"{folder.name}/notebook.html"


def _facts(records: list[RunRecord]) -> list[tuple[str, str]]:
    """What stands under the title: profile, machine, commit, versions, time; once each."""
    if not records:
        return []

    def distinct(values: list[str]) -> str:
        return "; ".join(dict.fromkeys(value for value in values if value))

    def commit(record: RunRecord) -> str:
        found = (record.git.get("commit") or "")[:12]
        return found + (" with local changes" if found and record.git.get("dirty") else "")

    def software(record: RunRecord) -> str:
        names = ("python", "torch", "diffusers", "mujoco")
        return ", ".join(f"{n} {record.versions[n]}" for n in names if n in record.versions)

    total = sum(record.seconds or 0.0 for record in records)
    facts = [
        ("profile", distinct([str(r.parameters.get("profile", "")) for r in records])),
        ("machine", distinct([r.device for r in records])),
        ("commit", distinct([commit(r) for r in records])),
        ("software", distinct([software(r) for r in records])),
        ("seed", distinct([str(r.seed) for r in records])),
        ("time", _duration(total) + " in the notebooks"),
    ]
    return [(name, value) for name, value in facts if value]


def _duration(seconds: float) -> str:
    if seconds >= 90:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
