"""The site: whole, self-contained, readable without pictures; failures, other records, the PDF."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dreamzero.errors import UserError
from dreamzero.report import NotebookReport, site
from dreamzero.report.record import RunRecord
from dreamzero.report.site import pdf
from dreamzero.report.site.cells import code, markdown

Cli = Callable[..., tuple[int, str, str]]


class Page(html.parser.HTMLParser):
    """Tags, headings, and every address that a browser would load by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.images: list[str] = []
        self.headings: list[int] = []
        self.tags: set[str] = set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        if tag == "a":
            self.links.append(values["href"])
        elif tag == "link":
            self.loaded.append(values["href"])
        self.loaded += [values[name] for name in ("src", "poster", "srcset") if name in values]
        if tag == "img":
            assert "alt" in values, "a picture without a text for who cannot see it"
            self.images.append(values["alt"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """A notebook's report with everything in it, an executed copy, and a bench's record."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    out = tmp_path / "out"
    parameters = {"profile": "quick", "seed": 3, "device": "cpu", "out_dir": str(out / "00_coin")}
    report = NotebookReport("00_coin", "Is the coin <fair>?", parameters)
    report.image(np.zeros((40, 64, 3), np.uint8), "look", "The coin.", alt="A black coin.")
    report.video(np.zeros((4, 16, 16, 3), np.uint8), "spin", "It spins.", fps=5)
    report.table("counts", [{"side": "heads", "n": 3}], "What was thrown.")
    report.metric("heads", 0.5, "of it", n=30, low=0.3, high=0.7)
    report.metric("a/first", 1.0)
    report.metric("a/second", 2.0)
    report.answer("It looks fair.", not_shown="Any other coin.")
    report.save()
    picture = (out / "00_coin" / "look.png").read_bytes()
    import base64

    shown = {"image/png": base64.b64encode(picture).decode()}
    cells = [
        new_markdown_cell(
            "# Coin\n\nHalf of $x^2$, and\n$$\\frac{1}{2}$$\nsee [01](01_data.ipynb)."
        ),
        new_code_cell("seed: int = 0", metadata={"tags": ["parameters"]}),
        new_code_cell(
            "show('<b>')",
            outputs=[
                new_output("display_data", data=shown),
                new_output("stream", name="stdout", text="\x1b[31mred\x1b[0m <tag>\n"),
                new_output("display_data", data={"text/html": "<script>alert(1)</script><b>x</b>"}),
            ],
        ),
    ]
    nbformat.write(new_notebook(cells=cells), out / "00_coin" / "executed.ipynb")
    RunRecord("bench", {"seconds": 3}).save(out / "bench" / "soak")
    return out


def test_the_site_is_whole_and_loads_nothing(reports: Path) -> None:
    index = site.write(reports)
    assert index == reports / "index.html"
    names = {p.relative_to(reports).as_posix() for p in reports.rglob("*.html")}
    assert names == {
        "index.html", "00_coin/index.html", "00_coin/notebook.html", "bench/soak/index.html",
    }  # fmt: skip
    for name in names:
        page = Page(reports / name)
        assert all(address.startswith("data:") for address in page.loaded), name
        assert "script" not in page.tags and "url(" not in page.text and "@import" not in page.text
        assert page.headings[0] == 1 and page.headings.count(1) == 1
        steps = [b - a for a, b in zip(page.headings, page.headings[1:], strict=False)]
        assert all(step <= 1 for step in steps), f"{name} skips a level: {page.headings}"
        for link in page.links:
            if "://" not in link and not link.startswith("#") and "01_data" not in link:
                assert (reports / name).parent.joinpath(link).resolve().exists(), f"{name}: {link}"


def test_a_page_says_what_the_record_does(reports: Path) -> None:
    site.write(reports)
    page = Page(reports / "00_coin" / "index.html")
    for text in (
        "Is the coin &lt;fair&gt;?", "It looks fair.", "Any other coin.", "0.3, 0.7", ">30<",
        "of it", "The coin.", "What was thrown.", "seed = 3", "SHA-256", "first", "metrics.json",
    ):  # fmt: skip
        assert text in page.text, text
    assert page.images == ["A black coin.", "It spins."], "the picture, and the video's still"
    assert "video" in page.tags and "prefers-color-scheme: dark" in page.text
    assert "0.3, 0.7" in (reports / "index.html").read_text()
    soak = (reports / "bench" / "soak" / "index.html").read_text()
    assert "Bench, soak" in soak and 'href="../../index.html"' in soak


def test_the_notebook_is_shown_without_scripts(reports: Path) -> None:
    site.write(reports)
    page = Page(reports / "00_coin" / "notebook.html")
    assert {"math", "mfrac", "msup"} <= page.tags and "$" not in page.text.split("</style>")[1]
    assert "../01_data/notebook.html" in page.links
    assert "A black coin." in page.images and "<figcaption>The coin.</figcaption>" in page.text
    assert "red &lt;tag&gt;" in page.text and "\x1b" not in page.text
    assert "<script" not in page.text and "<b>x</b>" in page.text
    assert '<p class="tag">parameters</p>' in page.text
    assert "&lt;b&gt;" in code("show('<b>')") and "<script" not in markdown("<script>x</script>")


def test_a_failure_stands_in_its_place(reports: Path) -> None:
    shutil.copytree(reports / "00_coin", reports / "01_other.failed")
    index = site.write(reports, {"01_other": "cell 3: <boom>"})
    page = Page(index)
    assert "cell 3: &lt;boom&gt;" in page.text
    assert "01_other.failed/notebook.html" in page.links
    assert (reports / "01_other.failed" / "notebook.html").is_file()
    index = site.write(reports, {"00_coin": "cell 1: late"})
    assert "It looks fair." not in index.read_text(), "an older result is not today's"


def test_what_is_missing_is_named(reports: Path, tmp_path: Path) -> None:
    (reports / "00_coin" / "look.png").unlink()
    with pytest.raises(UserError, match=r"look\.png.*run it again"):
        site.write(reports)
    with pytest.raises(UserError, match="no reports here"):
        site.write(tmp_path / "empty")


def test_contrast_is_enough() -> None:
    """WCAG 2.1: 4.5 to 1 for text on what it stands on, in both schemes."""
    css = Path(site.__file__).with_name("style.css").read_text()
    for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for text in ("ink", "soft", "accent", "bad"):
            for ground in ("paper", "card", "wash"):
                assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground, block)
        for text in "kscnf":
            assert _contrast(colours[text], colours["code"]) >= 4.5, (text, block)


def _contrast(one: str, two: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_pdf_without_a_browser_is_one_clear_line(
    cli: Cli, reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    status, _, err = cli("report", "--render", "--pdf", "--out", reports)
    assert (status, err.count("\n")) == (2, 1) and "apt-get install -y chromium" in err
    assert not (reports / "index.html").exists(), "said before anything is run"


def test_pdf_says_what_the_browser_said(
    reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "browser"
    browser.write_text("#!/bin/sh\necho no display >&2\nexit 1\n")
    browser.chmod(0o755)
    monkeypatch.setattr(pdf, "chromium", lambda: str(browser))
    with pytest.raises(UserError, match=r"browser wrote no PDF \(no display\)"):
        pdf.write(reports)


@pytest.mark.peer
def test_pdf_through_chromium(reports: Path) -> None:
    try:
        pdf.chromium()
    except UserError:
        pytest.skip("no Chromium here")
    made = pdf.write(reports)
    data = Path(made).read_bytes()
    assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 3, "cover, notebook, bench"
    assert not (reports / "print.html").exists()


def test_committed_reports_render(root: Path, tmp_path: Path) -> None:
    """Every committed record has a page, on which each of its metrics stands."""
    shutil.copytree(root / "reports", tmp_path / "reports")
    site.write(tmp_path / "reports")
    for file in (tmp_path / "reports").rglob("metrics.json"):
        page = Page(file.parent / "index.html")
        metrics = json.loads(file.read_text())["metrics"]
        assert page.text.count('<th scope="row">') >= len(metrics)
        assert all(address.startswith("data:") for address in page.loaded)
        if (file.parent / "executed.ipynb").is_file():
            notebook = Page(file.parent / "notebook.html")
            assert all(address.startswith("data:") for address in notebook.loaded)
            assert "script" not in notebook.tags
