"""Where notebooks put what they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamzero.report import paths


def test_work_folder_names_the_code_that_made_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMZERO_WORK", str(tmp_path))
    before = paths.work_dir("quick")
    assert before.parent == tmp_path / "quick"

    package = tmp_path / "package"
    room = package / "sim"
    (package / "report").mkdir(parents=True)
    room.mkdir()
    (room / "world.py").write_text("TABLE_M = 0.4\n")
    monkeypatch.setattr(paths, "__file__", str(package / "report" / "paths.py"))
    paths._code.cache_clear()
    first = paths.work_dir("quick")
    (room / "world.py").write_text("TABLE_M = 0.5\n")
    paths._code.cache_clear()
    second = paths.work_dir("quick")
    paths._code.cache_clear()
    assert len({before, first, second}) == 3
