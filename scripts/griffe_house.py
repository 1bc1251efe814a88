"""House style of docstrings for mkdocstrings (mkdocs.yml names this file)."""

from __future__ import annotations

import re
from typing import Any

import griffe

# "scale, shift: ``[b, g, d]``" describes two names in one line; the parser takes the second for a type.
_JOINT = re.compile(r"^( +)(\*{0,2}\w+(?:, \*{0,2}\w+)+)(?=: )", re.MULTILINE)
# A session at the prompt, up to the next empty line, which Markdown takes for a quotation.
_SESSION = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class House(griffe.Extension):
    """Names that share a line stay together, sessions are code, ``MODEL.md`` leads to its page."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once for every object that was read; changes its docstring's text."""
        if obj.docstring is None:
            return
        text = obj.docstring.value
        text = _JOINT.sub(lambda m: m[1] + m[2].replace(", ", ",\N{NO-BREAK SPACE}"), text)
        text = _SESSION.sub(lambda m: f"```pycon\n{m[0]}\n```", text)
        obj.docstring.value = text.replace("MODEL.md", "[MODEL.md][sources]")
