"""What a notebook writes at its end: figures, metrics and the answer to its question.

The first cell after the parameters, and the last cells, of every notebook look like this:

    from dreamzero.report import NotebookReport

    report = NotebookReport(
        "03_inference",
        question="How fast does the model act on this machine?",
        parameters=dict(profile=profile, seed=seed, device=device, out_dir=out_dir, steps=steps),
    )
    report.work_dir                               # for data sets and checkpoints, not in git
    ...
    report.figure(fig, "chunk_rate", "Chunks per second against the number of sampling steps.")
    report.slides({"1": picture, "2": picture}, "step", "steps", "What the sampler holds.")
    report.video(frames, "dream", "What the model dreamed for the first chunk.", fps=5)
    report.table("caches", rows, "Seconds a chunk with and without the key-value cache.")
    report.metric("chunk_rate", 8.3, "chunks/s", n=50, low=8.1, high=8.5)
    report.answer("8.3 chunks a second with 4 steps.", not_shown="Any GPU: this ran on two cores.")
    report.save()

`figure` shows the picture in the notebook too (do not show it a second time). `save` writes
``report.md``, ``metrics.json`` and everything named above into ``report.out_dir``. They return
nothing, so that a cell may end with them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamzero.report import interactive, paths
from dreamzero.report.record import FILE_NAME, Metric, RunRecord, is_deep, load, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dreamzero.report.interactive import Key

FIRST_PARAMETERS = ("profile", "seed", "device", "out_dir")


class NotebookReport:
    """Collects one notebook's results and writes them; see the module's example.

    Args:
        name: the notebook's file name without ``.ipynb`` ("03_inference").
        question: what the notebook asks, one sentence.
        parameters: its parameters by name: ``profile, seed, device, out_dir`` and its own.

    Attributes:
        out_dir: folder of this report. An empty ``out_dir`` parameter means
            ``runs/report/quick/<name>`` for quick and ``reports/<name>`` for small and full.
        work_dir: folder for what is large or remade at will; shared by all notebooks of a profile.
        record: the `RunRecord` behind ``metrics.json``.

    Raises:
        ValueError: one of the four first parameters is missing.
        UserError: unknown profile, or ``out_dir`` holds a result of a longer profile.
    """

    def __init__(self, name: str, question: str, parameters: Mapping[str, Any]) -> None:
        missing = [key for key in FIRST_PARAMETERS if key not in parameters]
        if missing:
            raise ValueError(f"{name}: parameters lack {', '.join(missing)}")
        self.profile = paths.check_profile(str(parameters["profile"]))
        given = str(parameters["out_dir"] or "")
        self.out_dir = Path(given) if given else paths.reports_dir(self.profile) / name
        paths.refuse_downgrade(self.out_dir, self.profile)
        self.out_dir.mkdir(parents=True, exist_ok=True)
        self.work_dir = paths.work_dir(self.profile)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.record = RunRecord(
            name,
            parameters={**parameters, "out_dir": paths.shown(self.out_dir)},
            seed=int(parameters["seed"]),
            device=str(parameters["device"]),
        )
        self.record.notes.update(
            question=question, answer="", not_shown="", figures=[], videos=[], tables=[]
        )
        if _in_notebook() and (text := kept_answer(name, self.out_dir)):
            from IPython.display import Markdown, display

            display(Markdown(text))

    def metric(
        self,
        name: str,
        value: float,
        unit: str = "",
        n: int | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> Metric:
        """One number with its unit, trials and 95 % interval; returned to be shown or asserted."""
        return self.record.add(name, value, unit, n, low, high)

    def figure(self, fig: Figure, name: str, caption: str, alt: str = "") -> None:
        """Save a figure as ``name.png``, show it in the notebook, and close it.

        ``alt`` says what is to be seen to those who do not see it; by default the caption does.
        """
        from matplotlib import pyplot

        from dreamzero.report import style

        path = style.save(fig, self.out_dir, name)
        pyplot.close(fig)
        self._keep("figures", path, caption, alt)
        _show_image(path)

    def slides(
        self,
        pictures: Mapping[Key, np.ndarray],
        controls: str | Sequence[str],
        name: str,
        caption: str,
        figure: Figure | None = None,
        note: str = "",
    ) -> None:
        """Pictures to leaf through where the notebook is live, below a figure that is kept.

        Args:
            pictures: uint8 ``[h, w, 3]`` by label, or by a tuple of labels, one a control.
            controls: what the labels are of, such as ``("sampler", "chunk")``.
            figure: what papermill, pages and paper show; default all pictures on one sheet.
            note: a sentence below the live pictures.
        """
        self.figure(figure or interactive.sheet(pictures, controls), name, caption)
        if interactive.live():
            from IPython.display import display

            display(interactive.slides(pictures, controls, note))

    def image(
        self, pixels: np.ndarray, name: str, caption: str, min_px: int = 256, alt: str = ""
    ) -> None:
        """Save a picture, uint8 ``[h, w, 3]``, as ``name.png`` (small ones enlarged) and show it."""
        from matplotlib import image

        from dreamzero.report.video import upscale

        path = self.out_dir / f"{name}.png"
        factor = max(1, -(-min_px // min(pixels.shape[:2])))
        image.imsave(path, np.ascontiguousarray(upscale(pixels, factor)))
        self._keep("figures", path, caption, alt)
        _show_image(path)

    def video(self, frames: np.ndarray, name: str, caption: str, fps: float, alt: str = "") -> None:
        """Save uint8 ``[t, h, w, 3]`` as ``name.mp4`` and show a player in the notebook."""
        from dreamzero.report.video import video_tag, write_video

        path = write_video(frames, self.out_dir / f"{name}.mp4", fps)
        self._keep("videos", path, caption, alt)
        if _in_notebook():
            from IPython.display import HTML, display

            display(HTML(video_tag(path.read_bytes())))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], caption: str) -> None:
        """A small table (rows of equal keys; texts and numbers) for the report and the page."""
        columns = list(rows[0]) if rows else []
        if any(list(row) != columns for row in rows):
            raise ValueError(f"table {name!r}: every row must have the columns {columns}")
        kept = [[_cell(row[column]) for column in columns] for row in rows]
        self.record.notes["tables"].append(
            {"name": name, "caption": caption, "columns": columns, "rows": kept}
        )
        if _in_notebook():
            from IPython.display import Markdown, display

            display(Markdown(f"{markdown_table(columns, kept)}\n\n*{caption}*"))

    def artifact(self, path: str | os.PathLike[str]) -> Path:
        """A further file in ``out_dir`` that belongs to the result (a CSV behind a curve)."""
        return self.record.artifact(path)

    def answer(self, text: str, not_shown: str = "") -> None:
        """The answer to the question, in a sentence or two, and what was *not* shown here."""
        self.record.notes.update(answer=text, not_shown=not_shown)
        if _in_notebook():
            from IPython.display import Markdown, display

            display(Markdown(f"{text}\n\n*Not shown:* {not_shown}" if not_shown else text))

    def save(self) -> None:
        """Write ``metrics.json`` and ``report.md`` into ``out_dir``.

        Raises:
            ValueError: there is no answer yet.
        """
        if not self.record.notes["answer"]:
            raise ValueError(f"{self.record.name}: call report.answer(...) before report.save()")
        self.record.save(self.out_dir)
        write_text(self.out_dir / "report.md", markdown(self.record))

    def _keep(self, kind: str, path: Path, caption: str, alt: str) -> None:
        entries = self.record.notes[kind]
        entries[:] = [entry for entry in entries if entry["path"] != path.name]  # a cell run again
        entries.append({"path": path.name, "caption": caption} | ({"alt": alt} if alt else {}))
        self.record.artifact(path)


def kept_answer(name: str, out_dir: Path) -> str:
    """What the committed run of a notebook answered, as Markdown: it opens the notebook.

    Empty where there is none, or where this run is to take its place (``out_dir``).
    """
    folder = paths.repository_root() / "reports" / name
    if not (folder / FILE_NAME).is_file() or folder.resolve() == out_dir.resolve():
        return ""
    kept = load(folder)
    answer, profile = kept.notes.get("answer", ""), kept.parameters.get("profile", "")
    if not answer:
        return ""
    return f"> **Answer** of the committed run (`{profile}`; {kept.device}): {answer}"


def markdown(record: RunRecord) -> str:
    """The report of one notebook as Markdown, from its record alone."""
    notes, git = record.notes, record.git
    commit = (git.get("commit") or "no commit")[:12] + (" + changes" if git.get("dirty") else "")
    lines = [f"# {record.name}", "", f"**{notes['question']}**", "", notes["answer"], ""]
    if notes.get("not_shown"):
        lines += [f"Not shown: {notes['not_shown']}", ""]
    if record.metrics:
        rows = {name: [name, str(metric)] for name, metric in record.metrics.items()}
        plain = [row for name, row in rows.items() if not is_deep(name)]
        deep = [row for name, row in rows.items() if is_deep(name)]
        lines += [markdown_table(["metric", "value"], plain), ""] if plain else []
        if deep:
            lines += [f"<details><summary>{len(deep)} more, of single cells</summary>", "",
                      markdown_table(["metric", "value"], deep), "", "</details>", ""]  # fmt: skip
    for figure in notes.get("figures", []):
        lines += [
            f"![{figure.get('alt') or figure['caption']}]({figure['path']})",
            "",
            figure["caption"],
            "",
        ]
    for video in notes.get("videos", []):
        lines += [f"[{video['path']}]({video['path']}): {video['caption']}", ""]
    for table in notes.get("tables", []):
        lines += [markdown_table(table["columns"], table["rows"]), "", table["caption"], ""]
    settings = ", ".join(f"{k} = {v}" for k, v in record.parameters.items() if k != "out_dir")
    lines += [f"{settings}. {record.seconds:.0f} s on {record.device}. Commit {commit}.", ""]
    return "\n".join(lines)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table of texts."""

    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(columns), "|" + "---|" * len(columns), *map(line, rows)])


def _cell(value: Any) -> str:
    from dreamzero.report.record import format_number

    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return str(value)
    return format_number(float(value)) if np.isfinite(value) else "not finite"


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and shell.has_trait("kernel")


def _show_image(path: Path) -> None:
    if _in_notebook():
        from IPython.display import Image, display

        display(Image(filename=str(path), retina=True))
