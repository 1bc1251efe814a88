"""An executed notebook as HTML without a script and without a request: text, code, outputs.

Formulas become MathML (every current browser draws it); what notebooks print as HTML is reduced to
tables, pictures and videos that are inside the page.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import media

_TAGS = {
    "parameters": "parameters",
    "injected-parameters": "parameters of this run",
}
_ALLOWED = {
    "p", "b", "i", "em", "strong", "code", "pre", "span", "div", "br", "table", "thead", "tbody",
    "tr", "th", "td", "caption", "ul", "ol", "li", "video", "source", "img",
}  # fmt: skip
_ATTRIBUTES = {
    "video": ["controls", "loop", "muted", "playsinline", "src"],
    "source": ["src", "type"],
    "img": ["src", "alt", "width", "height"],
    "th": ["scope", "colspan"],
    "td": ["colspan"],
}


def cells(path: Path, captions: Mapping[bytes, tuple[str, str]]) -> list[dict[str, Any]]:
    """The notebook's cells for the template: ``kind, html`` and of code ``tag, outputs``.

    Args:
        captions: the bytes of a picture or video -> (caption, alternative text).
    """
    import nbformat

    notebook = nbformat.read(str(path), as_version=4)
    shown: list[dict[str, Any]] = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            shown.append({"kind": "markdown", "html": markdown(cell.source)})
        elif cell.cell_type == "code":
            tags = cell.metadata.get("tags", [])
            shown.append(
                {
                    "kind": "code",
                    "html": code(cell.source),
                    "tag": next((_TAGS[tag] for tag in tags if tag in _TAGS), ""),
                    "outputs": [
                        html for o in cell.outputs if (html := output(o, number, captions))
                    ],
                }
            )
    return shown


def markdown(source: str) -> Any:
    """Markdown with ``$formulas$`` as safe HTML."""
    import mistune
    from markupsafe import Markup

    reader = mistune.create_markdown(escape=True, plugins=["math", "table", "strikethrough"])
    renderer: Any = reader.renderer
    renderer.register("inline_math", lambda _, text: formula(text, "inline"))
    renderer.register(
        "block_math", lambda _, text: f'<div class="block-math">{formula(text, "block")}</div>\n'
    )
    # The reader wants the dollars of a formula on its own on lines of their own.
    source = re.sub(r"\$\$(.+?)\$\$", r"\n\n$$\n\1\n$$\n\n", source, flags=re.DOTALL)
    # The notebooks of the site stand beside each other in folders.
    linked = re.sub(
        r'href="(?:\./)?(\d\d_\w+)\.ipynb', r'href="../\1/notebook.html', str(reader(source))
    )
    return Markup(linked)


def formula(text: str, display: str) -> str:
    """LaTeX as MathML; what the converter does not know stays LaTeX."""
    import html

    from latex2mathml.converter import convert

    try:
        return convert(text.strip(), display=display)
    except Exception:  # noqa: BLE001  any of its parser's many errors: the source is readable too
        return f"<code>{html.escape(text.strip())}</code>"


def code(source: str) -> Any:
    """Python with its words in spans; the classes are Pygments' own."""
    from markupsafe import Markup
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)).rstrip("\n"))


def output(found: Any, number: int, captions: Mapping[bytes, tuple[str, str]]) -> Any:
    """One output as HTML; empty where there is nothing to show without a script."""
    import bleach
    from markupsafe import Markup, escape

    if found.output_type == "stream":
        text = _plain("".join(found.text)).strip("\n")
        return (
            Markup(f'<pre class="{escape(found.name)}" tabindex="0">{escape(text)}</pre>')
            if text
            else ""
        )
    if found.output_type == "error":
        text = _plain("\n".join(found.traceback))
        return Markup(f'<pre class="error" tabindex="0">{escape(text)}</pre>')
    data = found.get("data", {})
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            size = found.get("metadata", {}).get(kind, {})
            return _picture(base64.b64decode(data[kind]), kind, size, number, captions)
    if "text/markdown" in data:
        return markdown("".join(data["text/markdown"]))
    if "text/html" in data:
        html = bleach.clean(
            "".join(data["text/html"]),
            tags=_ALLOWED,
            attributes=_ATTRIBUTES,
            protocols={"data"},
            strip=True,
        )
        return _with_caption(html, captions)
    if "text/plain" in data:
        text = _plain("".join(data["text/plain"]))
        return Markup(f'<pre tabindex="0">{escape(text)}</pre>')
    return ""


def _picture(
    data: bytes,
    kind: str,
    shown: Mapping[str, int],
    number: int,
    captions: Mapping[bytes, tuple[str, str]],
) -> Any:
    from markupsafe import Markup, escape

    caption, alt = captions.get(data, ("", f"Picture that cell {number + 1} shows"))
    width, height = media.size(data)
    width, height = shown.get("width", width), shown.get("height", height)
    html = (
        f'<figure><span class="plot"><img src="{media.address(data, kind)}" alt="{escape(alt)}" '
        f'width="{width}" height="{height}"></span>'
    )
    if caption:
        html += f"<figcaption>{escape(caption)}</figcaption>"
    return Markup(html + "</figure>")


def _with_caption(html: str, captions: Mapping[bytes, tuple[str, str]]) -> Any:
    """A player of the record's video gets the caption and the label that it has there."""
    from markupsafe import Markup, escape

    found = re.fullmatch(r'\s*<video .*?base64,([^"]+)".*</video>\s*', html, re.DOTALL)
    caption, alt = captions.get(base64.b64decode(found.group(1)), ("", "")) if found else ("", "")
    if not caption:
        return Markup(html)
    labelled = html.replace("<video ", f'<video aria-label="{escape(alt)}" ', 1)
    return Markup(f"<figure>{labelled}<figcaption>{escape(caption)}</figcaption></figure>")


def _plain(text: str) -> str:
    """Without the escape sequences of terminals."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
