"""Where notebooks and reports lie, and the rule that a quick run never replaces a longer one."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from dreamzero.errors import UserError
from dreamzero.report.record import FILE_NAME, load

PROFILES = ("quick", "small", "full")
# What decides the content of recordings and checkpoints that notebooks make.
_ROOMS = ("data", "embodiments", "flow", "model", "sim", "train")


def repository_root() -> Path:
    """The checkout this package runs from, or the current directory for an installed package."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def check_profile(profile: str) -> str:
    """``profile`` itself, or a UserError that names the three there are."""
    if profile not in PROFILES:
        raise UserError(f"profile {profile!r}: must be one of {', '.join(PROFILES)}")
    return profile


def reports_dir(profile: str) -> Path:
    """``reports/`` (kept in git) for small and full, ``runs/report/quick`` for quick."""
    root = repository_root()
    return root / "runs" / "report" / "quick" if profile == "quick" else root / "reports"


def work_dir(profile: str) -> Path:
    """``runs/work/<profile>/<code>``: data sets and checkpoints that notebooks make; never in git.

    ``<code>`` names the version of the code that makes them, so that none is taken for what another
    version would make. The environment variable ``DREAMZERO_WORK`` names another folder than
    ``runs/work``.
    """
    return work_base() / profile / _code()


def work_base() -> Path:
    """``runs/work``, or the folder that the environment variable ``DREAMZERO_WORK`` names."""
    base = os.environ.get("DREAMZERO_WORK")
    return Path(base) if base else repository_root() / "runs" / "work"


@lru_cache
def _code() -> str:
    """A short digest of the simulator, the data room, the model and its training."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for room in _ROOMS:
        for file in sorted((package / room).rglob("*.py")):
            digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:10]


def shown(path: str | Path) -> str:
    """``path`` as the reader should see it: relative to the current directory where it is below."""
    path = Path(path)
    try:
        return path.resolve().relative_to(Path.cwd().resolve()).as_posix()
    except ValueError:
        return str(path)


def refuse_downgrade(out_dir: Path, profile: str) -> None:
    """Raise UserError if ``out_dir`` holds a result of a longer profile than ``profile``."""
    if not (out_dir / FILE_NAME).is_file():
        return
    kept: Any = load(out_dir).parameters.get("profile")
    if kept in PROFILES and PROFILES.index(kept) > PROFILES.index(profile):
        raise UserError(
            f"{shown(out_dir)}: holds a {kept!r} result, which a {profile!r} run does not replace; "
            f"give another --out, or remove that folder first"
        )
