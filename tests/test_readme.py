"""What documents name exists: commands, links, pictures, results."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from dreamzero.cli import available_verbs, build_parser
from dreamzero.shipped import FOLDER, NAME

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


def documents() -> list[Path]:
    """What people read: every Markdown file that is written by hand, and the notebooks."""
    found = [*ROOT.glob("*.md"), *(ROOT / name for name in ("reports/README.md",))]
    for folder in ("docs", "notebooks", "kernels", "dreamzero"):
        found += (ROOT / folder).rglob("*.md")
    return sorted([*found, *(ROOT / "notebooks").glob("*.ipynb")])


def prose(path: Path) -> str:
    """Markdown of a document without its code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"```.*?```|`[^`\n]+`", "`", text, flags=re.DOTALL)


def headings(path: Path) -> set[str]:
    """Anchors of a document, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(path: Path) -> list[str]:
    """Links of a document that lead nowhere in the repository."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)", prose(path)):
        name, _, anchor = link.partition("#")
        # Pages of the reference are made by `make docs`, which is strict about them.
        made = path.parent == ROOT / "docs" and name.startswith("reference/")
        if made or re.match(r"[a-z]+:", link):
            continue
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in headings(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_exist(path: Path) -> None:
    assert dead_links(path) == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One\n[a](page.md) [b](gone.md) [c](#one) [d](page.md#two) ![e](gone.png)\n"
        "[f](https://example.org/x) `[g](gone)`\n```\n[h](gone)\n```\n"
    )
    assert dead_links(page) == ["gone.md", "page.md#two", "gone.png"]


def test_the_two_commands_come_first() -> None:
    made = [line for document, line in COMMANDS if document == "README.md"]
    assert made[:2] == ["make report", "make test"]


def test_the_tree_names_every_room() -> None:
    readme = (ROOT / "README.md").read_text()
    tree = set(re.findall(r"^ *([\w./]+)  +\S", readme, re.MULTILINE))
    for path in (ROOT / "dreamzero").iterdir():
        if not path.name.startswith("_") and path.name != "shipped_models":
            assert path.name + "/" * path.is_dir() in tree, f"the README's tree lacks {path.name}"


def results() -> list[str]:
    """The rows of the README's table of results, from the run record of the shipped model."""
    metrics = json.loads((FOLDER / NAME / "metrics.json").read_text())["metrics"]

    def cell(key: str) -> str:
        if key not in metrics:
            return "–"
        value, low, high = (round(100 * metrics[key][part]) for part in ("value", "low", "high"))
        return f"{value} % [{low}, {high}]"

    rows = []
    for suite, words in (
        ("seen", "tasks it was shown, new scenes"),
        ("unseen-combination", "colour and direction never shown together"),
        ("unseen-look", "light, table and camera outside what training varied"),
    ):
        cells = [cell(f"{suite}/{kind}") for kind in ("success", "success_reach", "success_push")]
        rows.append(f"| {words} | " + " | ".join(cells) + " |")
    parameters = metrics["corrected/parameters"]["value"]
    rows.append(f"with the memory of its window: {cell('seen/success_with_memory')}")
    rows.append(f"on the block: {cell('seen/success_state_sees_all')} on the seen tasks")
    rows.append(f"as they were trained, reach {cell('seen/success')}")
    rows.append(f"{parameters / 1e6:.1f} M parameters, n = {metrics['seen/success']['n']} a row")
    return rows


@pytest.mark.parametrize("row", results())
def test_results_are_those_of_the_run_record(row: str) -> None:
    assert row in (ROOT / "README.md").read_text(), f"the README should say: {row}"
