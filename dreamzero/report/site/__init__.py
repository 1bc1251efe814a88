"""The reports as a site: an index, a page a record, the notebooks as they ran; and one document of all.

    index = site.write("runs/report/quick")
    site.pdf.write("runs/report/quick")

Everything on it comes from ``metrics.json`` files, the artifacts they name and the executed notebooks.
Each page is complete in itself: styles, pictures and videos are inside, there is no script and no
request, so that a single page can be sent to somebody.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import UserError
from .. import paths
from ..notebooks import EXECUTED
from ..record import FILE_NAME, RunRecord, load, write_text
from .cells import cells
from .content import entry, facts, link

PAGE, NOTEBOOK, PRINT = "index.html", "notebook.html", "print.html"
_HERE = Path(__file__).parent


def write(out: str | Path, failures: Mapping[str, str] | None = None) -> Path:
    """Write the site of the reports in ``out`` and return ``out/index.html``.

    Args:
        out: folder with one folder a record, at any depth (each with its ``metrics.json``).
        failures: notebook name -> why it has no result; shown on the index in its place.

    Raises:
        UserError: there is no report in ``out`` and no failure to show, or a figure is missing.
    """
    folder, failed = Path(out), dict(failures or {})
    found = records(folder)
    entries = [
        entry(name, record, folder / name, failed.get(name, ""))
        for name, record in _with_failures(found, failed).items()
    ]
    if not entries:
        raise UserError(f"{paths.shown(folder)}: no reports here; run 'dreamzero report' first")
    nav = [link(e) for e in entries if e["number"]]
    for index, one in enumerate(entries):
        _record_page(folder, one, nav, entries, index)
    page = render(
        "index.html",
        title="DreamZero: results",
        nav=nav,
        root="",
        here="",
        facts=facts(list(found.values())),
        cards=[e for e in entries if e["number"]],
        others=[e for e in entries if not e["number"]],
    )
    return write_text(folder / PAGE, page)


def records(folder: Path) -> dict[str, RunRecord]:
    """The records below ``folder`` by the name of their folder; notebooks first, then the others.

    What failed (``<name>.failed``) or is hidden is no result.
    """
    files = sorted(folder.rglob(FILE_NAME))
    names = [path.parent.relative_to(folder).as_posix() for path in files]
    shown = [
        name
        for name in names
        if name != "."
        and not any(p.startswith(".") or p.endswith(".failed") for p in name.split("/"))
    ]
    shown.sort(key=lambda name: (not name[:2].isdigit(), name))
    return {name: load(folder / name) for name in shown}


def print_page(out: str | Path) -> Path:
    """Write ``out/print.html``: all records in one document, for paper. Returns its path.

    Raises:
        UserError: there is no report in ``out``.
    """
    folder = Path(out)
    found = records(folder)
    if not found:
        raise UserError(f"{paths.shown(folder)}: no reports here; run 'dreamzero report' first")
    entries = [entry(name, record, folder / name) for name, record in found.items()]
    page = render(
        "print.html",
        title="DreamZero: results",
        nav=[],
        facts=facts(list(found.values())),
        records=entries,
    )
    return write_text(folder / PRINT, page)


def render(template: str, **values: Any) -> str:
    """A template of this folder with the style sheet inside."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = Markup((_HERE / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(css=css, **values)


def _with_failures(
    found: dict[str, RunRecord], failed: Mapping[str, str]
) -> dict[str, RunRecord | None]:
    """Notebooks that ran and that failed, in one order; a failed one shows no older result."""
    names = sorted({*found, *failed}, key=lambda name: (not name[:2].isdigit(), name))
    return {name: None if name in failed else found[name] for name in names}


def _record_page(
    folder: Path,
    one: dict[str, Any],
    nav: list[dict[str, str]],
    entries: list[dict[str, Any]],
    index: int,
) -> None:
    home = folder / one["folder"]
    root = "../" * (one["folder"].count("/") + 1)
    if (home / EXECUTED).is_file():
        captions = {
            (home / f["path"]).read_bytes(): (f["caption"], f["alt"])
            for f in one["figures"] + one["videos"]
        }
        page = render(
            "notebook.html",
            title=f"{one['title']}: the notebook",
            nav=nav,
            root=root,
            here=one["href"],
            name=f"{one['number']} {one['title']}".strip(),
            back=not one["failure"],
            cells=cells(home / EXECUTED, captions),
        )
        write_text(home / NOTEBOOK, page)
    if one["failure"]:
        return
    page = render(
        "record.html",
        title=f"DreamZero: {one['title']}",
        nav=nav,
        root=root,
        here=one["href"],
        r=one,
        before=link(entries[index - 1]) if index else None,
        after=link(entries[index + 1]) if index + 1 < len(entries) else None,
    )
    write_text(home / PAGE, page)
