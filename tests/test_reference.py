"""The API reference builds without a warning, opens from disk, and none of its links is dead."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Page(HTMLParser):
    """What a page can be entered at, where it leads, and what it loads."""

    text: str
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the ids and addresses of an element."""
        found = {key: value for key, value in attrs if value is not None}
        self.anchors |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and "href" in found:
            self.loads.append(found["href"])
        elif "src" in found:
            self.loads.append(found["src"])


def faults(site: Path) -> list[str]:
    """Addresses that lead nowhere inside the site, and files that would come from outside of it."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site)
        found += [f"{where} loads {address}" for address in page.loads if urlsplit(address).netloc]
        for address in (*page.links, *page.loads):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            # Only 404.html has addresses from the root on.
            base = site if parts.path.startswith("/") else path.parent
            target = Path(os.path.normpath(base / unquote(parts.path).lstrip("/")))
            target = target if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file():
                found.append(f"{where} leads to {address}: no such file")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                found.append(f"{where} leads to {address}: no such place on that page")
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs_api_autonav", reason="the docs extra is not installed")
    out = tmp_path_factory.mktemp("reference")
    # Not -q: it hides warnings from --strict as well.
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert done.returncode == 0, "\n".join(said)
    return out


def test_no_link_is_dead_and_nothing_comes_from_outside(site: Path) -> None:
    assert faults(site) == []


def test_every_public_module_has_a_page(site: Path) -> None:
    for package, base in (("dreamzero", ROOT), ("dreamzero_kernels", ROOT / "kernels")):
        for source in (base / package).rglob("*.py"):
            parts = source.relative_to(base).with_suffix("").parts
            if any(part.startswith("_") and part != "__init__" for part in parts):
                continue
            named = [part if part != "__init__" else "index" for part in parts]
            page = (site / "reference").joinpath(*named).with_suffix(".html")
            assert page.is_file(), f"{source.relative_to(ROOT)} has no page"


def test_the_first_page_leads_to_every_room(site: Path) -> None:
    links = {urlsplit(link).path for link in Page((site / "index.html").read_text()).links}
    for path in (ROOT / "dreamzero").iterdir():
        if path.name.startswith("_") or not (
            path.suffix == ".py" or (path / "__init__.py").exists()
        ):
            continue
        page = f"{path.stem}/index.html" if path.is_dir() else f"{path.stem}.html"
        assert f"reference/dreamzero/{page}" in links, f"docs/index.md does not name {path.stem}"


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top"></h1><a href="a/b.html#x">1</a><a href="a/b.html#y">2</a><a href="c.html">3</a>'
        '<a href="#top">4</a><a href="#no">5</a><a href="https://example.org">6</a>'
        '<script src="https://example.org/x.js"></script>'
    )
    (tmp_path / "a" / "b.html").write_text('<p id="x"></p><a href="../index.html#top">1</a>')
    assert faults(tmp_path) == [
        "index.html loads https://example.org/x.js",
        "index.html leads to a/b.html#y: no such place on that page",
        "index.html leads to c.html: no such file",
        "index.html leads to #no: no such place on that page",
    ]
