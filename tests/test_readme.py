"""The README's commands exist as they are written there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dreamzero.cli import available_verbs, build_parser

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "notebooks/README.md", "reports/README.md")


def commands() -> list[tuple[str, str]]:
    """(document, command line) of every shell line in a fenced block."""
    found = []
    for name in DOCUMENTS:
        for block in re.findall(r"```bash\n(.*?)```", (ROOT / name).read_text(), re.DOTALL):
            joined = block.replace("\\\n", " ")
            found += [(name, line.split("  #")[0].strip()) for line in joined.splitlines()]
    return [(name, line) for name, line in found if line and not line.startswith("#")]


COMMANDS = commands()


@pytest.mark.parametrize(
    ("document", "line"), [(d, c) for d, c in COMMANDS if c.startswith("dreamzero ")]
)
def test_dreamzero_commands_parse(document: str, line: str) -> None:
    _, verb, *arguments = shlex.split(line)
    assert verb in available_verbs()
    assert build_parser(verb).parse_args([verb, *arguments]) is not None


@pytest.mark.parametrize(
    ("document", "line"), [(d, c) for d, c in COMMANDS if c.startswith("make ")]
)
def test_make_targets_exist(document: str, line: str) -> None:
    target = shlex.split(line)[1]
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_links_and_pictures_exist() -> None:
    for name in DOCUMENTS:
        text = (ROOT / name).read_text()
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if not target.startswith("http"):
                assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"


def test_the_two_commands_come_first() -> None:
    made = [line for document, line in COMMANDS if document == "README.md"]
    assert made[:2] == ["make report", "make test"]
