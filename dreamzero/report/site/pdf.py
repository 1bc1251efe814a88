"""The reports on paper: ``print.html`` through a headless Chromium, where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ...errors import UserError
from .. import paths

FILE = "report.pdf"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_LIMIT_S = 180
_QUIET = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip


def chromium() -> str:
    """The browser's command.

    Raises:
        UserError: there is none on the PATH.
    """
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    raise UserError(
        "--pdf needs Chromium or Chrome: apt-get install -y chromium, "
        "or print print.html from any browser"
    )


def write(out: str | Path) -> Path:
    """Write ``out/report.pdf`` (A4, numbered, bookmarked) from the records in ``out``.

    Raises:
        UserError: no Chromium, no reports, or the browser did not write the file.
    """
    from . import print_page

    browser = chromium()
    page = print_page(out)
    target = Path(out).resolve() / FILE
    with tempfile.TemporaryDirectory(prefix="dreamzero-pdf-") as folder:
        made = Path(folder) / FILE
        command = [
            browser, *_QUIET, f"--user-data-dir={folder}/profile", "--no-pdf-header-footer",
            "--generate-pdf-document-outline", f"--print-to-pdf={made}", page.resolve().as_uri(),
        ]  # fmt: skip
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # Chromium refuses to sandbox root's processes
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
            )
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        except subprocess.TimeoutExpired:
            said = f"no answer in {_LIMIT_S} s"
        if not made.is_file():
            raise UserError(f"--pdf: {Path(browser).name} wrote no PDF ({said})")
        shutil.copyfile(made, target.with_suffix(".pdf.partial"))
        os.replace(target.with_suffix(".pdf.partial"), target)
    page.unlink()
    return Path(paths.shown(target))
